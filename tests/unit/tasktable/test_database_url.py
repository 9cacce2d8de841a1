from __future__ import annotations

import traceback
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_task_operator.errors import UserError
from django_task_operator.tasktable import DatabaseURL, InvalidURL, UnsupportedDatabase, orm
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
        ("mysql", "mysql"),
        ("mysql2", "mysql"),
        ("mysqlgis", "mysql"),
    ],
)
def test_schemes(scheme: str, vendor: str) -> None:
    assert DatabaseURL.parse(f"{scheme}://u:p@h/n").engine.vendor == vendor


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "it is empty"),
        ("  \n", "it is empty"),
        ("hunter2", "it does not start with postgres:// or mysql://"),
        ("user:hunter2@db/shop", "it does not start with"),
        ("hunter2://db/shop", "it does not start with"),
        ("postgres:hunter2", "it does not start with"),
        ("postgres://user:hunter2/x@db/shop", "it is not a well-formed URL"),
        ("postgres://user:hunter2@db:five/shop", "it is not a well-formed URL"),
        ("postgres://user:hunter2@[db/shop", "it is not a well-formed URL"),
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
            "SQLite, which cannot be scaled on: it is a file, and pods cannot share a file",
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


def test_postgresql_options_of_the_url_are_honoured_and_ours_win() -> None:
    url = DatabaseURL.parse(
        "postgres://u:p@h/n?sslmode=verify-full&sslrootcert=/ca&currentSchema=tasks&connect_timeout=999"
        "&application_name=mine&pool=true&server_side_binding=true&prepare_threshold=1&passfile=/etc/shadow"
    )
    options = _params(url)
    assert options["sslmode"] == "verify-full"
    assert options["sslrootcert"] == "/ca"
    assert options["options"] == "-c search_path=tasks -c statement_timeout=10000 -c jit=off"
    assert options["application_name"] == "django-task-operator"
    assert options["connect_timeout"] == 5
    assert options["prepare_threshold"] is None
    assert not {"pool", "server_side_binding", "passfile"} & options.keys()


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


def test_mysql_options_that_reach_into_the_operators_pod_are_dropped() -> None:
    url = DatabaseURL.parse("mysql://u:p@h/n?local_infile=1&read_default_file=/etc/my.cnf&init_command=DROP")
    assert not {"local_infile", "read_default_file", "init_command"} & _params(url).keys()


def _params(url: DatabaseURL) -> dict[str, Any]:
    connection = orm.new_connection(url, Limits(5, 10))
    params: dict[str, Any] = connection.get_connection_params()
    return params
