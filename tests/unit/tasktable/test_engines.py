"""An engine is a file and a line in the registry; a database without one is refused everywhere."""

from __future__ import annotations

from typing import Any

import pytest
from django.db.utils import ConnectionHandler

from django_task_operator.tasktable import DatabaseURL, Selection, UnsupportedDatabase, engines, orm
from django_task_operator.tasktable.engines import ENGINES, Limits, engine_of_connection, engine_of_scheme
from django_task_operator.tasktable.engines.postgresql import PostgreSQL
from django_task_operator.tasktable.queues import is_indexed
from django_task_operator.tasktable.running import running_rows
from django_task_operator.tasktable.statement import Layout, compile_statement

UNKNOWN = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}


class Toy(PostgreSQL):
    """A third engine, with one of Django's backends."""

    vendor = "sqlite"
    backend = "django.db.backends.sqlite3"
    schemes = frozenset({"toy"})
    clock = "TOY_CLOCK()"


def connection() -> Any:
    return ConnectionHandler(UNKNOWN).create_connection("default")


@pytest.mark.parametrize(
    "ask",
    [
        engine_of_connection,
        is_indexed,
        lambda unknown: running_rows(unknown, 1),
        lambda unknown: compile_statement(
            unknown, {Selection("default", ("*",)): 1}, Layout(indexed=True, queues={"default": ("a", "b")})
        ),
    ],
    ids=["engine", "index", "running", "statement"],
)
def test_a_connection_without_an_engine_is_refused(ask: Any) -> None:
    with pytest.raises(UnsupportedDatabase) as refused:
        ask(connection())
    assert refused.value.message == (
        "The database URL names sqlite, which the operator does not support: "
        "the operator has no engine of that name, "
        "but postgresql, mysql. Use PostgreSQL, MySQL or MariaDB."
    )


def test_each_engine_says_what_only_it_knows() -> None:
    for attribute in ("vendor", "backend", "clock"):
        assert len({getattr(engine, attribute) for engine in ENGINES}) == len(ENGINES)
    schemes = [scheme for engine in ENGINES for scheme in engine.schemes]
    assert len(schemes) == len(set(schemes))
    assert [engine_of_scheme(scheme) for scheme in ("postgres", "mysql", "gopher")] == [*ENGINES, None]


def test_a_third_engine_is_a_line_in_the_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "ENGINES", (*ENGINES, Toy()))

    url = DatabaseURL.parse("toy://u:p@h/n")
    made = orm.new_connection(url, Limits(5, 10))

    assert isinstance(url.engine, Toy)
    assert made.settings_dict["ENGINE"] == Toy.backend
    statement = compile_statement(made, {Selection("default", ("a",)): 1}, Layout(indexed=True, queues={}))
    assert "TOY_CLOCK()" in statement.sql
    assert "STATEMENT_TIMESTAMP" not in statement.sql
