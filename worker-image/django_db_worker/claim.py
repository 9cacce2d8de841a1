"""Claims rows of the task table, and stores results.

A claim commits RUNNING, the time and the worker's id before the task's code runs. What is ready, and in which
order, is upstream's rule: READY, this backend, these queues, and run_after due; highest priority first, then
the earliest run_after, then the longest in the table.
"""

import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, Protocol

from django.db import DatabaseError, DataError, IntegrityError, OperationalError, ProgrammingError, models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.functions import Cast
from django.utils import timezone
from django_tasks_db.compat import TaskResultStatus
from django_tasks_db.models import DBTaskResult, get_date_max
from django_tasks_db.utils import exclusive_transaction

from .indexes import find_claims_index
from .next_row import MysqlSearch, Names, Wanted, postgres_query, upstream_query
from .outcome import FINISHED_FIELDS, Row
from .passed_over import PassedOver
from .reading import LEFT_OUT, is_rows_own, mend, partly, read, read_partly
from .reading import rows as _rows

# MySQL's ER_KEY_DOES_NOT_EXITS, of a query that names an index.
NO_SUCH_INDEX = 1176
# What a constraint, or the type of a column, has against a row.
ROWS_ERRORS = (IntegrityError, DataError)


class Table(Protocol):
    """What a slot does with the task table. Errors of the database pass through."""

    @property
    def connection(self) -> BaseDatabaseWrapper:
        """The connection that it uses."""

    @property
    def lacks_index(self) -> bool:
        """Whether claims would be cheaper with the index of next_row."""

    def claim(self, worker_id: str, finished: Row | None) -> Row | None:
        """Claim the next row, if any; with `finished`, store that row's result in the same commit."""

    def finish(self, row: Row) -> None:
        """Store a row's result."""


def give_back(alias: str, row: Row, worker_id: str) -> None:
    """Undo a claim whose task has not started, so that the row is ready as before."""
    worker_ids = _list(row.worker_ids)
    if worker_ids[-1:] == [worker_id]:
        worker_ids.pop()
    fields: dict[str, Any] = {"status": TaskResultStatus.READY, "worker_ids": worker_ids}
    if not worker_ids:
        fields["started_at"] = None
    # The statement may reach the server late, or twice, and must not undo a later claim of the same row.
    claimed = _rows(alias).filter(pk=row.pk, status=TaskResultStatus.RUNNING, started_at=row.started_at)
    claimed.update(**fields)


def find_claim(alias: str, wanted: Wanted, worker_id: str, since: datetime) -> Row | None:
    """Return the row of a claim whose commit was never answered, if the commit took place.

    ``since`` is the moment before the claim: an older row with this worker id was left behind by an earlier
    worker of that name. This reads all RUNNING rows, without an index, so it is only for outages.
    """
    running = _rows(alias).filter(
        status=TaskResultStatus.RUNNING, backend_name=wanted.backend, started_at__gte=since
    )
    return _first_of(alias, running, worker_id)


def find_running(alias: str, key: uuid.UUID, worker_id: str) -> Row | None:
    """Return a row by its key, if it is still RUNNING with this worker id."""
    return _first_of(alias, _rows(alias).filter(pk=key, status=TaskResultStatus.RUNNING), worker_id)


def seconds_ready(row: Row) -> float:
    """Return how long a claimed row had been ready."""
    since = row.enqueued_at if row.run_after == get_date_max() else max(row.enqueued_at, row.run_after)
    waited: timedelta = row.started_at - since
    return max(0.0, waited.total_seconds())


def finish_silently(alias: str, row: Row) -> None:
    """Store a row's result without calling the project's receivers."""
    _rows(alias).filter(pk=row.pk).update(**{name: getattr(row, name) for name in FINISHED_FIELDS})


