"""Which row is next, in SQL: a query whose cost depends only on the rows that it takes.

Upstream's order is priority, then run_after, then enqueued_at; a row without a run_after has the greatest
one. So in one queue and of one priority the rows that are due come first, then those deferred to the future,
which must be skipped, then those without a run_after. With the index CLAIMS each of these is one range of it:

- from one priority to the next lower one is a single step, however many rows the priority has;
- of each priority, the due rows are the first range and those without a run_after the second. Each yields its
  first row that nobody has locked;
- with several queues, the queue whose first row is the first of all is asked first, as far as the first row
  of the next queue.

Without that index these steps would each read the whole table, so then it is upstream's own query.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, zip_longest
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django_tasks_db.models import DBTaskResult, get_date_max

# With more queues than this, a worker of every queue asks as upstream does on MySQL and MariaDB.
MOST_QUEUES = 50
# Above upstream's highest (its constraint ends at 100), in PostgreSQL's type of the column.
ABOVE_ALL = 2**31 - 1


@dataclass(frozen=True)
class Wanted:
    """Which rows a worker takes: those of a backend, and of some queues (none named: of all)."""

    backend: str
    queues: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()


class _Now:
    """Stands among a query's values for the time at which it is asked."""


NOW = _Now()


@dataclass(frozen=True)
class Query:
    """A query with its values, and common table expressions that it refers to.

    Args:
        text: the query.
        values: its values and, before them, those of the tables; NOW is the time at which it is asked.
        tables: what to write after WITH RECURSIVE.
    """

    text: str
    values: tuple[object, ...]
    tables: tuple[str, ...] = ()

    def values_at(self, now: object) -> list[object]:
        """Return the values for a moment, as the database wants it."""
        return [now if isinstance(value, _Now) else value for value in self.values]


class Names:
    """The table and its columns, as one database writes them."""

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        meta = DBTaskResult._meta  # noqa: SLF001
        quote = connection.ops.quote_name
        self.fields = list(meta.concrete_fields)
        self.attributes = [field.attname for field in self.fields]
        self.table = quote(meta.db_table)
        self.column = {field.attname: quote(str(field.column)) for field in self.fields}
        self._connection = connection

    def value(self, name: str, value: object) -> Any:
        """Return a column's value as the database wants it."""
        return self.fields[self.attributes.index(name)].get_db_prep_save(value, self._connection)

    @property
    def no_run_after(self) -> Any:
        """The run_after of a row that has none."""
        return self.value("run_after", get_date_max())


def upstream_query(connection: BaseDatabaseWrapper, wanted: Wanted, columns: str) -> Query:
    """Return upstream's query: one walk through its own index, past every row that is not wanted."""
    names = Names(connection)
    c = names.column
    where = [f"{c['status']} = 'READY'", f"{c['backend_name']} = %s"]
    values: list[object] = [wanted.backend]
    for queues, word in ((wanted.queues, "IN"), (wanted.excluded, "NOT IN")):
        if queues:
            where.append(f"{c['queue_name']} {word} ({_placeholders(queues)})")
            values.extend(queues)
    where.append(f"({c['run_after']} = %s OR {c['run_after']} <= %s)")
    values += [names.no_run_after, NOW]
    # MariaDB before 10.6 cannot: there each waits for the one before it.
    skip = " SKIP LOCKED" if connection.features.has_select_for_update_skip_locked else ""
    return Query(
        f"SELECT {columns} FROM {names.table} WHERE {' AND '.join(where)} "  # noqa: S608
        f"ORDER BY {c['priority']} DESC, {c['run_after']}, {c['enqueued_at']} "
        f"LIMIT 1 FOR UPDATE{skip}",
        tuple(values),
    )


def postgres_query(connection: BaseDatabaseWrapper, wanted: Wanted) -> Query:
    """Return the query for the id of the next row on PostgreSQL, for a table with the index."""
    ranges = Ranges(Names(connection), wanted.backend)
    if len(set(wanted.queues)) == 1 and not wanted.excluded:
        return _of_one_queue(ranges, wanted.queues[0])
    return _of_queues(ranges, wanted)


