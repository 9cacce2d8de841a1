"""Wake-ups: how a worker's loop learns that it should take a turn soon."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from django_task_operator.spec import Key


class WakeUps:
    """Connects the observers of changes with the loops of the workers concerned."""

    def __init__(self) -> None:
        """Start without workers."""
        self._loops: dict[Key, Callable[[], None]] = {}

    def listen(self, key: Key, wake: Callable[[], None]) -> None:
        """Call ``wake``, and nothing else, when that worker should take a turn."""
        self._loops[key] = wake

    def leave(self, key: Key) -> None:
        """Stop waking that worker."""
        self._loops.pop(key, None)

    def wake(self, key: Key) -> None:
        """Have a worker take a turn soon, if it is registered."""
        if wake := self._loops.get(key):
            wake()

    def wake_all(self) -> None:
        """Have every worker take a turn soon."""
        for wake in self._loops.values():
            wake()