def _mended(alias: str, row: Row, error: Exception) -> dict[str, Any]:
    text = Cast("args_kwargs", models.TextField())
    arguments, priority = _rows(alias).filter(pk=row.pk).values_list(text, "priority").get()
    return mend(row, arguments, priority, error)


def _first_of(alias: str, rows: "models.QuerySet[Row]", worker_id: str) -> Row | None:
    listed = rows.values_list("pk", "worker_ids")
    key = next((key for key, worker_ids in listed if _list(worker_ids)[-1:] == [worker_id]), None)
    return None if key is None else read(alias, key)


def _list(worker_ids: object) -> list[Any]:
    """Return a row's worker ids as upstream writes them, whatever the column contains."""
    return list(worker_ids) if isinstance(worker_ids, list) else []


def open_table(connection: BaseDatabaseWrapper, wanted: Wanted, *, model_signals: bool) -> Table:
    """Open the table in the fastest way for its database; with `model_signals`, through save()."""
    if model_signals:
        return OrmTable(connection, wanted)
    if connection.vendor == "postgresql":
        return PostgresTable(connection, wanted)
    if connection.vendor == "mysql":
        return LockingTable(connection, wanted)
    return OrmTable(connection, wanted)


class OrmTable:
    """Upstream's own way: every database, every signal, one transaction for the claim."""

    lacks_index = False

    def __init__(self, connection: BaseDatabaseWrapper, wanted: Wanted) -> None:
        self.connection = connection
        self.passed_over = PassedOver()
        self._wanted = wanted

    def claim(self, worker_id: str, finished: Row | None) -> Row | None:
        """See Table. The result has a commit of its own here."""
        if finished is not None:
            self.finish(finished)
        row, again = None, True
        while again:
            row, again = self._claim(worker_id)
        return row

    def _claim(self, worker_id: str) -> tuple[Row | None, bool]:
        """Claim the next row, if any; also return whether to try again, because it cannot be changed."""
        alias = self.connection.alias
        rows: Any = DBTaskResult.objects.using(alias)
        rows = rows.ready().filter(backend_name=self._wanted.backend)
        if self._wanted.queues:
            rows = rows.filter(queue_name__in=self._wanted.queues)
        if self._wanted.excluded:
            rows = rows.exclude(queue_name__in=self._wanted.excluded)
        passed_over = self.passed_over.keys()
        if passed_over:
            rows = rows.exclude(pk__in=passed_over)
        # Upstream's own, get_locked(), refuses MariaDB before 10.6.
        skip = self.connection.features.has_select_for_update_skip_locked
        keys = rows.select_for_update(skip_locked=skip).values_list("pk", flat=True)
        key = None
        try:
            with exclusive_transaction(alias):
                key = keys.first()
                if key is None:
                    return None, False
                row = rows.get(pk=key)
                row.claim(worker_id)
                return row, False
        except Exception as error:
            # Django's own, if a receiver has hidden that the connection is lost.
            lost = isinstance(error, ProgrammingError) and self.connection.connection is None
            if key is None or lost or not is_rows_own(error):
                raise
            try:
                return self._claim_partly(key, worker_id, error), False
            except ROWS_ERRORS as refusal:
                self.passed_over.add(key, refusal)
                return None, True

    def _claim_partly(self, key: uuid.UUID, worker_id: str, error: Exception) -> Row | None:
        alias, now = self.connection.alias, timezone.now()
        with exclusive_transaction(alias):
            ready = _rows(alias).filter(pk=key, status=TaskResultStatus.READY)
            if ready.select_for_update().values_list("pk").first() is None:
                return None
            row = read_partly(alias, key, error)
            if row is not None:
                row.status, row.started_at = TaskResultStatus.RUNNING, now
                row.worker_ids = [*_list(row.worker_ids), worker_id]
                # What Python cannot read, MariaDB may not let pass either.
                refused = isinstance(error, IntegrityError) or self.connection.vendor == "mysql"
                more = _mended(alias, row, error) if refused else {}
                ready.update(status=row.status, started_at=now, worker_ids=row.worker_ids, **more)
            return row

    def finish(self, row: Row) -> None:
        """See Table."""
        try:
            row.save(using=self.connection.alias, update_fields=FINISHED_FIELDS)
        except OperationalError:
            raise
        except DatabaseError:
            # save() also fails when there is no such row: deleted while its task ran, it needs no result.
            if _rows(self.connection.alias).filter(pk=row.pk).exists():
                raise


