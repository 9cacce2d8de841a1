"""What is waited for before a process is killed for a task that runs too long."""

from __future__ import annotations

import uuid

import pytest
from django_db_worker.overdue import may_finish
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
