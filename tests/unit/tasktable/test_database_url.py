from __future__ import annotations

import ssl
import traceback
from contextlib import suppress
from typing import Any
from urllib.parse import quote

import dj_database_url
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.authorities import Authority

from django_task_operator.errors import UserError
from django_task_operator.tasktable import (
    DatabaseURL,
    InvalidRootCert,
    InvalidURL,
    UnsupportedDatabase,
    orm,
    root_cert,
)
from django_task_operator.tasktable.engines import Limits

URL = "postgres://shop:s3cr%25t@db.shop.svc:5433/orders?sslmode=require"


def test_every_part_is_read() -> None:
    url = DatabaseURL.parse(URL + "\n")
    assert (url.engine.vendor, url.host, url.port, url.name) == (
        "postgresql",
        "db.shop.svc",
        "5433",
        "orders",
    )
    assert (url.user, url.password, url.options) == ("shop", "s3cr%t", {"sslmode": "require"})


@pytest.mark.parametrize(
    ("scheme", "vendor"),
    [
        ("postgres", "postgresql"),
        ("postgresql", "postgresql"),
        ("pgsql", "postgresql"),
        ("postgis", "postgresql"),
        ("timescale", "postgresql"),
        ("psql", "postgresql"),
        ("POSTGRES", "postgresql"),
        ("mariadb", "mysql"),
        ("mysql", "mysql"),
        ("mysql2", "mysql"),
        ("mysqlgis", "mysql"),
    ],
)
def test_schemes(scheme: str, vendor: str) -> None:
    assert DatabaseURL.parse(f"{scheme}://u:p@h/n").engine.vendor == vendor


def test_every_scheme_that_django_reads_is_known() -> None:
    for scheme in dj_database_url.ENGINE_SCHEMES:
        # Another error would say that it is no URL of a database.
        with suppress(UnsupportedDatabase):
            assert DatabaseURL.parse(f"{scheme}://u:p@h/n").name == "n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "it is empty"),
        ("  \n", "it is empty"),
        ("hunter2", "it does not start with postgres:// or mysql://"),
        ("user:hunter2@db/shop", "it does not start with"),
        ("hunter2://db/shop", "it does not start with"),
        ("postgres:hunter2", "it does not start with"),
        ("'postgres://user:hunter2@db/shop'", "it is in quotation marks"),
        ("DATABASE_URL=postgres://user:hunter2@db/shop", "it begins with a name and an equals sign"),
        ("host=db password=hunter2", "it is a connection string of keywords and values"),
        ("jdbc:postgresql://db/shop?password=hunter2", "it is a URL for Java"),
        (
            "mysql+pymysql://user:hunter2@db/shop",
            "it is a URL for SQLAlchemy: write mysql:// instead",
        ),
        (
            "postgresql+asyncpg://user:hunter2@db/shop",
            "it is a URL for SQLAlchemy: write postgresql://",
        ),
        ("postgres://user:hunter2@db/shop ", "it ends in a space"),
        ("postgres://user:hunter2/x@db/shop", "a / in the user, the password"),
        ("postgres://user:12/hunter2@db/shop", "a / in the user, the password"),
        ("postgres://user:hunter2@x/y@db/shop", "a / in the user, the password"),
        ("postgres://user:hunter2?x@db/shop", "a ? in the user, the password"),
        ("postgres://user:hunter2#x@db/shop", "a # in the user, the password"),
        ("postgres://user:p@db/shop?password=hunter2#x", "a # in the user, the password"),
        ("postgres://user:hunter2]x@db/shop", "a ] in the user, the password"),
        ("postgres://user:hunt[er2@db/shop", "a [ in the user, the password"),
        ("postgres://user:hunter2%de@db/shop", "a % in the user, the password"),
        ("postgres://user:hunter2@db:five/shop", "its port is no number between 0 and 65535"),
        ("postgres://user:hunter2@db:65536/shop", "its port is no number between 0 and 65535"),
        (
            "postgres://user:hunter2/shop",
            "its port is no number between 0 and 65535; if that is a",
        ),
        ("postgres://user:hunter2@[db/shop", "what is in brackets is no IPv6 address"),
        ("postgres://user:hunter2@[db]/shop", "what is in brackets is no IPv6 address"),
        ("postgres://user:hunter2@[fe80::7%]/shop", "what is in brackets is no IPv6 address"),
        ("postgres://user:hunter2@fd00::7/shop", "an IPv6 address has to be in brackets"),
        ("postgres://user:hunter2\u2100@db/shop", "it has a character that has to be percent-encoded"),
        ("mysql://user:hunter2@db1,db2/shop", "it names several hosts, but MySQL's drivers accept only one"),
        ("postgres://user:hunter2@//cloudsql/a:b:c/shop", "it names a Unix socket"),
        *(
            (f"postgres://user:hunter2@db/shop?{option}=/x", f"{option} is not taken from a URL")
            for option in ("sslrootcert", "sslcert", "sslkey", "sslcrl", "sslcrldir", "passfile", "service")
        ),
        *(
            (f"mysql://user:hunter2@db/shop?{option}=/x", f"{option} is not taken from a URL")
            for option in ("ssl-ca", "ssl_ca", "ssl_cert", "ssl-key", "ssl_capath", "read_default_file")
        ),
        (
            "postgres://user:hunter2@db/shop?sslrootcert=/x",
            (
                "sslrootcert is not taken from a URL, because the operator would read its own files. "
                "Name the Secret that has the certificate in spec.database.sslRootCertSecretRef"
            ),
        ),
        ("postgres://user:hunter2@/shop", "it names no host"),
        ("postgres://user:hunter2@db", "it names no database"),
        ("postgres://user:hunter2@db/", "it names no database"),
        ("postgres://user:hunter2@%2Fvar%2Frun%2Fpostgresql/shop", "it names a Unix socket"),
        ("postgres:///hunter2?host=/var/run/postgresql", "it names a Unix socket"),
        ("mysql://user:hunter2@db/shop?unix_socket=/run/mysqld.sock", "it names a Unix socket"),
    ],
)
def test_what_cannot_be_used_is_said_without_quoting_it(text: str, problem: str) -> None:
    with pytest.raises(InvalidURL) as refused:
        DatabaseURL.parse(text)
    assert refused.value.message.startswith(f"The database URL cannot be used: {problem}")
    assert "hunter2" not in "".join(traceback.format_exception(refused.value))
    assert refused.value.__context__ is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "sqlite:///db.sqlite3",
            "SQLite, which the operator does not support: it is a file, and pods cannot share a file",
        ),
        ("sqlite://:memory:", "SQLite"),
        ("spatialite:///db", "SpatiaLite"),
        ("oracle://u:hunter2@h/n", "Oracle"),
        ("mssql://u:hunter2@h/n", "SQL Server"),
        ("redshift://u:hunter2@h/n", "Redshift"),
        ("cockroach://u:hunter2@h/n", "CockroachDB"),
    ],
)
def test_other_databases_are_refused_with_the_reason(text: str, said: str) -> None:
    with pytest.raises(UnsupportedDatabase) as refused:
        DatabaseURL.parse(text)
    assert said in refused.value.message
    assert "hunter2" not in refused.value.message


