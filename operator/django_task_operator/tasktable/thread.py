"""A thread for one database, so that a slow database delays no other."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

type _Job = tuple[Callable[[], Any], asyncio.AbstractEventLoop, asyncio.Future[Any]]


class Lane(Protocol):
    """Where the jobs of one database run, one after the other."""

    async def run[T](self, job: Callable[[], T]) -> T:
        """Run ``job``; return its result, or raise its exception."""

    def end(self) -> None:
        """Accept no more jobs, but finish those already accepted."""


class ThreadLane:
    """A lane in its own thread.

    The thread is a daemon, so a stopping operator does not wait for a silent database.
    """

    def __init__(self, name: str) -> None:
        """Start the thread.

        Args:
            name: shown by debuggers; contains no part of a URL.
        """
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        threading.Thread(target=self._work, name=name, daemon=True).start()

    async def run[T](self, job: Callable[[], T]) -> T:
        """Run ``job`` in the thread; return its result, or raise its exception."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        self._jobs.put((job, loop, answer))
        return await answer

    def end(self) -> None:
        """End the thread after the jobs that it has already accepted."""
        self._jobs.put(None)

    def _work(self) -> None:
        while (todo := self._jobs.get()) is not None:
            job, loop, answer = todo
            error: BaseException | None = None
            result: Any = None
            try:
                result = job()
            except BaseException as raised:  # noqa: BLE001  whoever awaits the answer handles it
                error = raised
            with contextlib.suppress(RuntimeError):
                # The loop may be closed, because the operator stopped without waiting for this result.
                loop.call_soon_threadsafe(_settle, answer, result, error)


def _settle(answer: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if answer.done():
        return
    if error is None:
        answer.set_result(result)
    else:
        answer.set_exception(error)
