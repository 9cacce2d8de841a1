"""Ends tasks that run for longer than --task-timeout, with their process.

The process is asked to claim no more tasks and where its threads are, and is killed when nothing else runs
in it. The next process in its place stores that the task has failed.
"""

import logging

from . import overdue
from .child import Child
from .errors import timed_out
from .outcome import LostTask
from .stacks import Stacks
from .status_board import State
from .stuck import StuckLimits

logger = logging.getLogger("django_tasks_db")


class TimeWatch:
    """Watches how long the tasks of one child run."""

    def __init__(self, child: Child, stacks: Stacks, limit: int, stuck_limits: StuckLimits) -> None:
        """``limit`` is --task-timeout, in seconds."""
        self._child = child
        self._stacks = stacks
        self._limit = limit
        self._stuck_limits = stuck_limits
        self._overdue: dict[int, overdue.Overdue] = {}  # by thread

    @property
    def waiting(self) -> bool:
        """Whether a process is about to be killed."""
        return bool(self._overdue)

    def seconds_left(self) -> list[float]:
        """Return in how many seconds each running task will be overdue."""
        if self._child.pid is None:
            return []
        return overdue.seconds_left(self._overdue, self._child.slots, self._limit)

    def watch(self, now: float) -> None:
        """Take the next step; ``now`` is ``time.monotonic()``."""
        child = self._child
        if child.pid is None:
            # It may have ended by itself, even because it was asked for its stacks.
            self._note_losses()
            self._overdue = {}
        if child.pid is None or child.killed:
            return
        known = self._overdue
        self._overdue = overdue.update(known, child.slots, self._limit)
        new = [each.task for thread, each in self._overdue.items() if known.get(thread) is not each]
        for task in new:
            what = "A receiver of task_finished" if task is None else f"Task id={task}"
            logger.error("%s has run for more than %d s and will be ended.", what, self._limit)
        if new:
            child.ask_to_leave(now)
            self._stacks.ask(child.pid)
        elif self._overdue and self._stacks.answered():
            self._read_stacks()
        if self._may_kill(now):
            self._kill()

    def _read_stacks(self) -> None:
        for thread, each in self._overdue.items():
            if each.stack is None:
                each.stack = self._stacks.read(self._child.slots[thread].thread)

    def _may_kill(self, now: float) -> bool:
        if not self._overdue or any(each.stack is None for each in self._overdue.values()):
            return False
        child = self._child
        others = [slot for thread, slot in enumerate(child.slots) if thread not in self._overdue]
        leaving_seconds = None if child.leaving_since is None else now - child.leaving_since
        return not any(
            overdue.may_finish(slot, self._stuck_limits.exceeded_by(slot), leaving_seconds) for slot in others
        )

    def _note_losses(self) -> None:
        """Have the next process store why it was that these tasks have not ended."""
        lost_tasks = self._child.lost_tasks
        for thread, each in self._overdue.items():
            known = lost_tasks.get(thread)
            # What is known already may be another reason, such as its memory.
            if each.task is not None and (known is None or known.task != each.task):
                lost_tasks[thread] = LostTask(each.task, timed_out(self._limit, each.stack or ""))

    def _kill(self) -> None:
        child = self._child
        self._note_losses()
        # Last of all: a task that has just ended is not to be killed while its result is stored.
        if all(child.slots[thread].state is State.RUNNING for thread in self._overdue):
            logger.error("Worker process %d is replaced: a task in it ran for too long.", child.number + 1)
            child.kill()