def test_equal_by_text_and_never_shown() -> None:
    one, same, other = DatabaseURL.parse(URL), DatabaseURL.parse(URL), DatabaseURL.parse(URL + "&x=1")
    assert one == same
    assert one != other
    assert {one: 1}[same] == 1
    for shown in (repr(one), str(one), f"{one}", f"{[one]}", "%s" % one):  # noqa: UP031
        assert "s3cr" not in shown
        assert "shop" not in shown


@given(text=st.text())
def test_any_text_is_a_url_or_refused(text: str) -> None:
    try:
        DatabaseURL.parse(text)
    except UserError as error:
        assert error.__context__ is None  # noqa: PT017  the reason behind it would quote the text


@given(password=st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_password_is_read(password: str) -> None:
    assert DatabaseURL.parse(f"mysql://user:{quote(password, safe='')}@db/shop").password == password


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "postgresql://db.shop.svc/orders?user=shop&password=s%26t&port=6432",
            {"host": "db.shop.svc", "port": "6432", "dbname": "orders", "user": "shop", "password": "s&t"},
        ),
        (
            "postgresql:///orders?host=db.shop.svc&user=shop&password=x",
            {"host": "db.shop.svc", "port": None, "dbname": "orders", "user": "shop", "password": "x"},
        ),
        (
            "postgresql://shop@db?dbname=orders&password=x",
            {"host": "db", "dbname": "orders", "user": "shop", "password": "x"},
        ),
        (
            "postgresql://shop:x@a,b/orders?target_session_attrs=read-write",
            {"host": "a,b", "port": None, "target_session_attrs": "read-write"},
        ),
        ("postgresql://shop:x@a:1,b:2/orders", {"host": "a,b", "port": "1,2"}),
        ("postgresql://shop:x@a:1,b/orders", {"host": "a,b", "port": "1,"}),
        ("postgresql://shop:x@a:7,b:7/orders", {"host": "a,b", "port": "7"}),
        ("postgresql://shop:x@[fd00::7]:5433/orders", {"host": "fd00::7", "port": "5433"}),
        ("postgresql://shop:x@[fd00::7],[fd00::8]:1/orders", {"host": "fd00::7,fd00::8", "port": ",1"}),
        ("postgresql://shop:x@h/orders?hostaddr=10.0.0.7", {"host": "h", "hostaddr": "10.0.0.7"}),
        ("postgresql://shop:p@ss:w%rd@h/orders", {"user": "shop", "password": "p@ss:w%rd", "host": "h"}),
        ("postgresql://joe%40x:x@h/or%2Fders", {"user": "joe@x", "dbname": "or/ders"}),
        ("postgresql://h/orders?user=joe@x&password=a/b@c", {"user": "joe@x", "password": "a/b@c"}),
        ("postgresql://h/n?sslmode=require&sslsni=0", {"sslmode": "require", "sslsni": "0"}),
        ("  postgresql://h/n\r\n", {"dbname": "n"}),
    ],
)
def test_what_libpq_and_django_take_from_a_url(text: str, expected: dict[str, object]) -> None:
    found = _params(DatabaseURL.parse(text))
    assert {name: found.get(name) for name in expected} == expected


