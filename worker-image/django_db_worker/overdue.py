"""Tasks that have run for longer than they may, and what is waited for before their process is killed."""

import uuid
from dataclasses import dataclass

from .status_board import SlotStatus, State

# How long a process that was asked to leave, or to end at once, may take before it is killed.
KILL_AFTER_SECONDS = 5.0


@dataclass
class Overdue:
    """A task that has run for longer than it may."""

    # None for a receiver of task_finished, whose task has its result.
    task: uuid.UUID | None
    stack: str | None = None  # None: not known yet


def may_finish(slot: SlotStatus, is_stuck: bool, leaving_seconds: float | None) -> bool:  # noqa: FBT001
    """Whether to wait for a slot whose process is to be killed for a task of another slot.

    `leaving_seconds` is how long ago the process was asked to leave; None if it was not.
    """
    if slot.state is State.RUNNING:
        # For as long as it may run itself.
        return True
    if slot.state in {State.FINISHING, State.DISCONNECTED} and slot.task is not None:
        # A result is being stored, maybe once the database is back. A slot without a task only connects.
        return not is_stuck
    if slot.state is State.ENDED or leaving_seconds is None:
        return False
    return leaving_seconds < KILL_AFTER_SECONDS
