"""The time of a claim is certain only if it is the same in every time zone that is possible."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_task_operator.tasktable import Listing, RunningRow
from django_task_operator.tasktable.running import StartTimes

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def listing(*read: datetime | None, at: datetime = NOW) -> Listing:
    rows = [RunningRow(key, "a.b", "default", "pod/1.1", 1, since) for key, since in enumerate(read)]
    return Listing(at, 0.0, tuple(rows))


@pytest.mark.parametrize(
    ("ago", "certain"),
    [(0, True), (-1, True), (12, True), (14, False), (60, False), (300, False), (-3, False), (-60, False)],
)
def test_a_claim_is_certain_if_it_is_first_seen_young(ago: float, certain: bool) -> None:
    read = NOW - ago * MINUTE
    (row,) = StartTimes().of(listing(read)).rows
    assert row.started_at == (read if certain else None)
    assert row.since == read


def test_what_was_certain_stays_so_and_what_was_not_does_too() -> None:
    times = StartTimes()
    young, ahead = NOW - MINUTE, NOW + 60 * MINUTE
    for later in (0, 30, 61, 600):
        rows = times.of(listing(young, ahead, at=NOW + later * MINUTE)).rows
        assert [row.started_at for row in rows] == [young, None]


def test_a_claim_that_is_gone_is_forgotten_and_a_row_without_a_time_is_left_alone() -> None:
    times = StartTimes()
    times.of(listing(NOW))
    times.of(listing(None))
    (row,) = times.of(listing(NOW, at=NOW + 30 * MINUTE)).rows
    assert (row.started_at, row.since) == (None, NOW)


@given(
    offset=st.integers(-12 * 4, 14 * 4),
    looks=st.lists(st.integers(0, 3_000), min_size=1, max_size=5, unique=True).map(sorted),
    skew=st.integers(-100, 100),
)
def test_in_no_time_zone_is_a_claim_thought_older_than_it_is(
    offset: int, looks: list[int], skew: int
) -> None:
    """The project stores local time, which is so many quarters of an hour from UTC."""
    read = NOW + timedelta(minutes=15 * offset, seconds=skew)
    times = StartTimes()
    for after in looks:
        (row,) = times.of(listing(read, at=NOW + timedelta(seconds=after))).rows
        assert row.started_at is None or row.started_at >= NOW + timedelta(seconds=skew)
