"""The indexes that our queries want of the task table, beside those that django-tasks-db makes itself.

Two, because the order of the columns is what they are for: a claim wants the greatest priority of a queue,
and a sample of the operator counts a queue's rows of all priorities by the time at which they became due.
On PostgreSQL they contain unfinished rows alone. MySQL and MariaDB have no such indexes: there they contain
all rows, with status as the first column.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from django.db.backends.base.base import BaseDatabaseWrapper
from django_tasks_db.models import DBTaskResult

TABLE = DBTaskResult._meta.db_table  # noqa: SLF001


@dataclass(frozen=True)
class Index:
    """An index of the task table.

    Args:
        name: its name, if we create it; it is found under any.
        columns: its columns on PostgreSQL.
        statuses: the statuses of the rows that it contains on PostgreSQL.
        purpose: what gets cheaper.
    """

    name: str
    columns: tuple[str, ...]
    statuses: tuple[str, ...]
    purpose: str

    def columns_on(self, vendor: str) -> tuple[str, ...]:
        """Return its columns on a kind of database."""
        alone = vendor == "postgresql" or "status" in self.columns
        return self.columns if alone else ("status", *self.columns)

    def create(self, vendor: str) -> str:
        """Return the statement that creates it while the table is in use."""
        columns = ", ".join(self.columns_on(vendor))
        if vendor != "postgresql":
            return f"CREATE INDEX {self.name} ON {TABLE} ({columns}) ALGORITHM=INPLACE LOCK=NONE"
        statuses = ", ".join(f"'{status}'" for status in self.statuses)
        where = f"= {statuses}" if len(self.statuses) == 1 else f"IN ({statuses})"
        return f"CREATE INDEX CONCURRENTLY {self.name} ON {TABLE} ({columns}) WHERE status {where}"

    def remove(self, vendor: str) -> str:
        """Return the statement that removes it while the table is in use."""
        if vendor != "postgresql":
            return f"DROP INDEX {self.name} ON {TABLE}"
        return f"DROP INDEX CONCURRENTLY {self.name}"


CLAIMS = Index(
    "django_task_claims_idx",
    ("backend_name", "queue_name", "priority", "run_after", "enqueued_at"),
    ("READY",),
    "claims of workers",
)
SAMPLES = Index(
    "django_task_operator_idx",
    ("status", "backend_name", "queue_name", "run_after", "enqueued_at"),
    ("READY", "RUNNING"),
    "samples of the operator",
)
INDEXES = (CLAIMS, SAMPLES)


@dataclass(frozen=True)
class Found:
    """An index that the table has; an interrupted build leaves one behind that is not usable."""

    name: str
    columns: tuple[str, ...]
    statuses: tuple[str, ...] | None  # None: it contains all rows
    usable: bool

    def serves(self, index: Index, vendor: str) -> bool:
        """Whether it does what an index is for."""
        wanted = index.columns_on(vendor)
        contains = self.statuses is None or set(self.statuses) == set(index.statuses)
        return self.usable and contains and self.columns[: len(wanted)] == wanted


def find_claims_index(connection: BaseDatabaseWrapper) -> str | None:
    """Return the name of the index that makes claims cheap; None: there is none, or no use for it.

    Errors of the database pass through.
    """
    if not has_use_for_indexes(connection) or not connection.features.has_select_for_update_skip_locked:
        return None
    return next(iter(names_of(find_indexes(connection), CLAIMS, connection.vendor)), None)


def names_of(found: Sequence[Found], index: Index, vendor: str) -> list[str]:
    """Return the names of the indexes that do what an index is for."""
    return sorted(each.name for each in found if each.serves(index, vendor))


def has_use_for_indexes(connection: BaseDatabaseWrapper) -> bool:
    """Whether our queries are made for this kind of database."""
    return connection.vendor in {"postgresql", "mysql"}


def find_indexes(connection: BaseDatabaseWrapper) -> list[Found]:
    """Return the indexes of the task table. Errors of the database pass through."""
    return (_in_postgres if connection.vendor == "postgresql" else _in_mysql)(connection)


def _in_postgres(connection: BaseDatabaseWrapper) -> list[Found]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT c.relname, i.indisvalid AND i.indisready AND i.indexprs IS NULL, "
            "pg_get_expr(i.indpred, i.indrelid), ARRAY(SELECT a.attname::text FROM unnest(i.indkey) "
            "WITH ORDINALITY k (number, place) JOIN pg_attribute a ON a.attrelid = i.indrelid "
            "AND a.attnum = k.number ORDER BY k.place) "
            "FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = to_regclass(%s)",
            [connection.ops.quote_name(TABLE)],
        )
        return [
            Found(name, tuple(columns), _statuses(condition), usable)
            for name, usable, condition, columns in cursor.fetchall()
        ]


def _statuses(condition: str | None) -> tuple[str, ...] | None:
    """The statuses that a partial index contains; of a condition on anything else, none.

    As PostgreSQL writes them: ((status)::text = 'READY'::text), and with several
    ((status)::text = ANY ((ARRAY['READY'::character varying, 'RUNNING'::character varying])::text[])).
    """
    if condition is None:
        return None
    beginning, *texts = condition.split("'")
    # Every second text is one that was between quotes.
    is_list = beginning.lstrip("( ").startswith("status)::text = ") and " AND " not in "".join(texts[1::2])
    return tuple(texts[::2]) if is_list else ()


def _in_mysql(connection: BaseDatabaseWrapper) -> list[Found]:
    columns: dict[str, dict[int, str]] = {}
    with connection.cursor() as cursor:
        cursor.execute(f"SHOW INDEX FROM {connection.ops.quote_name(TABLE)}")
        for _, _, name, place, column, *_ in cursor.fetchall():
            columns.setdefault(name, {})[place] = column
    return [
        Found(name, tuple(column for _, column in sorted(places.items())), None, usable=True)
        for name, places in columns.items()
    ]
