"""One process of the worker, as its supervisor sees it."""

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field

from .outcome import LostTask
from .stacks import Stacks
from .status_board import SlotStatus


@dataclass
class Child:
    """The worker's nth process: the one that runs, or when the next one is due.

    Times are those of ``time.monotonic()``.
    """

    number: int  # from 0; people read `number + 1`
    slots: Sequence[SlotStatus]
    stacks: Stacks | None = None  # None without --task-timeout
    pid: int | None = None  # None: no process runs
    started: float = 0.0
    due: float | None = 0.0  # when to start a process; None: never again
    quick_failures: int = 0  # in a row
    restarts: int = 0  # after a failure, or because it was killed
    stuck_since: float | None = None  # found stuck: it will be replaced
    leaving_since: float | None = None  # asked to leave: it will be replaced, whatever its exit code
    too_large_since: float | None = None  # uses so much memory that it will be killed
    killed: bool = False
    lost_tasks: dict[int, LostTask] = field(default_factory=dict)  # by thread: for the next process to settle

    def has_started(self, pid: int, now: float) -> None:
        """Record that a new process runs."""
        self.pid, self.started, self.due = pid, now, None
        self.stuck_since = self.leaving_since = self.too_large_since = None
        self.killed = False

    def send(self, signum: signal.Signals) -> None:
        """Send the process a signal, if there is one."""
        if self.pid is not None:
            os.kill(self.pid, signum)

    def ask_to_stop(self) -> None:
        """Have the process claim no more tasks; the running ones are finished."""
        if self.pid is not None:
            # A task may keep the signal from its process, which reads this when the task has ended.
            self.slots[0].stopping = True
            self.send(signal.SIGTERM)

    def ask_to_leave(self, now: float) -> None:
        """Have the process end after its running tasks, to be replaced."""
        if self.leaving_since is None:
            self.leaving_since = now
            self.ask_to_stop()

    def kill(self) -> None:
        """End the process at once, to be replaced."""
        self.killed = True
        self.restarts += 1
        self.send(signal.SIGKILL)
