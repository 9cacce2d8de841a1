"""When a worker's next turn is due although nothing is told to have changed, and why."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Due:
    """The next turn is due after so many ``seconds``; ``why`` is for the log."""

    seconds: float
    why: str
