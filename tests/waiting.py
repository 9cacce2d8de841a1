"""Waiting for a condition, with a deadline that is only reached if the condition never becomes true."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

# Even on a busy machine.
PATIENCE_S = 180.0


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
