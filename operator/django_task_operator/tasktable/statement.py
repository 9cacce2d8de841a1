"""The statement of a poll, which counts the rows of all of a database's selections in one round trip.

Its arms are joined by UNION ALL. With the index of ``docs/database.md`` each arm reads no more rows than it
counts (1,000,000 READY and 5,000,000 finished rows, PostgreSQL 15; more in
``benchmarks/results/sample.md``):

- one for all RUNNING rows, grouped: an index-only range, 0.4 ms for 1,000 rows;
- two for each queue, however many workers share it: rows without a run_after, and rows whose run_after is
  past. Each is one index range, in waiting order, that ends at the limit, 0.1 ms for 100 rows; a single
  condition with OR would be neither in order nor limited;
- for selections of every queue, probes between the names of the known queues, to find an unknown one: an
  empty index range each, 0.02 ms.

Without that index a single grouped arm counts READY and RUNNING rows: one sequential scan, 0.4 s with
5,000,000 rows, however many selections there are.

Only the database compares a row's queue: with MySQL's default collations ``Emails`` and ``emails`` are the
same queue, as in the worker's own query.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from django.db.models import Case, Count, DateTimeField, F, Func, Min, Q, QuerySet, When
from django.db.models.functions import Greatest

from django_task_operator.tasktable import orm  # noqa: F401  Django is set up before its models load
from django_task_operator.tasktable.engines import Engine, engine_of_connection
from django_task_operator.tasktable.values import QueueDemand, Selection, SelectionDemand

from django_tasks_db.models import DBTaskResult  # isort: skip

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.models.sql.compiler import SQLCompiler

type Params = tuple[Any, ...]
type Part = tuple[str, Params]
type Rows = QuerySet[Any, Any]

# Negative numbers mark the rows of a poll that do not belong to a queue's arm.
_GROUP, _CLOCK, _UNKNOWN = -1, -2, -3
# PostgreSQL allows 100 arguments to a function.
_ARGUMENTS = 90


class DatabaseNow(Func):
    """The database's clock, as a value that can be compared with a DateTimeField."""

    output_field = DateTimeField()

    def as_sql(
        self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, *args: Any, **kwargs: Any
    ) -> tuple[str, Any]:
        """Return the SQL of the engine's clock."""
        kwargs["template"] = engine_of_connection(connection).clock
        return super().as_sql(compiler, connection, *args, **kwargs)


# 9999-01-01 is what DatabaseBackend writes for "no run_after" (django-tasks-db 0.13), in the
# project's time zone if it has USE_TZ = False: a day of tolerance covers every zone.
AT_ONCE = Q(run_after__gte=datetime(9998, 12, 31, tzinfo=UTC), run_after__lt=datetime(9999, 1, 2, tzinfo=UTC))
TIME_HAS_COME = Q(run_after__lte=DatabaseNow())
# A row that was enqueued with a run_after in the past is not older than itself.
BECAME_DUE = Case(When(AT_ONCE, then=F("enqueued_at")), default=Greatest("run_after", "enqueued_at"))


@dataclass(frozen=True, slots=True)
class Layout:
    """What a statement depends on in addition to its selections.

    Args:
        indexed: whether the table has the index of ``docs/database.md``.
        queues: by backend, names of the queues with READY rows in the database's own order; they stand
            in for "every queue". None: too many to name.
    """

    indexed: bool
    queues: Mapping[str, tuple[str, ...] | None]


@dataclass(frozen=True, slots=True)
class _Arm:
    """READY rows that are counted together. Without names: every queue except the excluded ones."""

    backend: str
    names: tuple[str, ...]
    exclude: tuple[str, ...]

    @property
    def queue(self) -> str:
        """The name for its rows: names that may be the same queue for the database share the first one."""
        return self.names[0] if self.names else ""


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of a poll.

    Args:
        at: the database's clock.
        demands: what each selection has.
        unknown_queues: whether READY rows wait in a queue that the layout does not name.
    """

    at: datetime
    demands: Mapping[Selection, SelectionDemand]
    unknown_queues: bool


@dataclass(slots=True)
class _Count:
    """The sum of a poll's rows for one queue of one selection."""

    ready: int = 0
    running: int = 0
    since: datetime | None = None

    def add_ready(self, count: int, since: datetime) -> None:
        self.ready += count
        self.since = since if self.since is None else min(self.since, since)


