"""When a slot counts as stuck."""

from __future__ import annotations

import pytest
from django_db_worker.status_board import State, StatusBoard
from django_db_worker.stuck import StuckLimits

FAR = 1000.0


@pytest.mark.parametrize(
    ("state", "limits", "is_stuck"),
    [
        (State.CLAIMING, StuckLimits(-1, FAR), True),
        (State.CLAIMING, StuckLimits(FAR, 0), False),
        (State.FINISHING, StuckLimits(-1, 0), True),
        # How long a task may run is decided by --task-timeout.
        (State.RUNNING, StuckLimits(-1, 0), False),
        (State.ENDED, StuckLimits(-1, 0), False),
        # An idle slot waits for --interval, and the limit is added to that.
        (State.IDLE, StuckLimits(-1, FAR), False),
        (State.IDLE, StuckLimits(-1, 0), True),
        # The kernel needs minutes to give up connecting.
        (State.DISCONNECTED, StuckLimits(-1, 0), False),
    ],
)
def test_when_a_slot_is_stuck(state: State, limits: StuckLimits, is_stuck: bool) -> None:
    slot = StatusBoard(1, 1).slot(0, 0)
    slot.enter(state)
    assert limits.exceeded_by(slot) is is_stuck
