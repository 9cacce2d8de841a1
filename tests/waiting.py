"""Waiting for a condition, with a deadline that is only reached if the condition never becomes true."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

# In seconds. Only something that never happens takes this long, even where a pod needs a minute to start
# because other clusters have the processors.
PATIENCE_S = 400.0
# The same as an option of kubectl and helm.
PATIENTLY = f"--timeout={PATIENCE_S:.0f}s"


def eventually[T](
    probe: Callable[[], T | Literal[False]], what: str, *, within_s: float = PATIENCE_S, every_s: float = 0.02
) -> T:
    """Return the first true result of ``probe``."""
    deadline = time.monotonic() + within_s
    while not (seen := probe()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s} s: {what} (last seen: {seen!r})")
        time.sleep(every_s)
    return seen


def in_one_of(attempts: int, within_s: float, attempt: Callable[[], float]) -> None:
    """Expect one attempt to take less time: a busy machine delays some of them, a pause in the code all."""
    took: list[float] = []
    while not took or took[-1] >= within_s:
        assert len(took) < attempts, f"never within {within_s} s: {took}"
        took.append(attempt())