@dataclass(frozen=True, slots=True)
class Statement:
    """The text and parameters of a poll's SQL, and how to read its rows.

    Args:
        sql: the text.
        params: its parameters.
        arms: by selection, the number of each of its arms and the queue's name for its rows.
        wanted: each selection with the number of ready rows that are worth counting.
        engine: the engine of the database.
    """

    sql: str
    params: Params
    arms: Mapping[Selection, Mapping[int, str]]
    wanted: Mapping[Selection, int]
    engine: Engine

    def read(self, rows: Iterable[Sequence[Any]]) -> Answer:
        """Return the result that the rows mean.

        Each row has a number, a count, a time and, for a group, a text: a flag that says whether its rows
        are RUNNING, a flag for each selection that says whether it takes them, and the name of the queue.
        """
        by_arm: dict[int, list[tuple[int, datetime]]] = defaultdict(list)
        groups: list[tuple[int, datetime, str]] = []
        unknown = False
        for number, count, instant, text in rows:
            if number == _CLOCK:
                now = self.engine.instant(instant)
            elif number == _UNKNOWN:
                unknown = unknown or bool(count)
            elif number == _GROUP:
                groups.append((count, self.engine.instant(instant), text))
            elif count:
                by_arm[number].append((count, self.engine.instant(instant)))
        counts: dict[Selection, dict[str, _Count]] = {selection: {} for selection in self.wanted}
        for selection, arms in self.arms.items():
            for arm, queue in arms.items():
                for count, instant in by_arm[arm]:
                    counts[selection].setdefault(queue, _Count()).add_ready(count, instant)
        self._add_groups(counts, groups)
        demands = {selection: _demand(counts[selection], limit) for selection, limit in self.wanted.items()}
        return Answer(now, demands, unknown)

    def _add_groups(
        self, counts: dict[Selection, dict[str, _Count]], groups: list[tuple[int, datetime, str]]
    ) -> None:
        named = {selection: self._named(selection) for selection in self.wanted} if groups else {}
        for count, instant, text in groups:
            flags, queue = text[: 1 + len(counts)], text[1 + len(counts) :]
            for selection in itertools.compress(counts, map(int, flags[1:])):
                found = counts[selection].setdefault(named[selection](queue), _Count())
                if flags[0] == "1":
                    found.running += count
                else:
                    found.add_ready(count, instant)

    def _named(self, selection: Selection) -> Callable[[str], str]:
        """Return which of the requested names stands for a queue."""
        arms = self.arms.get(selection, {}).values()
        if "" in arms:
            return lambda _: ""
        asked = {self.engine.queue_key(name): name for name in reversed([*arms, *sorted(selection.queues)])}
        return lambda queue: asked.get(self.engine.queue_key(queue), queue)


def _demand(queues: Mapping[str, _Count], limit: int) -> SelectionDemand:
    return SelectionDemand(
        min(sum(queue.ready for queue in queues.values()), limit),
        sum(queue.running for queue in queues.values()),
        min((queue.since for queue in queues.values() if queue.since), default=None),
        {
            name: QueueDemand(min(queue.ready, limit), queue.running, queue.since)
            for name, queue in queues.items()
        },
    )


def compile_statement(
    connection: BaseDatabaseWrapper, wanted: Mapping[Selection, int], layout: Layout
) -> Statement:
    """Build the statement for ``wanted``: each selection with the number of ready rows worth counting."""
    parts = [_clock(connection), _groups(connection, list(wanted), ready_too=not layout.indexed)]
    limits: dict[_Arm, int] = {}
    arms_of: dict[Selection, list[_Arm]] = {}
    if layout.indexed:
        for selection, limit in wanted.items():
            arms_of[selection] = list(_arms(connection, selection, layout))
            for arm in arms_of[selection]:
                limits[arm] = max(limits.get(arm, 1), limit)
        for number, (arm, limit) in enumerate(limits.items()):
            parts += [_counted(connection, number, rows[:limit]) for rows in _ready(arm)]
        every = {selection.backend for selection in wanted if selection.is_every_queue}
        for backend in sorted(every):
            parts += _unknown(connection, backend, layout.queues.get(backend, ()))
    numbers = {arm: number for number, arm in enumerate(limits)}
    return Statement(
        sql=" UNION ALL ".join(sql for sql, _ in parts),
        params=tuple(value for _, params in parts for value in params),
        arms={selection: {numbers[arm]: arm.queue for arm in arms} for selection, arms in arms_of.items()},
        wanted=dict(wanted),
        engine=engine_of_connection(connection),
    )


def compiled(connection: BaseDatabaseWrapper, rows: Rows) -> Part:
    """Return the text and parameters of a query for ``connection``'s database."""
    sql, params = rows.query.get_compiler(connection=connection).as_sql()
    return sql, tuple(params)


