"""The RUNNING rows one by one, and how one is settled that no process runs any more.

With the index of ``docs/database.md`` a listing reads the RUNNING rows alone (1.6 ms for 1,000 beside
5,000,000 finished ones, PostgreSQL 15); without it, the whole table (1 s there). An update finds its row
by the primary key.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.db.models import sql
from django.db.models.functions import Left

from django_task_operator.harmless import LONGEST_NAME
from django_task_operator.tasktable.engines import engine_of_connection
from django_task_operator.tasktable.statement import DatabaseNow, compiled
from django_task_operator.tasktable.values import Failed, Listing, RunningRow

from django_tasks_db.models import DBTaskResult  # isort: skip

if TYPE_CHECKING:
    from datetime import datetime

    from django.db.backends.base.base import BaseDatabaseWrapper

    from django_task_operator.tasktable.engines import Engine
    from django_task_operator.tasktable.values import Settlement

# How many rows are listed at most. More at a time would need more pods than a cluster can run.
MOST_ROWS = 10_000

# The smallest difference between time zones, and how far a node's clock may be from the database's.
LEAST_OFFSET = timedelta(minutes=15)
MOST_SKEW = timedelta(minutes=2)

# The column of the paths is a text of any length, and there may be thousands of rows.
_FIELDS = ("id", Left("task_path", LONGEST_NAME + 1), "queue_name", "worker_ids", "started_at")


def running_rows(connection: BaseDatabaseWrapper, most: int) -> Listing:
    """List the RUNNING rows of every backend and queue.

    Pods may still run tasks of queues that their worker's spec no longer contains, so none is left out.
    """
    rows = DBTaskResult.objects.filter(status="RUNNING").order_by().values_list(*_FIELDS)[: most + 1]
    text, params = compiled(connection, rows)
    engine = engine_of_connection(connection)
    started = time.monotonic()
    with connection.cursor() as cursor:
        cursor.execute(text, params)
        found = [_row(engine, *values) for values in cursor.fetchall()]
        # Read afterwards, so that no row was started after this time.
        cursor.execute(f"SELECT {engine.clock}")
        (now,) = cursor.fetchone()
    seconds = time.monotonic() - started
    return Listing(engine.instant(now), seconds, tuple(found[:most]), complete=len(found) <= most)


class StartTimes:
    """Knows for which RUNNING rows the time of the claim is certain, if times are stored without a time zone.

    A zone behind UTC would be harmful: a claim made now would look hours old, from before its container was
    restarted. Zones are at least a quarter of an hour apart, so a claim that looks younger than that when it
    is first seen is not in such a zone. For a claim that is first seen later, the time is never certain.
    """

    def __init__(self) -> None:
        """Start without any rows."""
        self._certain: dict[tuple[Any, datetime], bool] = {}

    def of(self, listing: Listing) -> Listing:
        """Return the same rows, with ``started_at`` if it is certain and ``reading`` if it is not."""
        seen: dict[tuple[Any, datetime], bool] = {}
        rows: list[RunningRow] = []
        for row in listing.rows:
            if row.since is None:
                rows.append(row)
                continue
            claim = (row.key, row.since)
            fresh = -MOST_SKEW <= listing.at - row.since <= LEAST_OFFSET - MOST_SKEW
            seen[claim] = self._certain.get(claim, fresh)
            rows.append(row if seen[claim] else replace(row, started_at=None, reading=row.since))
        self._certain = seen
        return replace(listing, rows=tuple(rows))


def settle_row(connection: BaseDatabaseWrapper, row: RunningRow, settlement: Settlement) -> bool:
    """Change a row from RUNNING to its settlement, unless it has changed by itself.

    This is one statement, so that a row whose task has finished meanwhile, or that was claimed again, stays
    unchanged. Returns whether the row was changed.
    """
    if row.since is None:
        # This claim of the row could not be distinguished from another one.
        return False
    # The types of a query that does not run at once are not part of Django's stubs.
    rows: Any = DBTaskResult.objects.filter(status="RUNNING", started_at=row.since)
    update = rows.query.chain(sql.UpdateQuery)
    update.add_update_values(_changes(row, settlement))
    text, params = update.get_compiler(connection=connection).as_sql()
    # As the database returned it: MariaDB's column is a uuid or a text, depending on what created the table.
    text = f"{text} AND {connection.ops.quote_name('id')} = %s"
    with connection.cursor() as cursor:
        cursor.execute(text, (*params, row.key))
        return bool(cursor.rowcount)


def _changes(row: RunningRow, settlement: Settlement) -> dict[str, object]:
    if isinstance(settlement, Failed):
        return {
            "status": "FAILED",
            "finished_at": DatabaseNow(),
            "exception_class_path": settlement.exception_class_path,
            "traceback": settlement.traceback,
        }
    ready: dict[str, object] = {"status": "READY", "started_at": None}
    # These were listed with the claim that the update looks for, and only another claim changes them.
    return ready if settlement.counted else {**ready, "worker_ids": list(row.earlier)}


def _row(
    engine: Engine,
    key: Any,
    task_path: str,
    queue: str,
    worker_ids: object,
    started_at: datetime | None,
) -> RunningRow:
    # Django would decode JSON, but the drivers do not. It is whatever someone has written there.
    decoded = json.loads(worker_ids) if isinstance(worker_ids, str) else worker_ids
    ids = [each for each in decoded if isinstance(each, str)] if isinstance(decoded, list) else []
    since = None if started_at is None else engine.instant(started_at)
    return RunningRow(key, task_path, queue, ids[-1] if ids else "", len(ids), since, earlier=tuple(ids[:-1]))
