from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from django.db import OperationalError
from django.db.backends.sqlite3.base import DatabaseWrapper
from django_db_worker import database
from django_db_worker.database import Link, OutageLog
from django_db_worker.errors import RefusedError
from django_db_worker.stop import Stop

if TYPE_CHECKING:
    from typing import NoReturn

WRONG_PASSWORD = OperationalError(1045, "Access denied")


class Refused(DatabaseWrapper):
    """A connection that the server refuses."""

    def ensure_connection(self) -> NoReturn:
        raise WRONG_PASSWORD


def test_a_slot_that_ends_the_worker_leaves_nobody_to_say_the_same_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    refused = Refused({"NAME": ":memory:", "OPTIONS": {}}, "refused")
    monkeypatch.setattr(database, "connections", {"refused": refused})
    monkeypatch.setattr(database, "REFUSED_SECONDS", 0.0)
    monkeypatch.setattr(database, "FIRST_RETRY_SECONDS", 0.0)
    outages = OutageLog()
    link = Link("refused", Stop(), outages, lambda: None)
    with pytest.raises(RefusedError):
        link.open(even_when_stopping=False)
    link.close()

    assert not outages.away(WRONG_PASSWORD)
    assert [record.getMessage() for record in caplog.records] == [
        "The database cannot be used (access denied). Trying until it can."
    ]
