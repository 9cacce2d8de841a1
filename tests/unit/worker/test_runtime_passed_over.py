"""Rows that are passed over: for a while, and told once."""

from __future__ import annotations

import uuid
from types import SimpleNamespace
from typing import TYPE_CHECKING

from django.db import IntegrityError
from django_db_worker import passed_over
from django_db_worker.passed_over import AGAIN_SECONDS, PassedOver

if TYPE_CHECKING:
    import pytest

ONE, TWO = uuid.UUID(int=1), uuid.UUID(int=2)
ERROR = IntegrityError("Failing row contains (hush)")


def test_a_row_is_tried_again_and_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = 1000.0
    monkeypatch.setattr(passed_over, "time", SimpleNamespace(monotonic=lambda: now))
    rows = PassedOver()
    assert rows.keys() == []
    rows.add(ONE, ERROR)
    now += AGAIN_SECONDS / 2
    rows.add(TWO, ERROR)
    assert rows.keys() == [ONE, TWO]
    now += AGAIN_SECONDS / 2
    assert rows.keys() == [TWO]
    rows.add(ONE, ERROR)
    now += AGAIN_SECONDS / 2
    assert rows.keys() == [ONE]

    said = [record.getMessage() for record in caplog.records]
    assert [str(key) in line for key, line in zip((ONE, TWO), said, strict=True)] == [True, True]
    assert "hush" not in caplog.text
