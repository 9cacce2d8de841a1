"""A database that is given in parts: the URL that is built from them, and errors in them."""

from __future__ import annotations

import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_task_operator.resources.database import DEFAULT_PORTS
from django_task_operator.spec import DatabaseEngine
from django_task_operator.tasktable import DatabaseURL, InvalidConnection
from django_task_operator.tasktable.connection import check_parts, url_of_parts

PARTS = {"host": "db.shop.svc", "name": "shop", "user": "app", "password": "hunter2"}


def made(
    engine: DatabaseEngine = DatabaseEngine.POSTGRESQL, options: dict[str, str] | None = None, /, **parts: str
) -> DatabaseURL:
    given = {**PARTS, **parts}
    url = url_of_parts(engine, given, options or {})
    check_parts(given, url)
    return DatabaseURL.parse(url)


@pytest.mark.parametrize("name", DatabaseEngine)
def test_every_engine_that_a_spec_may_name(name: DatabaseEngine) -> None:
    assert made(name).engine.name == name
    assert name in DEFAULT_PORTS


def test_the_least() -> None:
    url = made()

    assert (url.engine.vendor, url.host, url.port, url.name) == ("postgresql", "db.shop.svc", "", "shop")
    assert (url.user, url.password, url.options) == ("app", "hunter2", {})


def test_everything() -> None:
    url = made(DatabaseEngine.MYSQL, {"ssl-mode": "REQUIRED", "charset": "utf8&x=y"}, port="3307")

    assert (url.engine.vendor, url.port) == ("mysql", "3307")
    assert url.options == {"ssl-mode": "REQUIRED", "charset": "utf8&x=y"}


@given(st.text(st.characters(exclude_categories=("Cs", "Cc", "Z")), min_size=1))
def test_any_name_user_and_password_arrive_as_they_are(text: str) -> None:
    # Django takes a name that begins with a slash for the folder of a socket.
    url = made(name=f"n{text}", user=text, password=text)

    assert (url.name, url.user, url.password) == (f"n{text}", text, text)


@pytest.mark.parametrize("host", ["10.0.0.7", "fd00::7", "DB-1.shop_a.svc", "db1.shop.svc,db2.shop.svc"])
def test_hosts(host: str) -> None:
    url = made(host=host, port="6432")

    assert (url.host, url.port) == (host, "6432")


@pytest.mark.parametrize(
    ("part", "value", "problem"),
    [
        *((part, "", "it is empty") for part in PARTS),
        *((part, "hunter2\n", "it begins or ends in a space or a line break") for part in PARTS),
        ("password", " hunter2", "it begins or ends in a space"),
        ("port", "five", "it is no number between 1 and 65535"),
        ("port", "0", "it is no number between 1 and 65535"),
        ("port", "65536", "it is no number between 1 and 65535"),
        ("port", "\u0665", "it is no number between 1 and 65535"),
        ("host", "hunter2:5432", "it is no host's name or address"),
        ("host", "app@hunter2", "it is no host's name or address"),
        ("host", "postgres://hunter2/shop", "it is no host's name or address"),
        ("host", "/var/run/hunter2", "it is the folder of a Unix socket"),
    ],
)
def test_what_cannot_be_used_is_said_without_quoting_it(part: str, value: str, problem: str) -> None:
    with pytest.raises(InvalidConnection) as refused:
        made(**{part: value})

    assert refused.value.message.startswith(f"The database's {part} cannot be used: {problem}")
    assert f"Correct spec.database.connection.{part}" in refused.value.message
    assert "hunter2" not in "".join(traceback.format_exception_only(refused.value))


def test_options_that_name_files_are_refused_as_in_a_url() -> None:
    with pytest.raises(
        InvalidConnection, match=r"^The database's options cannot be used: sslkey is not taken"
    ):
        made(DatabaseEngine.POSTGRESQL, {"sslkey": "/x"})


def test_mysql_takes_one_host() -> None:
    with pytest.raises(
        InvalidConnection, match=r"^The database's host cannot be used: it names several hosts"
    ):
        made(DatabaseEngine.MYSQL, host="a,b")