class _SqlTable(ABC):
    """The parts of the statements that are the same on PostgreSQL and MySQL."""

    _json = "%s"

    def __init__(self, connection: BaseDatabaseWrapper, wanted: Wanted) -> None:
        self.connection = connection
        self._one_by_one = OrmTable(connection, wanted)
        self._names = names = Names(connection)
        self._table, self._column, self._value = names.table, names.column, names.value
        self._columns = ", ".join(f"{names.table}.{column}" for column in names.column.values())
        self._converters: list[tuple[int, Callable[..., Any], Any]] = []
        for position, field in enumerate(names.fields):
            column = field.get_col(DBTaskResult._meta.db_table)  # noqa: SLF001
            converters = connection.ops.get_db_converters(column) + field.get_db_converters(connection)
            self._converters.extend((position, converter, column) for converter in converters)

        c = self._column
        settings = ", ".join(
            f"{c[name]} = {self._json if name == 'return_value' else '%s'}" for name in FINISHED_FIELDS
        )
        self._finish = f"UPDATE {self._table} SET {settings} WHERE {c['id']} = %s"  # noqa: S608

    def claim(self, worker_id: str, finished: Row | None) -> Row | None:
        """See Table."""
        if self._one_by_one.passed_over.keys():
            if finished is not None:
                self.finish(finished)
            return self._one_by_one.claim(worker_id, None)
        try:
            return self._claim_next(worker_id, finished)
        except ROWS_ERRORS:
            # Nothing has been committed. With a result it may also be that which is refused.
            if finished is not None:
                raise
            return self._one_by_one.claim(worker_id, None)

    @abstractmethod
    def _claim_next(self, worker_id: str, finished: Row | None) -> Row | None:
        """Claim the next row in the fastest way, with ``finished`` in the same commit."""

    def finish(self, row: Row) -> None:
        """See Table."""
        with self.connection.cursor() as cursor:
            cursor.execute(self._finish, self._finish_values(row))

    def _finish_values(self, row: Row) -> list[Any]:
        return [
            # The result was written as JSON when the task ended, once.
            *(
                row.encoded_value if name == "return_value" else self._value(name, getattr(row, name))
                for name in FINISHED_FIELDS
            ),
            self._value("id", row.pk),
        ]

    def _row(self, values: Sequence[object]) -> Row:
        converted = dict(zip(self._names.attributes, values, strict=True))
        unreadable: Exception | None = None
        for position, converter, column in self._converters:
            name = self._names.attributes[position]
            if name not in converted:
                continue
            try:
                converted[name] = converter(converted[name], column, self.connection)
            except Exception as error:
                # The row is claimed by now, or would be the first again.
                if name not in LEFT_OUT:
                    raise
                unreadable = error
                del converted[name]
        if unreadable is not None:
            return partly(self.connection.alias, converted, unreadable)
        return DBTaskResult.from_db(self.connection.alias, self._names.attributes, list(converted.values()))


