"""Growing delays between attempts that keep failing."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Backoff:
    """Delays that double with every failure, from ``floor`` seconds up to ``ceiling``."""

    def __init__(self, floor: float, ceiling: float, jitter: Callable[[], float] = lambda: 1.0) -> None:
        """Start without a failure.

        Args:
            floor: the delay after the first failure.
            ceiling: no delay is longer, before ``jitter``.
            jitter: a factor for each delay, so that callers that failed together do not retry together.
        """
        self._floor = floor
        self._ceiling = ceiling
        self._jitter = jitter
        self._delay = 0.0

    def next(self) -> float:
        """Record a failure, and return the seconds until the next attempt."""
        self._delay = min(self._ceiling, self._delay * 2 or self._floor)
        return self._delay * self._jitter()

    def reset(self) -> None:
        """Record a success: the next failure counts as the first."""
        self._delay = 0.0
