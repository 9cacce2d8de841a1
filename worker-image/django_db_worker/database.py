"""One slot's connection: kept open between tasks, and outlived when the database goes away."""

import logging
import os
import time
from collections.abc import Callable

from django.db import (
    DatabaseError,
    InterfaceError,
    OperationalError,
    ProgrammingError,
    connections,
)
from django.db.backends.base.base import BaseDatabaseWrapper

from .sessions import discard
from .stop import Stop

logger = logging.getLogger("django_tasks_db")

FIRST_RETRY_SECONDS = 0.1
LONGEST_RETRY_SECONDS = 5.0
# PostgreSQL's JENTRY_OFFLENMASK. It says so itself, but libpq then takes minutes to show where.
PG_LARGEST = 2**28 - 1

MISSING_TABLE = {"42P01", "42703", 1146, 1054}
# A connection that survived a failover and now points at a standby: only a new one helps.
READ_ONLY = {"25006", 1290, 1836}
# Deadlock, serialization failure, lock timeout: somebody else's turn, try again.
CONTENTION = {"40P01", "40001", "55P03", 1205, 1213, 1020}


def code_of(error: BaseException) -> str | int | None:
    """The SQLSTATE or MySQL's number of a database error."""
    cause = error.__cause__ or error
    state = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
    if state is not None:
        return str(state)
    first = cause.args[0] if cause.args else None
    return first if isinstance(first, int) else None


def is_contention(error: BaseException) -> bool:
    """Whether another worker was in the way: the same statement will work later."""
    return isinstance(error, OperationalError) and (
        code_of(error) in CONTENTION or "is locked" in str(error).lower()
    )


def is_missing_table(error: BaseException) -> bool:
    """Whether the table, or a column of it, is not there."""
    if not isinstance(error, OperationalError | ProgrammingError):
        return False
    return code_of(error) in MISSING_TABLE or str(error).startswith(("no such table", "no such column"))


def reason(error: BaseException) -> str:
    """Why a connection failed, in words that cannot hold a host, a user, a name or a password.

    Messages of servers and drivers quote those freely, each in its own way, so only known phrases pass.
    """
    text = str(error).lower()
    found = next((words for phrase, words in REASONS.items() if phrase in text), None)
    if found is not None:
        return found
    code = code_of(error)
    return type(error).__name__ if code is None else f"{type(error).__name__} {code}"


REASONS = {
    "connection refused": "connection refused",
    "name or service not known": "unknown host name",
    "could not translate host name": "unknown host name",
    "failed to resolve host": "unknown host name",
    "name resolution": "host name cannot be resolved",
    "no route to host": "no route to host",
    "network is unreachable": "network is unreachable",
    "no such file": "no such socket or file",
    "unable to open database file": "cannot open the database file",
    "password authentication failed": "password authentication failed",
    "no password supplied": "no password supplied",
    "access denied": "access denied",
    "no pg_hba.conf entry": "the server admits no such connection (pg_hba.conf)",
    "unknown database": "no such database",
    "too many clients": "too many connections",
    "too many connections": "too many connections",
    "connection slots are reserved": "too many connections",
    "couldn't get a connection": "no free connection in the pool",
    "starting up": "the server is starting up",
    "shutting down": "the server is shutting down",
    "in recovery mode": "the server is in recovery",
    "read-only": "the server is read-only",
    "terminating connection": "the server ended the connection",
    "closed the connection": "the server closed the connection",
    "gone away": "the server closed the connection",
    "lost connection": "the server closed the connection",
    "certificate": "TLS certificate refused",
    "ssl": "TLS failed",
    "timed out": "timed out",
    "timeout": "timed out",
    "does not exist": "no such database or user",
}


class OutageLog:
    """One line when the database goes and one when it is back, however many slots and processes notice.

    A pipe holds one byte; whoever reads it speaks for all until it puts it back.
    """

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.write(self._writer, b"x")

    def lost(self, error: BaseException) -> bool:
        """Log that the database does not answer; return whether this slot is the one that did."""
        try:
            os.read(self._reader, 1)
        except BlockingIOError:
            return False
        logger.warning("The database does not answer (%s). Trying until it does.", reason(error))
        return True

    def back(self, seconds: float) -> None:
        """Log that it answers again."""
        logger.warning("The database answers again after %.1f s.", seconds)
        os.write(self._writer, b"x")


class Link:
    """The calling thread's connection to the task table."""

    def __init__(self, alias: str, stop: Stop, outages: OutageLog, on_wait: Callable[[], None]) -> None:
        """`on_wait` is called before every attempt to connect again."""
        self.alias = alias
        self._on_wait = on_wait
        self._stop = stop
        self._outages = outages
        self._failures = 0

    @property
    def connection(self) -> BaseDatabaseWrapper:
        """The thread's connection."""
        return connections[self.alias]

    def tidy(self) -> None:
        """Between tasks: close connections that are broken or past the age that the project set.

        CONN_MAX_AGE 0, Django's default, means "at the end of a request" and a slot's loop has none: taken
        literally it costs a new connection for every task.
        """
        connection = self.connection
        if connection.close_at is not None and not connection.settings_dict["CONN_MAX_AGE"]:
            connection.close_at = None
        for each in connections.all(initialized_only=True):
            each.close_if_unusable_or_obsolete()

    def renew(self) -> None:
        """Let the next statement open a new connection, with a session that nobody has changed."""
        self._drop()

    def largest_value(self) -> tuple[int, str] | None:
        """How many bytes the server takes in one value, and the limit's name, if there is a limit."""
        if self.connection.vendor == "postgresql":
            return PG_LARGEST, "the most in a jsonb"
        if self.connection.vendor != "mysql":
            return None
        with self.connection.cursor() as cursor:
            cursor.execute("SELECT @@max_allowed_packet")
            return int(cursor.fetchone()[0]), "max_allowed_packet"

    def is_lost(self, error: BaseException) -> bool:
        """Whether the error means that this connection no longer works."""
        if not isinstance(error, OperationalError | InterfaceError | DatabaseError):
            return False
        connection = self.connection
        if connection.connection is None or code_of(error) in READ_ONLY:
            return True
        if not isinstance(error, OperationalError | InterfaceError):
            return False
        return not connection.is_usable()

    def reconnect(self, *, even_when_stopping: bool) -> bool:
        """Try until the database answers; return False when asked to stop meanwhile.

        With `even_when_stopping` only a request to end at once counts: a result waits to be stored.
        """
        began = time.monotonic()
        speaks = False
        while True:
            self._on_wait()
            self._drop()
            # The first time at once. A connection that opens and then fails again counts as a failure too.
            if self._failures and not self._pause(even_when_stopping=even_when_stopping):
                return False
            self._failures += 1
            try:
                self.connection.ensure_connection()
            except (DatabaseError, InterfaceError) as failure:
                speaks = speaks or self._outages.lost(failure)
            else:
                if speaks:
                    self._outages.back(time.monotonic() - began)
                return True

    def worked(self) -> None:
        """A statement went through: the next failure is a new one."""
        self._failures = 0

    def _pause(self, *, even_when_stopping: bool) -> bool:
        delay = min(FIRST_RETRY_SECONDS * 2 ** min(self._failures - 1, 10), LONGEST_RETRY_SECONDS)
        if not even_when_stopping:
            return not self._stop.wait(delay)
        if not self._stop.at_once:
            time.sleep(delay)
        return not self._stop.at_once

    def _drop(self) -> None:
        if not self.connection.in_atomic_block:
            discard(self.connection)