def _arms(connection: BaseDatabaseWrapper, selection: Selection, layout: Layout) -> Iterator[_Arm]:
    backend, exclude = selection.backend, tuple(sorted(set(selection.exclude_queues)))
    names = layout.queues.get(backend, ()) if selection.is_every_queue else sorted(set(selection.queues))
    if names is None:
        yield _Arm(backend, (), exclude)
        return
    names = [name for name in names if name not in exclude]
    engine = engine_of_connection(connection)
    if engine.equal_names_are_one:
        # Equal is equal: nothing is left to exclude, and more selections share the arm.
        yield from (_Arm(backend, (name,), ()) for name in names)
        return
    # Names that may be the same queue for the database share an arm, or its rows would count twice.
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(engine.queue_key(name), []).append(name)
    yield from (_Arm(backend, tuple(group), exclude) for group in alike.values())


def _ready(arm: _Arm) -> tuple[Rows, Rows]:
    """Select an arm's rows without a run_after, and those whose run_after is past, longest waiting first."""
    rows = DBTaskResult.objects.filter(status="READY", backend_name=arm.backend)
    if len(arm.names) == 1:
        rows = rows.filter(queue_name=arm.names[0])
    elif arm.names:
        rows = rows.filter(queue_name__in=arm.names)
    if arm.exclude:
        rows = rows.exclude(queue_name__in=arm.exclude)
    # In the index's order, so that nothing is sorted. Without names, the first queues' rows are counted.
    waiting_longest = ("run_after", "enqueued_at")
    rows = rows.order_by(*waiting_longest) if arm.names else rows.order_by("queue_name", *waiting_longest)
    return (
        rows.filter(AT_ONCE).values(due=F("enqueued_at")),
        rows.filter(TIME_HAS_COME).values(due=Greatest("run_after", "enqueued_at")),
    )


def _counted(connection: BaseDatabaseWrapper, number: int, rows: Rows) -> Part:
    sql, params = compiled(connection, rows)
    return f"SELECT {number}, COUNT(*), MIN(due), '' FROM ({sql}) arm", params  # noqa: S608


def _unknown(connection: BaseDatabaseWrapper, backend: str, queues: tuple[str, ...] | None) -> Iterator[Part]:
    """Probe for READY rows between the names of ``queues``, once for each gap."""
    if queues is None:
        return
    # PostgreSQL expects to find a row in the gap soon, and would scan the whole table for it if the index's
    # order were not requested.
    rows = DBTaskResult.objects.filter(status="READY", backend_name=backend).order_by("queue_name")
    for before, after in itertools.pairwise((None, *queues, None)):
        gap = rows
        if before is not None:
            gap = gap.filter(queue_name__gt=before)
        if after is not None:
            gap = gap.filter(queue_name__lt=after)
        yield _counted(connection, _UNKNOWN, gap.values(due=F("enqueued_at"))[:1])


def _clock(connection: BaseDatabaseWrapper) -> Part:
    return f"SELECT {_CLOCK}, 0, {engine_of_connection(connection).clock}, ''", ()


def _groups(connection: BaseDatabaseWrapper, selections: list[Selection], *, ready_too: bool) -> Part:
    """Select the RUNNING rows, and the due ones if they have no arms, by queue and selections."""
    counted = Q(status="RUNNING")
    if ready_too:
        counted |= Q(status="READY") & (AT_ONCE | TIME_HAS_COME)
    sql, params = compiled(
        connection,
        DBTaskResult.objects.filter(
            counted,
            # Repeated in a form that an index on status can use.
            status__in=["READY", "RUNNING"] if ready_too else ["RUNNING"],
            backend_name__in=sorted({selection.backend for selection in selections}),
        )
        .order_by()
        .values("status", "backend_name", "queue_name")
        .annotate(number=Count("*"), due=Min(BECAME_DUE if ready_too else "enqueued_at")),
    )
    flags, values = ["CASE WHEN status = 'RUNNING' THEN '1' ELSE '0' END"], []
    for selection in selections:
        condition, condition_values = _takes(selection)
        flags.append(f"CASE WHEN {condition} THEN '1' ELSE '0' END")
        values += condition_values
    flags.append("queue_name")
    return (
        f"SELECT {_GROUP}, number, due, {_concatenated(flags)} FROM ({sql}) grouped",  # noqa: S608
        (*values, *params),
    )


def _takes(selection: Selection) -> tuple[str, list[str]]:
    conditions, values = ["backend_name = %s"], [selection.backend]
    if not selection.is_every_queue:
        conditions.append(f"queue_name IN ({', '.join(['%s'] * len(selection.queues))})")
        values += selection.queues
    if selection.exclude_queues:
        conditions.append(f"NOT queue_name IN ({', '.join(['%s'] * len(selection.exclude_queues))})")
        values += selection.exclude_queues
    return " AND ".join(conditions), values


def _concatenated(texts: list[str]) -> str:
    if len(texts) <= _ARGUMENTS:
        return f"CONCAT({', '.join(texts)})"
    return _concatenated([_concatenated(list(chunk)) for chunk in itertools.batched(texts, _ARGUMENTS)])
