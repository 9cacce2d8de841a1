"""How long tasks take, measured without an index of finished rows and at no cost to those who write.

Some of the RUNNING rows are watched: a row that a look lists is found again by the primary key once it has
ended, with the times that its worker wrote. A look costs two short statements.

A task that takes a second is seen by every look if they are a second apart, and one that takes a tenth of it
only by one look in ten, so tasks that are seen take longer than most. But that chance is known, and a task
counts as many times as there are tasks like it for each one that is seen (Horvitz and Thompson's estimator).
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from django_task_operator.tasktable.engines import engine_of_connection
from django_task_operator.tasktable.statement import compiled
from django_task_operator.tasktable.values import Durations

from django_tasks_db.models import DBTaskResult  # isort: skip

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper

    from django_task_operator.tasktable.values import Selection

# How many rows of a selection are watched at a time. The mean of 50 tasks is seldom off by more than a third,
# even if a few of them take much longer than the others, and the next look adds more.
MOST_WATCHED = 50
# As many RUNNING rows are listed as in running.py.
MOST_LISTED = 10_000
# No statement names more rows than this.
ROWS_AT_ONCE = 500
# The time between two looks, unless it is known, and the longest that counts: no look outweighs all others.
LOOK_SECONDS = 1.0
LONGEST_LOOK_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class _Watched:
    """A row that was first seen RUNNING at ``since``, ``apart`` seconds after the look before."""

    selection: Selection
    since: float
    apart: float


class Watch:
    """Watches RUNNING rows of a table, from one look to the next."""

    def __init__(self) -> None:
        """Start without any rows."""
        self._rows: dict[Any, _Watched] = {}
        self._looked_at: float | None = None

    def look(
        self, connection: BaseDatabaseWrapper, selections: Collection[Selection], now: float
    ) -> dict[Selection, Durations]:
        """Return how long the tasks took that have ended since the last look.

        Errors of the database pass through.

        Args:
            connection: a connection to the table's database.
            selections: whose tasks to watch. A row of several counts for the first.
            now: seconds on a monotonic clock.
        """
        apart = LOOK_SECONDS if self._looked_at is None else now - self._looked_at
        running = _running(connection, selections)
        ended = [key for key, row in self._rows.items() if key not in running and row.selection in selections]
        found = {selection: Durations() for selection in selections}
        for key, seconds in _seconds(connection, ended):
            row = self._rows[key]
            found[row.selection] = found[row.selection].plus(seconds, row.apart)
        self._rows = self._watched(running, min(apart, LONGEST_LOOK_SECONDS), now)
        self._looked_at = now
        ages: dict[Selection, list[float]] = defaultdict(list)
        for row in self._rows.values():
            ages[row.selection].append(now - row.since)
        return {
            selection: replace(taken, running_for=sum(ages[selection]) / (len(ages[selection]) or 1))
            for selection, taken in found.items()
        }

    def _watched(self, running: Mapping[Any, Selection], apart: float, now: float) -> dict[Any, _Watched]:
        """Return the rows to watch until the next look: those that are watched already, and others by chance.

        The ids are random, and the smallest are a sample without regard to how long a task has been running.
        """
        by_selection: dict[Selection, list[Any]] = defaultdict(list)
        for key in sorted(running, key=str):
            by_selection[running[key]].append(key)
        chosen = {key for keys in by_selection.values() for key in keys[:MOST_WATCHED]}
        return {
            key: self._rows.get(key, _Watched(selection, now, apart))
            for key, selection in running.items()
            if key in chosen
        }


def _running(connection: BaseDatabaseWrapper, selections: Iterable[Selection]) -> dict[Any, Selection]:
    """Return the keys of the RUNNING rows, as the database returns them, and whose they are."""
    engine = engine_of_connection(connection)
    takes = [(selection, _takes(selection, engine.queue_key)) for selection in selections]
    rows = DBTaskResult.objects.filter(
        status="RUNNING", backend_name__in=sorted({selection.backend for selection, _ in takes})
    )
    fields = rows.order_by().values_list("id", "backend_name", "queue_name")
    text, params = compiled(connection, fields[:MOST_LISTED])
    found: dict[Any, Selection] = {}
    with connection.cursor() as cursor:
        cursor.execute(text, params)
        for key, backend, queue in cursor.fetchall():
            whose = next((selection for selection, taken in takes if taken(backend, queue)), None)
            if whose is not None:
                found[key] = whose
    return found


def _takes(selection: Selection, queue_key: Callable[[str], str]) -> Callable[[str, str], bool]:
    named = {queue_key(queue) for queue in selection.queues}
    excluded = {queue_key(queue) for queue in selection.exclude_queues}

    def takes(backend: str, queue: str) -> bool:
        key = queue_key(queue)
        return (
            backend == selection.backend
            and (selection.is_every_queue or key in named)
            and key not in excluded
        )

    return takes


def _seconds(connection: BaseDatabaseWrapper, keys: Sequence[Any]) -> list[tuple[Any, float]]:
    """Return how long the tasks took, for those of ``keys`` that have ended and still have a row."""
    engine = engine_of_connection(connection)
    rows = DBTaskResult.objects.filter(started_at__isnull=False, finished_at__isnull=False).order_by()
    text, params = compiled(connection, rows.values_list("id", "started_at", "finished_at"))
    found: list[tuple[Any, float]] = []
    for some in itertools.batched(keys, ROWS_AT_ONCE):
        # As the database returned them: MariaDB's column is a uuid or a text, depending on what created it.
        named = f"{connection.ops.quote_name('id')} IN ({', '.join(['%s'] * len(some))})"
        with connection.cursor() as cursor:
            cursor.execute(f"{text} AND {named}", (*params, *some))
            for key, started_at, finished_at in cursor.fetchall():
                took = (engine.instant(finished_at) - engine.instant(started_at)).total_seconds()
                # Without a time zone in the column, a clock that is put back shows.
                if took >= 0:
                    found.append((key, took))
    return found