class Ranges:
    """Ranges of the index on PostgreSQL. The table is `r` in each; values are in the order of the text."""

    def __init__(self, names: Names, backend: str) -> None:
        c = names.column
        self.id, self.queue, self.priority = (f"r.{c[name]}" for name in ("id", "queue_name", "priority"))
        self.run_after, self.enqueued_at = f"r.{c['run_after']}", f"r.{c['enqueued_at']}"
        self.ready = f"FROM {names.table} r WHERE r.{c['status']} = 'READY' AND r.{c['backend_name']} = %s"
        self.backend = backend
        self.no_run_after = names.no_run_after

    def lower_priority(self, queue: str) -> str:
        """The next priority below that of the row of `level`; its value is the backend."""
        return (
            f"(SELECT {self.priority} {self.ready} AND {self.queue} = {queue} "
            f"AND {self.priority} < level.priority ORDER BY {self.priority} DESC LIMIT 1)"
        )

    def first(self, columns: str, queue: str, condition: str) -> str:
        """The first row of the priority of `level` that meets a condition on run_after."""
        return (
            f"SELECT {columns} {self.ready} AND {self.queue} = {queue} AND {self.priority} = level.priority "
            f"AND {condition} ORDER BY {self.run_after}, {self.enqueued_at} LIMIT 1"
        )


def _of_one_queue(ranges: Ranges, queue: str) -> Query:
    """One queue's priorities from the highest, as far as the first row that can be locked.

    COALESCE evaluates its second query only when the first has found nothing, and OFFSET 0 keeps both from
    being evaluated twice: no row is locked that is not taken. 300,000 READY rows of other queues, 300,000
    deferred rows of this queue and as many of a higher priority (PostgreSQL 17): 0.2 ms instead of 200 ms.
    """
    level = (
        f"level (priority) AS (SELECT {ABOVE_ALL} UNION ALL "  # noqa: S608
        f"SELECT {ranges.lower_priority('%s')} FROM level WHERE level.priority IS NOT NULL)"
    )
    lock = "FOR UPDATE SKIP LOCKED"
    due = ranges.first(ranges.id, "%s", f"{ranges.run_after} <= %s")
    at_once = ranges.first(ranges.id, "%s", f"{ranges.run_after} = %s")
    place = (ranges.backend, queue)
    return Query(
        f"SELECT found.id FROM (SELECT COALESCE(({due} {lock}), ({at_once} {lock})) AS id "  # noqa: S608
        f"FROM level WHERE level.priority < {ABOVE_ALL} OFFSET 0) found WHERE found.id IS NOT NULL LIMIT 1",
        (*place, *place, NOW, *place, ranges.no_run_after),
        (level,),
    )


def _of_queues(ranges: Ranges, wanted: Wanted) -> Query:
    """Several queues: the first rows of each, without locks, and then the first that can be locked.

    `head` has the first due row and the first without a run_after of every queue and priority, whether locked
    or not. In that order, `place` has the range from each to the next queue's head, in which the order is the
    one queue's alone. Only where others have locked all of these, it has once more all rows of each
    queue from its head on: claims at the same moment may then change places with one another.

    The two BETWEEN are for the planner, who would expect 100 queues of 100 priorities each and compile such a
    query to machine code (`jit_above_cost`) in 30 ms. It takes a range of which it knows nothing for narrow.
    """
    names, name_values = queue_names(ranges, wanted)
    without = excluding(wanted)
    level = (
        f"level (name, priority) AS (SELECT queue.name, {ABOVE_ALL} FROM queue "  # noqa: S608
        f"WHERE length(queue.name) BETWEEN 0 AND {ABOVE_ALL}{without} UNION ALL "
        f"SELECT level.name, {ranges.lower_priority('level.name')} FROM level "
        "WHERE level.priority IS NOT NULL)"
    )
    columns = f"{ranges.run_after}, {ranges.enqueued_at}"
    due = ranges.first(f"0, {columns}", "level.name", f"{ranges.run_after} <= %s")
    at_once = ranges.first(f"1, {columns}", "level.name", f"{ranges.run_after} = %s")
    head = (
        "head AS (SELECT level.name, level.priority, first.* FROM level CROSS JOIN LATERAL "  # noqa: S608
        f"(({due}) UNION ALL ({at_once})) first (kind, run_after, enqueued_at) "
        f"WHERE level.priority BETWEEN {-ABOVE_ALL} AND {ABOVE_ALL - 1})"
    )
    place = (
        "place AS MATERIALIZED (SELECT each.*, "
        "CASE WHEN pass = 1 AND next_run_after IS NOT NULL THEN next_run_after "
        "WHEN kind = 0 THEN %s::timestamptz ELSE %s::timestamptz END AS last_run_after, "
        "CASE WHEN pass = 1 AND next_run_after IS NOT NULL THEN next_enqueued_at "
        "ELSE 'infinity'::timestamptz END AS last_enqueued_at FROM (SELECT head.*, "
        "lead(run_after) OVER following AS next_run_after, "
        "lead(enqueued_at) OVER following AS next_enqueued_at FROM head "
        "WINDOW following AS (PARTITION BY priority, kind ORDER BY run_after, enqueued_at)) each "
        "CROSS JOIN (VALUES (1), (2)) passes (pass) WHERE pass = 1 OR next_run_after IS NOT NULL "
        "ORDER BY priority DESC, kind, pass, run_after, enqueued_at)"
    )
    key = f"({ranges.run_after}, {ranges.enqueued_at})"
    lock = (
        f"SELECT {ranges.id} {ranges.ready} AND {ranges.queue} = place.name "
        f"AND {ranges.priority} = place.priority AND {key} >= (place.run_after, place.enqueued_at) "
        f"AND {key} <= (place.last_run_after, place.last_enqueued_at) "
        f"ORDER BY {ranges.run_after}, {ranges.enqueued_at} LIMIT 1 FOR UPDATE SKIP LOCKED"
    )
    backend, no_run_after = ranges.backend, ranges.no_run_after
    return Query(
        f"SELECT found.id FROM (SELECT ({lock}) AS id FROM place OFFSET 0) found "  # noqa: S608
        "WHERE found.id IS NOT NULL LIMIT 1",
        (
            *name_values,
            *wanted.excluded,
            backend,
            *(backend, NOW, backend, no_run_after),
            *(NOW, no_run_after),
            backend,
        ),
        (names, level, head, place),
    )


