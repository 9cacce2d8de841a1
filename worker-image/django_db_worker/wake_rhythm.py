"""When a process answers to the announcements of new tasks: pure.

All idle processes hear each announcement, and one of them gets the task. So that a large fleet does not ask
more often than it would poll, a process that has asked in vain rests, each time for longer, up to the
interval at which it would poll. What is announced meanwhile is not lost: it looks when it has rested. Of many
processes one is always rested, and a process that finds tasks hardly rests at all.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

FIRST_REST_SECONDS = 0.02


@dataclass
class Rhythm:
    """The rhythm of one process; times are those of ``time.monotonic()``.

    Args:
        longest: the longest rest, in seconds.
        vary: returns a factor of about 1, so that processes do not rest at the same times.
        missed: whether something was announced during the rest.
    """

    longest: float
    vary: Callable[[], float] = field(default=lambda: random.uniform(0.5, 1.5))  # noqa: S311
    missed: bool = False
    _rest: float = FIRST_REST_SECONDS
    _until: float = 0.0

    def is_resting(self, now: float) -> bool:
        """Whether a look at the table has to wait."""
        return now < self._until

    @property
    def rested_at(self) -> float:
        """When the rest ends."""
        return self._until

    def announced(self, now: float) -> bool:
        """Note an announcement; return whether to look at once."""
        if self.is_resting(now):
            self.missed = True
            return False
        self.look(now)
        return True

    def look(self, now: float) -> None:
        """Note a look, after which the process rests."""
        self.missed = False
        self._until = now + min(self._rest, self.longest) * self.vary()

    def looked(self, *, found: bool) -> None:
        """Note what the look has found: the rests get longer or short again."""
        self._rest = (
            FIRST_REST_SECONDS if found else min(self._rest * 2, max(self.longest, FIRST_REST_SECONDS))
        )


def patience(interval: float, awaited_seconds: float) -> float:
    """Return for how long to wait for announcements before a look without one, in seconds.

    Just after the process has said that it waits, a task may still be committed whose enqueuer did not know
    that. So it looks a few times soon, and then rarely.
    """
    if awaited_seconds < SETTLED_SECONDS:
        return max(SOONEST_SECONDS, awaited_seconds)
    return max(interval, RARE_SECONDS)


# A commit takes a few milliseconds, rarely longer than the transaction of a web request.
SOONEST_SECONDS = 0.05
SETTLED_SECONDS = 1.0
RARE_SECONDS = 5.0
