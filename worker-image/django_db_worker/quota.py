"""--max-tasks: how many tasks a process runs before it is replaced by a new one."""

import os
import threading
from collections.abc import Callable

from .status_board import SlotStatus


class RecycleToken:
    """The permission to be replaced, which one process has at a time: a byte in a pipe that all can read."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        self.put_back()

    def put_back(self) -> None:
        """Make it available to the next process."""
        os.write(self._writer, b"x")

    def take(self, status: SlotStatus) -> bool:
        """Try to get it, without waiting; ``status`` records which process has it, in case that dies."""
        try:
            os.read(self._reader, 1)
        except BlockingIOError:
            return False
        status.recycling = True
        return True


class Quota:
    """The number of tasks that a process may still claim, for all its threads together."""

    def __init__(self, limit: int | None, may_leave: Callable[[], bool] = lambda: True) -> None:
        """At the limit, the process leaves as soon as ``may_leave`` allows it, and works until then."""
        self.taken = 0
        self.used_up = False
        self._limit = limit
        self._may_leave = may_leave
        self._lock = threading.Lock()

    def take(self) -> bool:
        """Count one claim, if one is left."""
        if self._limit is None:
            return True
        with self._lock:
            if self.taken >= self._limit and (self.used_up or self._may_leave()):
                self.used_up = True
                return False
            self.taken += 1
            return True

    def give_back(self) -> None:
        """Do not count the last claim, because it found nothing or was undone."""
        if self._limit is None:
            return
        with self._lock:
            self.taken -= 1
