"""How a worker process learns that it should stop."""

import os
import select
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .surroundings import Surroundings

# poll() takes a C int of milliseconds.
LONGEST_WAIT = 2**31 // 1000 - 1
PARENT_CHECK_SECONDS = 1.0


class Stop:
    """A request to stop: made by signal handlers, watched by every slot of the process.

    A signal handler runs between any two bytecodes of the main thread, so a lock or an exception could hit
    the middle of a claim. Here it only sets a flag and writes to a pipe. The only exception is ``end_now``,
    which interrupts a task's own code with SystemExit, as upstream does.
    """

    # What is restored after each task; None until the process is ready to run tasks.
    surroundings: Surroundings | None = None

    def __init__(self, *, parent: int | None = None, told: Callable[[], bool] = lambda: False) -> None:
        """``parent`` is the supervisor's process id: the end of that process counts as a request to stop.

        So does ``told()``, for a signal that came while a task had its own handler for it.
        """
        self.requested = False
        self.at_once = False
        self._parent = parent
        self._told = told
        self._in_task = False
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)

    def request(self) -> None:
        """Request that no more tasks are claimed. May be called from a signal handler."""
        if not self.requested:
            self.requested = True
            # The byte is never read: the pipe stays readable for all threads.
            os.write(self._writer, b"x")

    def end_now(self) -> None:
        """Also end the running task. May be called from a signal handler."""
        self.at_once = True
        self.request()
        if self._in_task:
            raise SystemExit(1)

    def asked(self) -> bool:
        """Whether no more tasks may be claimed."""
        if self._told() or (self._parent is not None and os.getppid() != self._parent):
            self.request()
        return self.requested

    def wait(self, seconds: float, also: int | None = None) -> bool:
        """Sleep; return True immediately when asked to stop.

        ``also`` is the descriptor of a pipe that ends the sleep as soon as there is something to read.
        """
        poll = select.poll()
        poll.register(self._reader, select.POLLIN)
        if also is not None:
            poll.register(also, select.POLLIN)
        end = time.monotonic() + min(seconds, LONGEST_WAIT)
        while not self.asked():
            left = end - time.monotonic()
            # Nothing tells that the supervisor has ended.
            slice_seconds = left if self._parent is None else min(left, PARENT_CHECK_SECONDS)
            if poll.poll(max(0.0, slice_seconds) * 1000) or left <= slice_seconds:
                break
        return self.asked()

    @property
    def in_task(self) -> bool:
        """Whether the main thread runs a task's own code."""
        return self._in_task

    @contextmanager
    def task(self) -> Iterator[None]:
        """Let ``end_now`` interrupt the main thread; only around a task's own code.

        What the code has changed in the process is restored at the end.
        """
        surroundings = self.surroundings
        if surroundings is not None:
            surroundings.begin()
        try:
            with self._interruptible():
                yield
        finally:
            if surroundings is not None:
                surroundings.end()

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._in_task = True
        try:
            if self.at_once:
                raise SystemExit(1)
            yield
        finally:
            self._in_task = False

    def close(self) -> None:
        """Close the pipe."""
        os.close(self._reader)
        os.close(self._writer)