def excluding(wanted: Wanted) -> str:
    """The condition that leaves out the excluded ones of ``queue_names``; its values are their names."""
    return f" AND queue.name NOT IN ({_placeholders(wanted.excluded)})" if wanted.excluded else ""


def queue_names(ranges: Ranges, wanted: Wanted) -> tuple[str, tuple[object, ...]]:
    """The queues that are named or, a step from each to the next, those that have READY rows.

    It is a table `queue` for WITH RECURSIVE, with its values; the last `name` may be null.
    """
    if wanted.queues:
        queues = sorted(set(wanted.queues))
        return f"queue (name) AS (VALUES {', '.join(['(%s::text)'] * len(queues))})", tuple(queues)
    some = f"SELECT {ranges.queue}::text {ranges.ready}"
    following = (
        f"queue (name) AS (({some} ORDER BY {ranges.queue} LIMIT 1) UNION ALL "  # noqa: S608
        f"SELECT ({some} AND {ranges.queue} > queue.name ORDER BY {ranges.queue} LIMIT 1) "
        "FROM queue WHERE queue.name IS NOT NULL)"
    )
    return following, (ranges.backend, ranges.backend)


class MysqlSearch:
    """Finds and locks the next row on MySQL and MariaDB, for a table with the index.

    In SQL they have no step from one priority to the next (a subquery that depends on another row reads all
    rows before the one that it wants), so it is a statement for each step, with constants that make it a
    range of the index: the highest priority of each queue, the first rows of those queues, and the lock.
    """

    def __init__(self, connection: BaseDatabaseWrapper, wanted: Wanted, columns: str, index: str) -> None:
        """`columns` are those of the row that `lock_next` returns, `index` the name of the index."""
        self._names = names = Names(connection)
        self._wanted = wanted
        self._upstream = upstream_query(connection, wanted, columns)
        c = names.column
        self._columns = columns
        self._queue, self._priority = c["queue_name"], c["priority"]
        self._run_after, self._enqueued_at = c["run_after"], c["enqueued_at"]
        self._no_run_after = names.no_run_after
        self._ready = (
            f"FROM {names.table} FORCE INDEX ({connection.ops.quote_name(index)}) "
            f"WHERE {c['status']} = 'READY' AND {c['backend_name']} = %s"
        )
        self._without = (
            f"AND {self._queue} NOT IN ({_placeholders(wanted.excluded)})" if wanted.excluded else ""
        )
        # Every queue that ever had a READY row, in the database's order.
        self._known: list[str] = []

    def lock_next(self, cursor: Any, now: object) -> Sequence[object] | None:
        """Return the next row, locked, if there is any that nobody else has locked.

        As on PostgreSQL, claims of several queues at the same moment may change places with one another.
        """
        queues = self._queues(cursor)
        if queues is None:
            cursor.execute(self._upstream.text, self._upstream.values_at(now))
            return _one(cursor)
        below: int | None = None
        while queues and (found := self._priorities(cursor, queues, below)):
            below = max(found.values())
            row = self._lock(cursor, [queue for queue in found if found[queue] == below], below, now)
            if row is not None:
                return row
            queues = list(found)
        return None

    def _queues(self, cursor: Any) -> list[str] | None:
        """The queues that are named, or all that are in the table; None: too many."""
        if self._wanted.queues:
            return list(dict.fromkeys(self._wanted.queues))
        while len(self._known) <= MOST_QUEUES:
            # In the gaps between the known ones: a step that only the database can make, for its own order.
            arms, values = [], []
            for place, (after, before) in enumerate(pairwise([None, *self._known, None])):
                arm = f"(SELECT {place}, {self._queue} {self._ready}"
                values.append(self._wanted.backend)
                for other, sign in ((after, ">"), (before, "<")):
                    if other is not None:
                        arm += f" AND {self._queue} {sign} %s"
                        values.append(other)
                arms.append(f"{arm} ORDER BY {self._queue} LIMIT 1)")
            cursor.execute(" UNION ALL ".join(arms), values)
            new = sorted(cursor.fetchall(), reverse=True)
            if not new:
                return self._known
            for place, name in new:
                self._known.insert(place, name)
        return None

    def _priorities(self, cursor: Any, queues: Sequence[str], below: int | None) -> dict[str, int]:
        """The highest priority of READY rows in each of some queues that have any, below a priority."""
        lower = "" if below is None else f"AND {self._priority} < %s"
        arm = (
            f"(SELECT %s, {self._priority} {self._ready} AND {self._queue} = %s {self._without} {lower} "
            f"ORDER BY {self._priority} DESC LIMIT 1)"
        )
        values: list[object] = []
        for place, queue in enumerate(queues):
            values += [place, self._wanted.backend, queue, *self._wanted.excluded]
            values += [] if below is None else [below]
        cursor.execute(" UNION ALL ".join([arm] * len(queues)), values)
        return {queues[int(place)]: priority for place, priority in cursor.fetchall()}

    def _lock(
        self, cursor: Any, queues: Sequence[str], priority: int, now: object
    ) -> Sequence[object] | None:
        """Lock the first row of some queues that have rows of a priority."""
        due, at_once = (
            (f"{self._run_after} <= %s", (now,)),
            (f"{self._run_after} = %s", (self._no_run_after,)),
        )
        either = (f"({at_once[0]} OR {due[0]})", (*at_once[1], *due[1]))
        if len(queues) == 1:
            return self._lock_range(cursor, queues[0], priority, either)
        arm = (
            f"(SELECT {self._run_after}, {self._enqueued_at}, %s {self._ready} AND {self._queue} = %s "
            f"AND {self._priority} = %s AND {either[0]} "
            f"ORDER BY {self._run_after}, {self._enqueued_at} LIMIT 1)"
        )
        values: list[object] = []
        for place, queue in enumerate(queues):
            values += [place, self._wanted.backend, queue, priority, *either[1]]
        cursor.execute(" UNION ALL ".join([arm] * len(queues)), values)
        heads: list[tuple[Any, Any, int]] = sorted(cursor.fetchall())
        ranges = []
        for (_, _, place), following in zip_longest(heads, heads[1:]):
            # As far as the next queue's first row, the order is the one queue's alone.
            until = either if following is None else self._until(following[0], following[1], now)
            ranges.append((queues[int(place)], until))
        if len(heads) > 1:
            # Only where others have locked all of those.
            ranges += [(queues[int(place)], kind) for kind in (due, at_once) for _, _, place in heads]
        for queue, within in ranges:
            row = self._lock_range(cursor, queue, priority, within)
            if row is not None:
                return row
        return None

    def _until(self, run_after: object, enqueued_at: object, now: object) -> tuple[str, tuple[object, ...]]:
        """The rows of one priority that are not later than a row that is due or has no run_after."""
        run_after, enqueued_at = str(run_after), str(enqueued_at)
        at_once = run_after == str(self._no_run_after)
        last = f"({self._run_after} = %s AND {self._enqueued_at} <= %s)"
        earlier = f"{self._run_after} <= %s" if at_once else f"{self._run_after} < %s"
        return f"({last} OR {earlier})", (run_after, enqueued_at, now if at_once else run_after)

    def _lock_range(
        self, cursor: Any, queue: str, priority: int, within: tuple[str, tuple[object, ...]]
    ) -> Sequence[object] | None:
        cursor.execute(
            f"SELECT {self._columns} {self._ready} AND {self._queue} = %s AND {self._priority} = %s "
            f"AND {within[0]} ORDER BY {self._run_after}, {self._enqueued_at} "
            "LIMIT 1 FOR UPDATE SKIP LOCKED",
            (self._wanted.backend, queue, priority, *within[1]),
        )
        return _one(cursor)


def _one(cursor: Any) -> Sequence[object] | None:
    row: Sequence[object] | None = cursor.fetchone()
    return row


def _placeholders(values: Sequence[object]) -> str:
    return ", ".join(["%s"] * len(values))
