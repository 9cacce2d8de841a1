"""When the next deferred task is due, on PostgreSQL: so that it starts on time without more polls."""

from datetime import datetime, timedelta

from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils import timezone

from .indexes import SAMPLES, find_indexes, names_of
from .next_row import Names, Ranges, Wanted, excluding, queue_names

# How often to ask, and how far ahead at least: what is due later is found by the next question.
EVERY_SECONDS = 5.0
AHEAD_SECONDS = 10.0


class NextDue:
    """Asks for the next run_after: one short range of the samples' index for each queue.

    Without that index the question would read all READY rows of a queue, so it is not asked.
    """

    def __init__(self, connection: BaseDatabaseWrapper, wanted: Wanted) -> None:
        """See whether the index is there. Errors of the database pass through."""
        self._connection = connection
        self.is_known = connection.vendor == "postgresql" and bool(
            names_of(find_indexes(connection), SAMPLES, connection.vendor)
        )
        self._names = names = Names(connection)
        ranges = Ranges(names, wanted.backend)
        queues, self._queues = queue_names(ranges, wanted)
        run_after = ranges.run_after
        self._sql = (
            f"WITH RECURSIVE {queues} "  # noqa: S608
            f"SELECT min((SELECT {run_after} {ranges.ready} AND {ranges.queue} = queue.name "
            f"AND {run_after} > %s AND {run_after} <= %s ORDER BY {run_after} LIMIT 1)) "
            f"FROM queue WHERE queue.name IS NOT NULL{excluding(wanted)}"
        )
        self._wanted = wanted

    def seconds(self, interval: float) -> float | None:
        """Return in how many seconds the next task is due; None if not soon, or if it is not known.

        Soon is at least until after ``interval``, when the caller asks again. Errors of the database pass
        through.
        """
        if not self.is_known:
            return None
        now = timezone.now()
        times = (now, now + timedelta(seconds=max(AHEAD_SECONDS, interval + EVERY_SECONDS)))
        with self._connection.cursor() as cursor:
            bounds = [self._names.value("run_after", at) for at in times]
            values = [*self._queues, self._wanted.backend, *bounds, *self._wanted.excluded]
            cursor.execute(self._sql, values)
            found: datetime | None = cursor.fetchone()[0]
        if found is None:
            return None
        # Both are as Django has times: without USE_TZ, neither has a zone.
        return max(0.0, (found - timezone.now()).total_seconds())
