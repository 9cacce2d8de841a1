"""Which tasks run for too long, and what is waited for before their process is killed."""

from __future__ import annotations

import uuid

import pytest
from django_db_worker.overdue import Overdue, may_finish, seconds_left, update
from django_db_worker.status_board import State, StatusBoard


@pytest.mark.parametrize(
    ("state", "has_task", "is_stuck", "leaving_seconds", "waits"),
    [
        (State.RUNNING, True, False, 100, True),
        (State.FINISHING, True, False, 100, True),
        (State.DISCONNECTED, True, False, 100, True),
        (State.DISCONNECTED, True, True, 100, False),
        # It connects for the first time, which it never will while another slot lets no thread run.
        (State.DISCONNECTED, False, False, 1, True),
        (State.DISCONNECTED, False, False, 100, False),
        (State.CLAIMING, False, False, 1, True),
        (State.CLAIMING, False, False, 100, False),
        (State.NEW, False, False, 100, False),
        (State.IDLE, False, False, None, False),
        (State.ENDED, False, False, 1, False),
    ],
)
def test_which_neighbours_of_an_overdue_task_are_waited_for(
    state: State, has_task: bool, is_stuck: bool, leaving_seconds: float | None, waits: bool
) -> None:
    slot = StatusBoard(1, 1).slot(0, 0)
    slot.enter(state)
    slot.task = uuid.uuid4() if has_task else None
    assert may_finish(slot, is_stuck, leaving_seconds) is waits


FIRST, SECOND = uuid.uuid4(), uuid.uuid4()
# Every slot has been in its state for longer than the first limit, and for less than the second.
EXCEEDED, FAR = -1.0, 1000.0


@pytest.mark.parametrize(
    ("state", "task", "limit", "overdue"),
    [
        (State.RUNNING, FIRST, EXCEEDED, {1: FIRST}),
        (State.RUNNING, FIRST, FAR, {}),
        # Its result is being stored: it has ended in time.
        (State.FINISHING, FIRST, EXCEEDED, {}),
        (State.IDLE, None, EXCEEDED, {}),
        # A receiver of task_finished.
        (State.RUNNING, None, EXCEEDED, {1: None}),
    ],
)
def test_which_tasks_are_overdue(
    state: State, task: uuid.UUID | None, limit: float, overdue: dict[int, uuid.UUID | None]
) -> None:
    board = StatusBoard(1, 2)
    slot = board.slot(0, 1)
    slot.enter(state)
    slot.task = task
    found = update({}, board.of_process(0), limit)
    assert {thread: each.task for thread, each in found.items()} == overdue


def test_what_is_known_of_an_overdue_task_is_kept_until_the_task_ends() -> None:
    board = StatusBoard(1, 1)
    slot = board.slot(0, 0)
    slot.task = FIRST
    slot.enter(State.RUNNING)
    known = update({}, board.of_process(0), EXCEEDED)
    known[0].stack = "here"
    assert update(known, board.of_process(0), EXCEEDED)[0] is known[0]
    slot.task = SECOND
    assert update(known, board.of_process(0), EXCEEDED) == {0: Overdue(SECOND)}
    slot.enter(State.FINISHING)
    assert update(known, board.of_process(0), EXCEEDED) == {}


def test_when_running_tasks_will_be_overdue() -> None:
    board = StatusBoard(1, 3)
    board.slot(0, 0).enter(State.RUNNING)
    board.slot(0, 1).enter(State.RUNNING)
    board.slot(0, 2).enter(State.CLAIMING)
    (left,) = seconds_left({0: Overdue(None)}, board.of_process(0), FAR)
    assert FAR - 500 < left <= FAR
