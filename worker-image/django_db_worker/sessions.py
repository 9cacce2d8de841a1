"""Keeps what a task does to its database sessions from the next task.

All tasks of a slot use the same connections, which stay open. A task that only reads and writes rows leaves
nothing behind in them. If a task has changed its session or left a transaction open, the connection is closed
before the result is stored, and the next statement opens a new one. Finding this out takes no request to the
server: Django's wrapper of the connection and the driver know.
"""

import gc
import logging
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import Error, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

logger = logging.getLogger("django_tasks_db")

# libpq's PQTRANS_IDLE, and MySQL's SERVER_STATUS_IN_TRANS.
PG_IDLE = 0
MYSQL_IN_TRANSACTION = 1

# These leave the session unchanged, except for an open transaction, of which the driver knows.
_HARMLESS = {
    *(
        "SELECT",
        "WITH",
        "VALUES",
        "TABLE",
        "INSERT",
        "UPDATE",
        "DELETE",
        "MERGE",
        "REPLACE",
        "COPY",
        "TRUNCATE",
    ),
    *("SAVEPOINT", "RELEASE", "ROLLBACK", "COMMIT"),
    *("EXPLAIN", "SHOW", "DESCRIBE", "ANALYZE", "VACUUM", "REFRESH", "NOTIFY"),
}
_FIRST_WORD = re.compile(r"(?:\s+|\(|--[^\n]*\n|/\*.*?\*/)*([A-Za-z]*)", re.DOTALL)
# These last for one transaction.
_LOCAL = re.compile(r"\s*SET\s+(?:LOCAL|CONSTRAINTS)\s", re.IGNORECASE)
# Functions that change the session, locks and variables that outlive a transaction, and a second statement.
# The pieces of text are for speed: the slower pattern is only tried on the few statements that have one.
_PIECES = ("set_config", "advisory_lock", "get_lock", ":=", "into @", "into temp", ";")
_TRACES = re.compile(
    r"set_config\s*\(|pg_(?:try_)?advisory_lock|get_lock\s*\(|:=|\binto\s+(?:@|temp(?:orary)?\s)|;\s*\S"
)


def leaves_traces(sql: object) -> bool:
    """Whether a statement may change its session, as far as its text shows."""
    if not isinstance(sql, str):
        # A driver's own object, such as psycopg's sql.SQL.
        return True
    found = _FIRST_WORD.match(sql)
    word = found[1].upper() if found else ""
    if word not in _HARMLESS and not _LOCAL.match(sql):
        return True
    text = sql.lower()
    return any(piece in text for piece in _PIECES) and _TRACES.search(text) is not None


class _Watch:
    """Sees every statement on one connection (one of Django's execute_wrappers)."""

    def __init__(self) -> None:
        self.lent = False
        self.changed = False

    def __call__(
        self, execute: Callable[..., object], sql: object, params: object, many: object, context: object
    ) -> object:
        if self.lent and not self.changed:
            self.changed = leaves_traces(sql)
        return execute(sql, params, many, context)


class Sessions:
    """The calling thread's connections, to all databases of the project."""

    def __init__(self) -> None:
        self._thread: int | None = None
        self._lent = False
        self._left_atomic = False

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Observe the connections that this thread has or opens; around all of a slot's work."""
        self._thread = threading.get_ident()
        connection_created.connect(self._created, weak=False)
        try:
            for connection in connections.all(initialized_only=True):
                self._watch(connection)
            yield
        finally:
            connection_created.disconnect(self._created)
            for connection in connections.all(initialized_only=True):
                wrappers = connection.execute_wrappers
                wrappers[:] = [each for each in wrappers if not isinstance(each, _Watch)]

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Lend the connections to the project's own code; afterwards no session has a trace of it."""
        # A test case of the project may call a worker within a transaction.
        enclosed = set()
        for connection in connections.all(initialized_only=True):
            watch = self._watch(connection)
            watch.lent, watch.changed = True, False
            if connection.in_atomic_block:
                enclosed.add(connection.alias)
        self._lent = True
        try:
            yield
        finally:
            self._lent = False
            for connection in connections.all(initialized_only=True):
                self._watch(connection).lent = False
                if connection.alias not in enclosed:
                    self._clean(connection)
            if self._left_atomic:
                # An atomic() in a generator ends when the generator is collected. That must not happen in
                # a transaction of the slot's own.
                gc.collect()

    def between_tasks(self) -> None:
        """Collect what the last task has left, when nothing refers to it any more, not even its exception."""
        if self._left_atomic:
            self._left_atomic = False
            gc.collect()

    def _created(self, *, connection: BaseDatabaseWrapper, **_: Any) -> None:
        if threading.get_ident() == self._thread:
            watch = self._watch(connection)
            # What Django and the project do with every new connection is not a change by the task.
            watch.lent, watch.changed = self._lent, False

    @staticmethod
    def _watch(connection: BaseDatabaseWrapper) -> _Watch:
        wrappers: list[Any] = connection.execute_wrappers
        for each in wrappers:
            if isinstance(each, _Watch):
                return each
        watch = _Watch()
        wrappers.append(watch)
        return watch

    def _clean(self, connection: BaseDatabaseWrapper) -> None:
        if connection.in_atomic_block or _in_transaction(connection):
            logger.warning("A task left a transaction open: it is rolled back.")
            self._left_atomic = self._left_atomic or connection.in_atomic_block
            discard(connection)
        elif self._watch(connection).changed or _closed(connection.connection):
            logger.debug("A task changed its database session: the next one gets a new connection.")
            discard(connection)


def discard(connection: BaseDatabaseWrapper) -> None:
    """Close a connection, whatever state it is in, and do not let a pool keep its session."""
    connection.in_atomic_block = connection.needs_rollback = connection.closed_in_transaction = False
    connection.savepoint_ids = []
    connection.atomic_blocks = []
    try:
        if connection.connection is not None and connection.settings_dict["OPTIONS"].get("pool"):
            connection.connection.close()
        connection.close()
    except Error:
        # PyMySQL raises an error of its own if the connection is already closed.
        connection.connection = None


def _closed(raw: Any) -> bool:
    """Whether a task closed the driver's connection, which Django does not see."""
    return bool(getattr(raw, "closed", False)) or getattr(raw, "open", True) in (False, 0)


def _in_transaction(connection: BaseDatabaseWrapper) -> bool:
    """Whether a transaction is open, or autocommit is off, as Django or the driver sees it."""
    raw = connection.connection
    if raw is None:
        return False
    if connection.autocommit != connection.settings_dict["AUTOCOMMIT"]:
        return True
    look = _LOOKS.get(connection.vendor)
    if look is None or not connection.autocommit:
        return False
    try:
        return look(raw)
    except Exception:  # noqa: BLE001
        # The connection is broken, which the next statement will find.
        return False


def _look_postgres(raw: Any) -> bool:
    return not raw.closed and (not raw.autocommit or int(raw.info.transaction_status) != PG_IDLE)


def _look_mysql(raw: Any) -> bool:
    # mysqlclient does not have the status, so a BEGIN that bypasses Django is not noticed there.
    return bool(getattr(raw, "server_status", 0) & MYSQL_IN_TRANSACTION) or not raw.get_autocommit()


def _look_sqlite(raw: Any) -> bool:
    return bool(raw.in_transaction)


_LOOKS = {"postgresql": _look_postgres, "mysql": _look_mysql, "sqlite": _look_sqlite}