@pytest.mark.parametrize(
    ("query", "path"),
    [
        ("schema=tasks", "-c search_path=tasks"),
        ("currentSchema=tasks", "-c search_path=tasks"),
        ("schema=my%20tasks", "-c search_path=my\\ tasks"),
        ("options=-c%20search_path%3Dtasks%2Cpublic", "-c search_path=tasks,public"),
        ("options=-csearch_path%3Dtasks", "-csearch_path=tasks"),
    ],
)
def test_a_schema_in_each_form(query: str, path: str) -> None:
    options = _params(DatabaseURL.parse(f"postgres://u:p@h/n?{query}"))["options"]
    assert options == f"{path} -c statement_timeout=10000 -c jit=off"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "mysql://db/orders?user=shop&password=x&port=3307",
            {"host": "db", "port": 3307, "database": "orders", "user": "shop", "password": "x"},
        ),
        ("mysql://u:p@db/orders?passwd=x&db=other", {"password": "x", "database": "other"}),
        ("mariadb://u:p@[fd00::7]:3307/orders", {"host": "fd00::7", "port": 3307}),
    ],
)
def test_what_mysql_takes_from_a_url(text: str, expected: dict[str, object]) -> None:
    found = _params(DatabaseURL.parse(text))
    assert {name: found.get(name) for name in expected} == expected


@given(
    scheme=st.sampled_from(["postgres", "postgresql", "mysql"]),
    user=st.text(st.characters(exclude_categories=["Cs"]), max_size=9),
    password=st.text(st.characters(exclude_categories=["Cs"]), max_size=9),
    host=st.sampled_from(["db", "db.shop.svc", "10.0.0.7", "[fd00::7]"]),
    port=st.sampled_from(["", ":5432"]),
    name=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=9),
)
def test_a_well_formed_url_means_what_it_means_to_the_pods(
    scheme: str, user: str, password: str, host: str, port: str, name: str
) -> None:
    userinfo = f"{quote(user, safe='')}:{quote(password, safe='')}@"
    text = f"{scheme}://{userinfo}{host}{port}/{quote(name, safe='')}"
    pods = dj_database_url.parse(text)
    if name.startswith("/"):
        return
    url = DatabaseURL.parse(text)
    assert (url.user, url.password, url.host) == (pods["USER"], pods["PASSWORD"], pods["HOST"])
    assert (url.port, url.name) == (str(pods["PORT"]), pods["NAME"])


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True),
        ("LOCALHOST", True),
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("[::1]", True),
        ("0.0.0.0", True),
        ("localhost.shop.svc", False),
        ("10.0.0.7", False),
        ("db,localhost", False),
    ],
)
def test_the_operators_own_pod(host: str, loopback: bool) -> None:
    assert DatabaseURL.parse(f"postgres://u:p@{host}/n").is_loopback is loopback


def test_postgresql_options_of_the_url_are_honoured_and_ours_win() -> None:
    url = DatabaseURL.parse(
        "postgres://u:p@h/n?sslmode=verify-full&sslrootcert=system&currentSchema=tasks&connect_timeout=999"
        "&application_name=mine&pool=true&server_side_binding=true&prepare_threshold=1"
    )
    options = _params(url)
    assert options["sslmode"] == "verify-full"
    assert options["sslrootcert"] == "system"
    assert options["options"] == "-c search_path=tasks -c statement_timeout=10000 -c jit=off"
    assert options["application_name"] == "django-task-operator"
    assert options["connect_timeout"] == 5
    assert options["prepare_threshold"] is None
    assert not {"pool", "server_side_binding"} & options.keys()


