"""One database's task table, over one connection, from one thread."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
import traceback
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from django.db import Error as DjangoDatabaseError

from django_task_operator.tasktable import orm
from django_task_operator.tasktable.durations import Watch
from django_task_operator.tasktable.engines import Limits
from django_task_operator.tasktable.errors import (
    AuthenticationFailed,
    ConnectionRefused,
    DatabaseError,
    DatabaseFailed,
    HostIsLoopback,
    HostNotAllowed,
    TokenFailed,
)
from django_task_operator.tasktable.failures import classified
from django_task_operator.tasktable.networks import Networks, addresses_of
from django_task_operator.tasktable.queues import is_indexed, layout, unserved_queues
from django_task_operator.tasktable.running import MOST_ROWS, StartTimes, running_rows, settle_row
from django_task_operator.tasktable.statement import compile_statement
from django_task_operator.tasktable.tokens import request
from django_task_operator.tasktable.values import Sample

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from django.db.backends.base.base import BaseDatabaseWrapper

    from django_task_operator.tasktable.statement import Answer, Layout, Statement
    from django_task_operator.tasktable.tokens import Token
    from django_task_operator.tasktable.url import DatabaseURL
    from django_task_operator.tasktable.values import (
        Durations,
        Listing,
        RunningRow,
        Selection,
        Settlement,
        UnservedQueue,
    )

log = logging.getLogger(__name__)

# A search for queues that no worker serves must not delay the next sample for long.
SEARCH_SECONDS = 0.5
# How soon a new index is noticed.
INDEX_SECONDS = 60.0

EVERYWHERE = Networks()


class Table(Protocol):
    """A task table that ``Databases`` polls."""

    def sample(self, wanted: Mapping[Selection, int]) -> Sample:
        """Count what each selection has, its ready rows up to the number given with it."""

    def waiting_queues(self, served: Collection[Selection]) -> frozenset[UnservedQueue]:
        """Return queues with due rows, of the backends of ``served``, that none of ``served`` takes."""

    def durations(self, selections: Collection[Selection]) -> Mapping[Selection, Durations]:
        """Return how long the tasks of each selection took that have ended since the last call."""

    def running(self) -> Listing:
        """List the RUNNING rows of all workers."""

    def settle(self, row: RunningRow, settlement: Settlement) -> bool:
        """Change a row that is still RUNNING since it was listed; whether it was."""

    def close(self) -> None:
        """Close the connection."""

    def interrupt(self) -> None:
        """Make a call that hangs in another thread fail."""


@dataclass(frozen=True, slots=True)
class _Poll:
    """A statement that is ready to be sent repeatedly."""

    statement: Statement
    layout: Layout
    text: str
    settings: str
    made_at: float

    def is_stale(self) -> bool:
        """Whether it is time to check if the index has been created."""
        return not self.layout.indexed and time.monotonic() > self.made_at + INDEX_SECONDS

    def execute(self, connection: BaseDatabaseWrapper) -> tuple[Answer, float]:
        started = time.monotonic()
        with connection.cursor() as cursor:
            cursor.execute(self.settings + self.text)
            while self.settings and cursor.nextset():
                pass  # the settings' answers come first
            rows = cursor.fetchall()
        seconds = time.monotonic() - started
        return self.statement.read(rows), seconds


class TaskTable:
    """django-tasks-db's table at a URL.

    It connects at the first call and again after an error. Except ``interrupt``, all is for one thread.
    """

    def __init__(
        self,
        url: DatabaseURL,
        *,
        networks: Networks = EVERYWHERE,
        connect_timeout: float = 5.0,
        statement_timeout: float = 10.0,
    ) -> None:
        """Store where the table is, and which networks it may be in; timeouts are in seconds."""
        self._url = url
        self._networks = networks
        self._engine = url.engine
        self._limits = Limits(connect_timeout, statement_timeout)
        self._connection: BaseDatabaseWrapper | None = None
        self._poll: _Poll | None = None
        self._pooled = False
        self._start_times = StartTimes()
        self._token: Token | None = None
        self._watch = Watch()

    def sample(self, wanted: Mapping[Selection, int]) -> Sample:
        """Count what each selection has, in one statement.

        The call sends two more statements if there is a queue that a selection of every queue did not know.

        Args:
            wanted: each selection with the number of ready rows that are worth counting.

        Raises:
            DatabaseError: the connection is closed; the next call opens a new one.
        """
        return self._asked(lambda connection: self._sample(connection, wanted))

    def _sample(self, connection: BaseDatabaseWrapper, wanted: Mapping[Selection, int]) -> Sample:
        poll = self._poll
        if poll is None or poll.statement.wanted != wanted or poll.is_stale():
            poll = self._prepare(connection, wanted)
        answer, seconds = poll.execute(connection)
        if answer.unknown_queues:
            answer, seconds = self._prepare(connection, wanted).execute(connection)
        return Sample(answer.at, seconds, answer.demands, indexed=poll.layout.indexed)

    def _prepare(self, connection: BaseDatabaseWrapper, wanted: Mapping[Selection, int]) -> _Poll:
        known = self._poll.layout if self._poll else None
        now = layout(connection, wanted, known)
        statement = compile_statement(connection, wanted, now)
        with connection.cursor() as cursor:
            # The values are part of the text, quoted by the driver: each poll sends it unchanged, and the
            # planner sees the values that decide whether it can use a partial index.
            text = cursor.mogrify(statement.sql, statement.params)
        settings = self._engine.session_settings(self._limits) if self._pooled else []
        prefix = "".join(f"SET LOCAL {setting}; " for setting in settings)
        self._poll = _Poll(statement, now, text, prefix, time.monotonic())
        return self._poll

    def waiting_queues(self, served: Collection[Selection]) -> frozenset[UnservedQueue]:
        """Return queues with due rows, of the backends of ``served``, that none of ``served`` takes.

        Cheap with the index; without it as costly as a sample.

        Raises:
            DatabaseError: as ``sample``.
        """
        return self._asked(lambda connection: self._waiting_queues(connection, served))

    def _waiting_queues(
        self, connection: BaseDatabaseWrapper, served: Collection[Selection]
    ) -> frozenset[UnservedQueue]:
        indexed = self._poll.layout.indexed if self._poll else is_indexed(connection)
        return unserved_queues(connection, served, indexed=indexed, seconds=SEARCH_SECONDS)

    def durations(self, selections: Collection[Selection]) -> Mapping[Selection, Durations]:
        """Return how long the tasks took that were running at an earlier call, and have ended since the last.

        Two short statements with the index. Without it, nothing is measured: a look would be as costly as a
        sample.

        Raises:
            DatabaseError: as ``sample``.
        """
        if self._poll is None or not self._poll.layout.indexed:
            return {}
        return self._asked(
            lambda connection: self._within_limits(connection, self._watch.look, selections, time.monotonic())
        )

    def running(self) -> Listing:
        """List the RUNNING rows, of every backend and queue.

        Cheap with the index; without it as costly as a sample.

        Raises:
            DatabaseError: as ``sample``.
        """
        listing = self._asked(lambda connection: self._within_limits(connection, running_rows, MOST_ROWS))
        return listing if self._engine.instants_have_zones else self._start_times.of(listing)

    def settle(self, row: RunningRow, settlement: Settlement) -> bool:
        """Settle a row if it is still RUNNING since it was listed, in one statement; return whether it was.

        Raises:
            DatabaseError: as ``sample``; PermissionDenied if the user may not update the table.
        """
        return self._asked(lambda connection: self._within_limits(connection, settle_row, row, settlement))

    def _within_limits[*Given, T](
        self,
        connection: BaseDatabaseWrapper,
        ask: Callable[[BaseDatabaseWrapper, *Given], T],
        *given: *Given,
    ) -> T:
        """Run a query with the timeout: the session already has it, except behind a pooler."""
        if not self._pooled:
            return ask(connection, *given)
        # An exception ends the connection, and the transaction with it.
        connection.set_autocommit(False)
        with connection.cursor() as cursor:
            for setting in self._engine.session_settings(self._limits):
                cursor.execute(f"SET LOCAL {setting}")
        answer = ask(connection, *given)
        connection.commit()
        connection.set_autocommit(True)
        return answer

    def close(self) -> None:
        """Close the connection, if there is one."""
        connection, self._connection, self._poll = self._connection, None, None
        if connection is not None:
            # A connection that is already broken may raise again.
            with contextlib.suppress(Exception):
                connection.close()

    def interrupt(self) -> None:
        """Shut down the socket, so that a call that hangs in another thread fails."""
        connection = self._connection
        descriptor = None
        with contextlib.suppress(Exception):
            # The other thread may be closing it at the same time.
            if connection is not None and connection.connection is not None:
                descriptor = self._engine.socket_of(connection.connection)
        if descriptor is not None:
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as copy:
                copy.shutdown(socket.SHUT_RDWR)

    def _connected(self) -> BaseDatabaseWrapper:
        if self._connection is not None:
            return self._connection
        kept = self._token
        self._require_token()
        try:
            return self._connect_either_way()
        except DjangoDatabaseError as error:
            if self._token is None or self._token is not kept or not self._is_refused(error):
                raise
        # It may have been revoked since it was kept: once, another one is tried.
        self.close()
        self._token = None
        self._require_token(kept.value)
        return self._connect_either_way()

    def _is_refused(self, error: DjangoDatabaseError) -> bool:
        return isinstance(
            classified(error, self._engine, self._limits, connected=False), AuthenticationFailed
        )

    def _connect_either_way(self) -> BaseDatabaseWrapper:
        try:
            return self._connect()
        except DjangoDatabaseError as error:
            if self._pooled or not self._engine.is_poolers_refusal(error):
                raise
        self._pooled = True
        return self._connect()

    def _require_allowed_host(self) -> None:
        """Check where the URL's hosts are, before anything is sent there.

        Raises:
            HostIsLoopback: a host is the operator's own pod, which is not allowed.
            HostNotAllowed: a host is in another network that is not allowed.
        """
        if self._networks == EVERYWHERE:
            return
        hosts = f"{self._url.host},{self._url.options.get('hostaddr', '')}"
        if not all(map(self._networks.permit, addresses_of(hosts))):
            raise HostIsLoopback if self._url.is_loopback else HostNotAllowed

    def _require_token(self, refused: str = "") -> None:
        """Have a token for the next connection, if the URL's password is one, and not one that was refused.

        Raises:
            TokenFailed: there is none.
        """
        if self._url.token and not (self._token and self._token.is_fresh(datetime.now(UTC))):
            before = self._token.value if self._token else refused
            self._token = None
            known = [self._url.text, *([f"x://x:{before}@x/"] if before else [])]
            self._token = request(self._url.token, known=known)

    def _connect(self) -> BaseDatabaseWrapper:
        connection = self._connection = orm.new_connection(
            self._url, self._limits, pooled=self._pooled, token=self._token.value if self._token else ""
        )
        with connection.cursor() as cursor:
            for statement in self._engine.session_statements(connection, self._limits):
                cursor.execute(statement)
        if not self._pooled and not self._engine.has_settings(connection, self._limits):
            # They go with each statement from now on, and the connection is as good as another.
            self._pooled = True
        return connection

    def _asked[T](self, ask: Callable[[BaseDatabaseWrapper], T]) -> T:
        if self._connection is None:
            self._require_allowed_host()
        try:
            return ask(self._connected())
        except TokenFailed as failed:
            # Where a token was refused before, the driver's exception must not be chained to it.
            self.close()
            failure: DatabaseError = failed
        except Exception as error:  # noqa: BLE001  the one door that drivers' exceptions come through
            connected = self._connection is not None and self._connection.connection is not None
            self.close()
            failure = classified(error, self._engine, self._limits, connected=connected)
            if isinstance(failure, AuthenticationFailed):
                # It may have been revoked.
                self._token = None
            if self._url.is_loopback and isinstance(failure, ConnectionRefused):
                failure = HostIsLoopback()
            if type(failure) is DatabaseFailed:
                # It may be a defect of ours: the place tells, without the exception's text.
                place = traceback.extract_tb(error.__traceback__)[-1]
                log.warning("database failed", extra={"at": f"{place.filename}:{place.lineno}"})
        # Outside of the handler: the driver's exception quotes host and user, and must not be chained.
        raise failure
