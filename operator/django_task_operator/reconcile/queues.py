"""Which worker serves which queues: two workers on one queue would both scale for the same tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from django_task_operator.spec import Key
    from django_task_operator.tasktable import DatabaseURL, Selection

EVERY_QUEUE = "*"


class ServedQueues:
    """The queues that each worker serves, by database."""

    def __init__(self, wake: Callable[[Key], None]) -> None:
        """Start empty; ``wake`` is called for every worker for which something may have changed."""
        self._wake = wake
        self._served: dict[Key, tuple[DatabaseURL, Selection]] = {}

    def set(self, worker: Key, url: DatabaseURL, selection: Selection) -> None:
        """Set what a worker serves from now on."""
        if self._served.get(worker) != (url, selection):
            self.drop(worker)
            self._served[worker] = (url, selection)
            self._wake_neighbours(worker, url)

    def drop(self, worker: Key) -> None:
        """Forget a worker."""
        served = self._served.pop(worker, None)
        if served:
            self._wake_neighbours(worker, served[0])

    def shared(self, worker: Key) -> tuple[str, Key] | None:
        """Return a queue of this worker that another one also serves, and that other worker."""
        url, mine = self._served[worker]
        sharing = (
            (queue, other)
            for other, (other_url, theirs) in self._served.items()
            if other != worker and other_url == url and (queue := overlap(mine, theirs))
        )
        return min(sharing, key=lambda found: str(found[1]), default=None)

    def neighbours(self, worker: Key) -> list[Key]:
        """Return every other worker on the same database."""
        if worker not in self._served:
            return []
        url = self._served[worker][0]
        return [other for other, (theirs, _) in self._served.items() if other != worker and theirs == url]

    def _wake_neighbours(self, worker: Key, url: DatabaseURL) -> None:
        for other, (other_url, _) in self._served.items():
            if other != worker and other_url == url:
                self._wake(other)


def overlap(one: Selection, other: Selection) -> str | None:
    """Return a queue that both serve ("*" if both serve every queue), or None."""
    if one.backend != other.backend:
        return None
    if one.is_every_queue and other.is_every_queue:
        return EVERY_QUEUE
    if one.is_every_queue:
        one, other = other, one
    if other.is_every_queue:
        return next((queue for queue in one.queues if queue not in other.exclude_queues), None)
    return next((queue for queue in one.queues if queue in other.queues), None)