@pytest.mark.parametrize(
    ("query", "tls"),
    [
        ("", "where offered"),
        ("?ssl_mode=DISABLED", "never"),
        ("?ssl-mode=REQUIRED", "unverified"),
        ("?ssl=true", "unverified"),
        ("?ssl_mode=VERIFY_CA", "verified"),
        ("?ssl_mode=verify_identity", "verified, with the name"),
        ("?ssl_verify_identity=true", "verified, with the name"),
    ],
)
def test_mysql_tls(query: str, tls: str) -> None:
    options = _params(DatabaseURL.parse(f"mysql://u:p@h/n{query}"))
    context = options.get("ssl")
    if options.get("ssl_disabled"):
        found = "never"
    elif context is None:
        found = "where offered"
    elif not context.verify_mode:
        found = "unverified"
    else:
        found = "verified, with the name" if context.check_hostname else "verified"
    assert found == tls


@pytest.mark.parametrize(
    ("query", "sslmode"),
    [("", "verify-full"), ("?sslmode=verify-ca", "verify-ca"), ("?sslmode=disable", "disable")],
)
def test_with_an_authority_postgresql_is_verified_unless_the_url_says_otherwise(
    query: str, sslmode: str
) -> None:
    url = DatabaseURL.parse(f"postgres://u:p@h/n{query}", Authority.make().pem)
    assert _params(url)["sslmode"] == sslmode
    assert "sslmode" not in _params(DatabaseURL.parse("postgres://u:p@h/n"))


@pytest.mark.parametrize(
    ("query", "verifies_name"),
    [
        ("", True),
        ("?ssl_mode=VERIFY_IDENTITY", True),
        ("?ssl_mode=VERIFY_CA", False),
        ("?ssl_mode=REQUIRED", False),
        ("?ssl=true", True),
    ],
)
def test_with_an_authority_mysql_is_verified_by_it_alone(query: str, verifies_name: bool) -> None:
    context = _params(DatabaseURL.parse(f"mysql://u:p@h/n{query}", Authority.make("ours").pem))["ssl"]

    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname is verifies_name
    assert [dict(item[0] for item in ca["subject"]) for ca in context.get_ca_certs()] == [
        {"commonName": "ours"}
    ]


def test_without_tls_there_is_nothing_to_verify() -> None:
    url = DatabaseURL.parse("mysql://u:p@h/n?ssl_mode=DISABLED", Authority.make().pem)
    assert _params(url).get("ssl") is None


def test_another_authority_is_another_database() -> None:
    text, authority = "postgres://u:p@h/n", Authority.make().pem
    assert DatabaseURL.parse(text, authority) == DatabaseURL.parse(text, authority)
    assert DatabaseURL.parse(text, authority) != DatabaseURL.parse(text)
    assert "CERTIFICATE" not in repr(DatabaseURL.parse(text, authority))


def test_of_what_a_secret_has_the_certificates_are_taken() -> None:
    one, two, (_, key) = Authority.make().pem, Authority.make().pem, Authority.make().sign("127.0.0.1")
    for text in (
        one + two,
        f"# für uns\n\n{one}\n{two}\n",
        f"{key}{one}{two}",
        f"{one.strip()}{two.strip()}",
    ):
        assert root_cert(text, secret="shop-db", key="ca.crt") == one + two


@pytest.mark.parametrize("cut", [0, 1, 10, 200])
def test_what_is_no_certificate_is_named(cut: int) -> None:
    authority, (_, key) = Authority.make().pem, Authority.make().sign("127.0.0.1")
    damaged = authority[:cut] + authority[cut + 40 :]
    for text in ("", " \n", "ca.crt", key, damaged, authority[: len(authority) // 2]):
        with pytest.raises(
            InvalidRootCert, match=r"^Secret shop-db has no certificate in its key root\.pem"
        ) as no:
            root_cert(text, secret="shop-db", key="root.pem")
        assert no.value.__cause__ is None


def test_other_mysql_options_are_the_applications_alone() -> None:
    url = DatabaseURL.parse("mysql://u:p@h/n?local_infile=1&init_command=DROP")
    assert not {"local_infile", "init_command"} & _params(url).keys()


def _params(url: DatabaseURL) -> dict[str, Any]:
    connection = orm.new_connection(url, Limits(5, 10))
    params: dict[str, Any] = connection.get_connection_params()
    return params
