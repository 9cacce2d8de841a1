"""When a worker's next turn is due even if no change is reported, and why."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Due:
    """The next turn is due in ``seconds``; ``why`` is for the log."""

    seconds: float
    why: str
