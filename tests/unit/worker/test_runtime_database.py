from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import pymysql
import pytest
from django.db import OperationalError
from django.db.backends.sqlite3.base import DatabaseWrapper
from django_db_worker import database
from django_db_worker.database import Link, OutageLog
from django_db_worker.errors import RefusedError
from django_db_worker.stop import Stop
from django_db_worker.trouble import Trouble

if TYPE_CHECKING:
    from typing import NoReturn

WRONG_PASSWORD = OperationalError(1045, "Access denied")
# Django chains what the driver raises.
WRONG_PASSWORD.__cause__ = pymysql.OperationalError(*WRONG_PASSWORD.args)


class Willing(DatabaseWrapper):
    """A connection that succeeds at once."""

    def ensure_connection(self) -> None:
        self.connection = sqlite3.connect(":memory:")

    def lose(self) -> None:
        self.connection.close()
        self.connection = None


def test_only_a_connection_that_replaces_another_is_a_reconnect(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = Willing({"NAME": ":memory:", "OPTIONS": {}}, "tasks")
    monkeypatch.setattr(database, "connections", {"tasks": connection})
    reconnects: list[int] = []
    link = Link("tasks", Stop(), OutageLog(), on_wait=lambda: None, on_reconnect=lambda: reconnects.append(1))

    def reopened() -> int:
        assert link.open(even_when_stopping=False)
        return len(reconnects)

    assert [reopened(), reopened()] == [0, 0]
    connection.lose()
    assert [reopened(), reopened()] == [1, 1]
    connection.lose()


class Refused(DatabaseWrapper):
    """A connection that the server refuses."""

    def ensure_connection(self) -> NoReturn:
        raise WRONG_PASSWORD


def test_a_worker_that_ends_because_it_is_refused_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whichever slot has logged it, whichever ends the worker, and whichever leaves before another tries."""
    refused = Refused({"NAME": ":memory:", "OPTIONS": {}}, "refused")
    monkeypatch.setattr(database, "connections", {"refused": refused})
    monkeypatch.setattr(database, "REFUSED_SECONDS", 0.0)
    monkeypatch.setattr(database, "FIRST_RETRY_SECONDS", 0.0)
    outages = OutageLog()

    def link() -> Link:
        return Link("refused", Stop(), outages, on_wait=lambda: None, on_reconnect=lambda: None)

    logs, ends, tries = link(), link(), link()
    assert outages.away(WRONG_PASSWORD)
    logs._said[Trouble.AWAY] = 0.0
    with pytest.raises(RefusedError):
        ends.open(even_when_stopping=False)
    ends.close()
    logs.close()
    with pytest.raises(RefusedError):
        tries.open(even_when_stopping=False)
    assert [record.getMessage() for record in caplog.records] == [
        "The database cannot be used (access denied). Trying until it can."
    ]


def test_a_slot_that_ends_alone_leaves_the_logging_to_the_others(caplog: pytest.LogCaptureFixture) -> None:
    outages = OutageLog()
    assert outages.away(WRONG_PASSWORD)
    assert not outages.away(WRONG_PASSWORD)
    outages.put_back(Trouble.AWAY)
    assert outages.away(WRONG_PASSWORD)
    assert len(caplog.records) == 2
