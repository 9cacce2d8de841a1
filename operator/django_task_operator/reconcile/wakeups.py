"""Who is told that a worker should take a turn soon."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from django_task_operator.spec import Key


class WakeUps:
    """Connects whoever sees that something changed with the loops of the workers that it concerns."""

    def __init__(self) -> None:
        """Know no worker."""
        self._loops: dict[Key, Callable[[], None]] = {}

    def listen(self, key: Key, wake: Callable[[], None]) -> None:
        """Call ``wake`` when that worker should take a turn, and nobody else for it."""
        self._loops[key] = wake

    def leave(self, key: Key) -> None:
        """Wake that worker no more."""
        self._loops.pop(key, None)

    def wake(self, key: Key) -> None:
        """Let a worker take a turn soon, if it is one of ours."""
        if wake := self._loops.get(key):
            wake()

    def wake_all(self) -> None:
        """Let every worker take a turn soon."""
        for wake in self._loops.values():
            wake()