class PostgresTable(_SqlTable):
    """Stores a result and claims the next row in one statement, one round trip and one commit."""

    _json = "%s::jsonb"

    def __init__(self, connection: BaseDatabaseWrapper, wanted: Wanted) -> None:
        super().__init__(connection, wanted)
        self.lacks_index = find_claims_index(connection) is None
        c = self._column
        if self.lacks_index:
            self._next = upstream_query(connection, wanted, c["id"])
        else:
            self._next = postgres_query(connection, wanted)
        # MATERIALIZED: were the subquery a join's inner side, it would run, and lock a row, more than once.
        tables = ", ".join([*self._next.tables, f"wanted AS MATERIALIZED ({self._next.text})"])
        update = (
            f"UPDATE {self._table} SET {c['status']} = 'RUNNING', {c['started_at']} = %s, "  # noqa: S608
            f"{c['worker_ids']} = {self._table}.{c['worker_ids']} || %s::jsonb "
            f"FROM wanted WHERE {self._table}.{c['id']} = wanted.{c['id']} RETURNING {self._columns}"
        )
        self._claim = f"WITH RECURSIVE {tables} {update}"
        self._finish_and_claim = f"WITH RECURSIVE finished AS ({self._finish}), {tables} {update}"

    def _claim_next(self, worker_id: str, finished: Row | None) -> Row | None:
        now = timezone.now()
        values = [
            *self._next.values_at(self._value("run_after", now)),
            self._value("started_at", now),
            self._value("worker_ids", [worker_id]),
        ]
        sql = self._claim
        if finished is not None:
            sql = self._finish_and_claim
            values = [*self._finish_values(finished), *values]
        with self.connection.cursor() as cursor:
            cursor.execute(sql, values)
            found = cursor.fetchone()
        return self._row(found) if found is not None else None


class LockingTable(_SqlTable):
    """One short transaction: store the result, lock the next row that nobody else has, claim it."""

    def __init__(self, connection: BaseDatabaseWrapper, wanted: Wanted) -> None:
        super().__init__(connection, wanted)
        index = find_claims_index(connection)
        self.lacks_index = index is None and connection.features.has_select_for_update_skip_locked
        self._next = upstream_query(connection, wanted, self._columns)
        self._search = MysqlSearch(connection, wanted, self._columns, index) if index is not None else None
        c = self._column
        self._update = (
            f"UPDATE {self._table} SET {c['status']} = 'RUNNING', {c['started_at']} = %s, "  # noqa: S608
            f"{c['worker_ids']} = %s WHERE {c['id']} = %s"
        )

    def _claim_next(self, worker_id: str, finished: Row | None) -> Row | None:
        try:
            return self._claim(worker_id, finished)
        except DatabaseError as error:
            if self._search is None or NO_SUCH_INDEX not in error.args[:1]:
                raise
            # Removed while this worker runs. Nothing of the transaction has taken place.
            self._search = None
            return self._claim(worker_id, finished)

    def _claim(self, worker_id: str, finished: Row | None) -> Row | None:
        now = timezone.now()
        with exclusive_transaction(self.connection.alias), self.connection.cursor() as cursor:
            if finished is not None:
                cursor.execute(self._finish, self._finish_values(finished))
            found = self._lock_next(cursor, self._value("run_after", now))
            if found is None:
                return None
            row = self._row(found)
            row.status = TaskResultStatus.RUNNING
            row.started_at = now
            row.worker_ids = [*_list(row.worker_ids), worker_id]
            try:
                cursor.execute(
                    self._update,
                    [
                        self._value("started_at", now),
                        self._value("worker_ids", row.worker_ids),
                        self._value("id", row.pk),
                    ],
                )
            except IntegrityError as error:
                # Only the statement has been rolled back, not the transaction: the row is still locked.
                self._claim_mended(row, error)
        return row

    def _claim_mended(self, row: Row, error: Exception) -> None:
        alias = self.connection.alias
        _rows(alias).filter(pk=row.pk).update(
            status=row.status,
            started_at=row.started_at,
            worker_ids=row.worker_ids,
            **_mended(alias, row, error),
        )

    def _lock_next(self, cursor: Any, now: object) -> Sequence[object] | None:
        if self._search is not None:
            return self._search.lock_next(cursor, now)
        cursor.execute(self._next.text, self._next.values_at(now))
        found: Sequence[object] | None = cursor.fetchone()
        return found
