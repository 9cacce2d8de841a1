"""Spreads out restorations, for the case that someone else changes the same object again and again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from django_task_operator.backoff import Backoff
from django_task_operator.due import Due

if TYPE_CHECKING:
    from collections.abc import Callable

# The first change is reverted at once, as a person expects. Whoever changes the object again each time is a
# program, and each round may replace all pods: so the delay doubles between these.
DELAY_SECONDS = (1.0, 60.0)
# From the third change in a row on, it is said that there is such a program.
INSISTENT_SECONDS = 4.0
# If the last delay was over for so long without another change, the next one counts as the first.
CALM_SECONDS = 120.0


@dataclass(slots=True)
class _Pace:
    backoff: Backoff = field(default_factory=lambda: Backoff(*DELAY_SECONDS))
    not_before: float = float("-inf")


class Restorations:
    """When each of one worker's objects of a kind may be restored, by the object's name."""

    def __init__(self, kind: str, clock: Callable[[], float]) -> None:
        """Count seconds by ``clock``; ``kind`` is the kind in a manifest."""
        self._kind = kind
        self._clock = clock
        self._paces: dict[str, _Pace] = {}
        self._postponed: set[str] = set()

    def may(self, name: str) -> bool:
        """Whether the object may be restored now; otherwise ``due`` says when."""
        pace = self._paces.get(name)
        if pace is None or self._clock() >= pace.not_before:
            self._postponed.discard(name)
            return True
        self._postponed.add(name)
        return False

    def count(self, name: str) -> float:
        """Note that the object is restored; return the seconds until it may be the next time."""
        pace, now = self._paces.setdefault(name, _Pace()), self._clock()
        if now >= pace.not_before + CALM_SECONDS:
            pace.backoff.reset()
        delay = pace.backoff.next()
        pace.not_before = now + delay
        return delay

    @property
    def due(self) -> Due | None:
        """When the first of the objects whose restoration is postponed may be restored."""
        waits = [self._paces[name].not_before - self._clock() for name in self._postponed]
        soonest = min((wait for wait in waits if wait > 0), default=None)
        return None if soonest is None else Due(soonest, f"the {self._kind} has been changed again and again")
