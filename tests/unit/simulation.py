"""An event loop in which hours take no time, for tests of when things happen."""

from __future__ import annotations

import asyncio
import functools
import selectors
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


class _Skipping(selectors.DefaultSelector):
    """Never waits: where a loop would wait, its clock is moved forward."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise RuntimeError("everybody waits for something that nobody will do")
            self.now += max(timeout, 0)
        return ready


class SkippingLoop(asyncio.SelectorEventLoop):
    """An event loop that never sleeps: where it would, its clock skips to the next timer."""

    def __init__(self) -> None:
        self._skipping = _Skipping()
        super().__init__(self._skipping)

    def time(self) -> float:
        return self._skipping.now


def skipping[T](story: Coroutine[Any, Any, T]) -> T:
    """Run ``story`` in such a loop, in which hours take milliseconds; return its result."""
    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        return runner.run(story)


def simulated[**P](test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run an asynchronous test in such a loop."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        skipping(test(*args, **kwargs))

    return run
