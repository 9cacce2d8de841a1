"""When idle slots look at the table: after announcements, at rest, and from time to time."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_task_operator.tasktable import orm  # noqa: F401  the models need settings

from django_db_worker.next_row import Wanted  # isort: skip
from django_db_worker.stop import Stop  # isort: skip
from django_db_worker.wake_rhythm import FIRST_REST_SECONDS, RARE_SECONDS, Rhythm, patience  # isort: skip
from django_db_worker.wake_trigger import Announcement, read_announcement  # isort: skip
from django_db_worker.wakes import OTHERS_SECONDS, Cause, Waiter, Wakes  # isort: skip


def rhythm(longest: float = 1.0) -> Rhythm:
    return Rhythm(longest, vary=lambda: 1.0)


def test_an_announcement_is_answered_at_once_and_the_next_one_after_a_rest() -> None:
    beat = rhythm()
    assert beat.announced(100.0)
    assert not beat.announced(100.0 + FIRST_REST_SECONDS / 2)
    assert beat.missed
    assert beat.rested_at == pytest.approx(100.0 + FIRST_REST_SECONDS)
    beat.look(beat.rested_at)
    assert not beat.missed


def test_who_asks_in_vain_rests_for_longer_up_to_the_interval() -> None:
    beat, now, rests = rhythm(), 0.0, []
    for _ in range(8):
        assert beat.announced(now)
        rests.append(beat.rested_at - now)
        now = beat.rested_at
        beat.looked(found=False)
    assert rests == pytest.approx([0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.0, 1.0])
    beat.looked(found=True)
    assert beat.announced(now)
    assert beat.rested_at - now == pytest.approx(FIRST_REST_SECONDS)


@given(st.lists(st.tuples(st.floats(0.0, 0.5), st.booleans()), max_size=200))
def test_no_announcement_is_lost_and_looks_in_vain_are_as_rare_as_polls(
    pauses: list[tuple[float, bool]],
) -> None:
    beat, now, in_vain = rhythm(), 0.0, 0
    for pause, found in pauses:
        now += pause
        if beat.missed and now >= beat.rested_at:
            beat.look(now)
        elif not beat.announced(now):
            assert beat.missed
            assert beat.rested_at <= now + beat.longest
            continue
        beat.looked(found=found)
        in_vain = 0 if found else in_vain + 1
        assert in_vain <= 7 + now


@pytest.mark.parametrize(
    ("interval", "awaited", "expected"),
    [(1, 0, 0.05), (1, 0.2, 0.2), (1, 0.9, 0.9), (1, 1.0, RARE_SECONDS), (60, 5, 60), (60, 0.1, 0.1)],
)
def test_the_first_looks_without_an_announcement_come_soon(
    interval: float, awaited: float, expected: float
) -> None:
    assert patience(interval, awaited) == expected


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ('["default", "mails", true, null]', Announcement("default", "mails", True, None)),
        ('["default", "mails", false, 1.5]', Announcement("default", "mails", False, 1.5)),
        ('["default", "mails", true, "soon"]', None),
        ('["default", "mails", true, true]', None),
        ('["default", 1, true, null]', None),
        ('{"a": 1, "b": 2, "c": 3, "d": 4}', None),
        ("[]", None),
        ("5", None),
        ("", None),
        ("[" * 100_000, None),
    ],
)
def test_only_what_the_trigger_sends_is_understood(payload: str, expected: Announcement | None) -> None:
    assert read_announcement(payload) == expected


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Wanted("default"), True),
        (Wanted("other"), False),
        (Wanted("default", ("mails",)), True),
        (Wanted("default", ("reports",)), False),
        (Wanted("default", (), ("mails",)), False),
        (Wanted("default", (), ("reports",)), True),
    ],
)
def test_a_worker_answers_to_its_own_tasks(wanted: Wanted, expected: bool) -> None:
    assert Announcement("default", "mails", ready=True, due=None).is_for(wanted) is expected


class Ear:
    """What listens, and hears nothing."""

    def __init__(self) -> None:
        self.poked = 0

    def poke(self) -> None:
        self.poked += 1

    def again(self) -> None:
        pass

    def close(self) -> None:
        pass


def listening(interval: float = 3600.0) -> tuple[Wakes, Ear]:
    wakes, ear = Wakes(Wanted("default"), interval, enabled=True), Ear()
    wakes.listen(lambda _: ear)
    wakes.knows_due = True
    wakes.listens(proven=True)
    wakes.awaits(time.monotonic() - 60)
    return wakes, ear


def test_without_notifications_slots_wait_for_the_interval() -> None:
    wakes = Wakes(Wanted("default"), 0.25, enabled=True)
    assert [wakes.waits(Waiter(wakes)) for _ in range(2)] == [0.25, 0.25]


def test_one_idle_slot_keeps_looking_for_all() -> None:
    wakes, ear = listening(1.0)
    first, second = Waiter(wakes), Waiter(wakes)
    assert (wakes.waits(first), wakes.waits(second)) == (RARE_SECONDS, OTHERS_SECONDS)
    assert ear.poked == 1
    wakes.leaves(first)
    assert wakes.waits(first) == RARE_SECONDS


def test_an_announcement_wakes_one_slot_and_each_that_finds_a_task_the_next() -> None:
    wakes, _ = listening()
    first, second, third = (Waiter(wakes) for _ in range(3))
    for waiter in (first, second, third):
        wakes.waits(waiter)
    wakes.announced(0.0)
    assert (first.cause, second.cause, third.cause) == (Cause.TIME, Cause.TIME, Cause.ANNOUNCED)
    wakes.looked(Cause.ANNOUNCED, 0.0)
    assert (first.cause, second.cause) == (Cause.TIME, Cause.OTHER)
    wakes.looked(Cause.OTHER, None)
    assert first.cause is Cause.TIME


def test_what_is_announced_while_all_slots_are_busy_is_looked_for() -> None:
    wakes, _ = listening()
    waiter = Waiter(wakes)
    wakes.looks()
    wakes.announced(0.0)
    assert wakes.waits(waiter) == 0
    wakes.looks()
    assert wakes.waits(waiter) > 0


def test_a_task_that_was_found_late_and_not_announced_makes_it_poll() -> None:
    wakes, _ = listening(0.5)
    wakes.looked(Cause.TIME, 0.9)
    wakes.looked(Cause.ANNOUNCED, 5.0)
    wakes.looked(None, 5.0)
    assert wakes.waits(Waiter(wakes)) == RARE_SECONDS
    wakes.looked(Cause.TIME, 1.1)
    assert wakes.waits(Waiter(wakes)) == 0.5


def test_slots_do_not_rely_on_a_connection_that_is_lost() -> None:
    wakes, _ = listening()
    waiter, stop = Waiter(wakes), Stop()
    waiting = threading.Thread(target=waiter.wait, args=(stop,))
    waiting.start()
    wakes.listens(proven=False)
    # Whether it had begun to wait or not.
    waiting.join(60)
    assert not waiting.is_alive()
    assert waiter.cause is Cause.OTHER
    wakes.looks()
    assert wakes.waits(waiter) == 3600


def test_a_slot_that_ends_leaves_no_other_waiting_for_it() -> None:
    wakes, _ = listening()
    first, second = Waiter(wakes), Waiter(wakes)
    wakes.waits(first)
    wakes.waits(second)
    wakes.leaves(first)
    first.close()
    assert second.cause is Cause.OTHER


def test_a_slot_wakes_for_the_next_deferred_task_and_the_others_poll() -> None:
    wakes = Wakes(Wanted("default"), 1.0, enabled=True)
    now = time.monotonic()
    assert not wakes.asks_for_due(now, listener=False)
    wakes.knows_due = True
    assert wakes.asks_for_due(now, listener=False)
    assert not wakes.asks_for_due(now, listener=True)
    wakes.note_due(now, 0.5)
    assert not wakes.asks_for_due(now + 1, listener=False)
    first, second = Waiter(wakes), Waiter(wakes)
    assert wakes.waits(first) == pytest.approx(0.5, abs=0.4)
    assert wakes.waits(second) == 1.0
    assert (first.cause, second.cause) == (Cause.ANNOUNCED, Cause.TIME)
    # What is due next is asked when that task has been looked for.
    assert wakes.asks_for_due(time.monotonic(), listener=False)


def test_a_task_that_is_due_later_than_the_next_poll_changes_nothing() -> None:
    wakes = Wakes(Wanted("default"), 1.0, enabled=True)
    wakes.knows_due = True
    wakes.note_due(time.monotonic(), 100.0)
    assert wakes.waits(Waiter(wakes)) == 1.0


def test_without_the_index_deferred_tasks_are_polled_for() -> None:
    wakes, _ = listening(1.0)
    wakes.knows_due = False
    assert wakes.waits(Waiter(wakes)) == 1.0


def test_the_listener_keeps_the_earliest_time() -> None:
    wakes, _ = listening()
    now = time.monotonic()
    wakes.note_due(now, 8.0)
    wakes.due_soon(now, 3.0)
    wakes.due_soon(now, 5.0)
    assert wakes.due_at() == pytest.approx(now + 3.0)
    assert wakes.ask_at() == pytest.approx(now + 5.0)
    waiter = Waiter(wakes)
    wakes.waits(waiter)
    wakes.is_due(now + 3.0)
    assert waiter.cause is Cause.ANNOUNCED
    assert wakes.due_at() is None
    assert wakes.asks_for_due(now + 3.0, listener=True)
