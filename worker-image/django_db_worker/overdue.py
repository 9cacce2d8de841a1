"""Which tasks have run for longer than they may, and what is waited for before their process is killed."""

import uuid
from collections.abc import Mapping, Sequence
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


def update(known: Mapping[int, Overdue], slots: Sequence[SlotStatus], limit: float) -> dict[int, Overdue]:
    """Return which tasks of a process are overdue, by thread: those that still are, and new ones.

    A task that has ended after all, in time for its own result, is no longer among them.
    """
    late = {
        thread: slot.task
        for thread, slot in enumerate(slots)
        if slot.state is State.RUNNING and slot.seconds_in_state > limit
    }
    return {
        thread: known[thread] if thread in known and known[thread].task == task else Overdue(task)
        for thread, task in late.items()
    }


def seconds_left(known: Mapping[int, Overdue], slots: Sequence[SlotStatus], limit: float) -> list[float]:
    """Return for each running task that is not known to be overdue in how many seconds it will be."""
    return [
        limit - slot.seconds_in_state
        for thread, slot in enumerate(slots)
        if slot.state is State.RUNNING and thread not in known
    ]


def may_finish(slot: SlotStatus, is_stuck: bool, leaving_seconds: float | None) -> bool:  # noqa: FBT001
    """Whether to wait for a slot whose process is to be killed for a task of another slot.

    ``leaving_seconds`` is how long ago the process was asked to leave; None if it was not.
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
