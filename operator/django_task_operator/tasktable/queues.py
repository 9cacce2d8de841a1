"""Which queues and which index a table has: what a statement depends on, and which queues are unserved."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING, Any

from django.db.models import Case, Q, Value, When

from django_task_operator.tasktable.engines import engine_of_connection
from django_task_operator.tasktable.statement import AT_ONCE, TIME_HAS_COME, Layout, compiled
from django_task_operator.tasktable.values import UnservedQueue

from django_tasks_db.models import DBTaskResult  # isort: skip

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from django.db.backends.base.base import BaseDatabaseWrapper

    from django_task_operator.tasktable.statement import Rows
    from django_task_operator.tasktable.values import Selection

INDEX = ("status", "backend_name", "queue_name", "run_after", "enqueued_at")
# With more queues than this, a worker of every queue counts its tasks without naming the queues.
_MOST_QUEUES = 100


def layout(connection: BaseDatabaseWrapper, selections: Iterable[Selection], known: Layout | None) -> Layout:
    """Return the layout for a statement for ``selections``.

    Args:
        connection: a connection to the table's database.
        selections: for those of every queue, the queues are looked up.
        known: the previous layout; its queues are kept even if they are empty now, so that a queue that
            fills and empties is looked up only once.
    """
    indexed = (known is not None and known.indexed) or is_indexed(connection)
    every = {selection.backend for selection in selections if selection.is_every_queue}
    queues: dict[str, tuple[str, ...] | None] = {}
    for backend in sorted(every) if indexed else ():
        ready = DBTaskResult.objects.filter(status="READY", backend_name=backend)
        found = {queue for queue, _ in itertools.islice(_walk(connection, ready), _MOST_QUEUES + 1)}
        both = found | set((known and known.queues.get(backend)) or ())
        if len(found) > _MOST_QUEUES:
            queues[backend] = None
        else:
            queues[backend] = _in_order(connection, both if len(both) <= _MOST_QUEUES else found)
    return Layout(indexed, queues)


def is_indexed(connection: BaseDatabaseWrapper) -> bool:
    """Whether the table has the index of ``docs/database.md``, under any name, ready for use."""
    table = DBTaskResult._meta.db_table  # noqa: SLF001  documented API
    unusable = engine_of_connection(connection).unusable_indexes(connection, table)
    with connection.cursor() as cursor:
        found = connection.introspection.get_constraints(cursor, table)
    return any(
        name not in unusable and constraint["index"] and tuple(constraint["columns"][: len(INDEX)]) == INDEX
        for name, constraint in found.items()
    )


def unserved_queues(
    connection: BaseDatabaseWrapper, served: Collection[Selection], *, indexed: bool, seconds: float
) -> frozenset[UnservedQueue]:
    """Return queues with due rows, of the backends of ``served``, that none of ``served`` takes.

    With the index it costs as many short statements as there are queues (0.2 ms each), and stops
    after ``seconds``; without it one scan of the READY rows.
    """
    until = time.monotonic() + seconds
    found = set()
    for backend in sorted({selection.backend for selection in served}):
        here = [selection for selection in served if selection.backend == backend]
        if any(selection.is_every_queue and not selection.exclude_queues for selection in here):
            continue
        ready = DBTaskResult.objects.filter(status="READY", backend_name=backend)
        taken = _taken(here)
        if not indexed:
            rows = (
                ready.filter(~taken, AT_ONCE | TIME_HAS_COME).order_by().values_list("queue_name").distinct()
            )
            found |= {UnservedQueue(backend, queue) for (queue,) in _rows(connection, rows)}
            continue
        for queue, is_taken in _walk(connection, ready, Case(When(taken, then=Value(1)), default=Value(0))):
            if not is_taken and _is_due(connection, ready.filter(queue_name=queue)):
                found.add(UnservedQueue(backend, queue))
            if time.monotonic() > until:
                break
    return frozenset(found)


def _walk(
    connection: BaseDatabaseWrapper,
    rows: Rows,
    remark: Any = Value(0),  # noqa: B008  immutable
) -> Iterator[tuple[str, int]]:
    """Return each queue of ``rows`` once, from one name to the next greater one: a manual skip scan."""
    step = rows.order_by("queue_name").values_list("queue_name", remark)
    place = _rows(connection, step[:1])
    while place:
        queue, mark = place[0]
        yield queue, mark
        place = _rows(connection, step.filter(queue_name__gt=queue)[:1])


def _in_order(connection: BaseDatabaseWrapper, names: Collection[str]) -> tuple[str, ...]:
    """Return ``names`` in the order of the column's collation, which Python does not know."""
    if len(names) <= 1:
        return tuple(names)
    quote = connection.ops.quote_name
    column, table = quote("queue_name"), quote(DBTaskResult._meta.db_table)  # noqa: SLF001
    literals = " UNION ALL SELECT %s" * len(names)
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {column} FROM {table} WHERE 1 = 0{literals} ORDER BY 1",  # noqa: S608
            list(names),
        )
        return tuple(name for (name,) in cursor.fetchall())


def _taken(selections: list[Selection]) -> Q:
    # The database compares, for the reason that statement.py gives.
    taken = Q()
    for selection in selections:
        takes = Q() if selection.is_every_queue else Q(queue_name__in=sorted(set(selection.queues)))
        if selection.exclude_queues:
            takes &= ~Q(queue_name__in=sorted(set(selection.exclude_queues)))
        taken |= takes
    return taken


def _is_due(connection: BaseDatabaseWrapper, rows: Rows) -> bool:
    some = rows.order_by().values_list("status")
    return any(_rows(connection, some.filter(condition)[:1]) for condition in (AT_ONCE, TIME_HAS_COME))


def _rows(connection: BaseDatabaseWrapper, rows: Rows) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(*compiled(connection, rows))
        return list(cursor.fetchall())
