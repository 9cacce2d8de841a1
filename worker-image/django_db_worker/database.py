"""One slot's connection to the task table: kept open between tasks, and replaced when it breaks."""

import logging
import os
import random
import select
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.apps import apps
from django.db import DatabaseError, InterfaceError, ProgrammingError, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from django.db.utils import load_backend

from .errors import RefusedError
from .refusal import ask_why
from .sessions import discard
from .stop import Stop
from .trouble import Trouble, is_databases, is_understood, reason, trouble_of
from .watchdog import ANSWER_SECONDS, CUT_SECONDS, Watchdog, cut, has_hung_up, keep_alive, socket_of

logger = logging.getLogger("django_tasks_db")

FIRST_RETRY_SECONDS = 0.1
LONGEST_RETRY_SECONDS = 5.0
# PostgreSQL's JENTRY_OFFLENMASK. The server refuses more, but libpq then takes minutes to build the message.
PG_LARGEST = 2**28 - 1
# If the project's OPTIONS set no limit. psycopg's default is 130 s, and mysqlclient waits as long as the
# kernel: two minutes.
CONNECT_SECONDS = 10
# For an answer to `SELECT 1`, which waits for no lock.
PROBE_SECONDS = 5.0
# A worker that has been refused for so long ends, so that it is started again, with a new password.
REFUSED_SECONDS = 60.0

_watchdog = Watchdog()


def how_to_run(command: str) -> str:
    """Return how a user runs a command of ours here: without the app, manage.py alone does not know it."""
    if apps.is_installed("django_db_worker"):
        return f"manage.py {command}"
    return f"python {Path(__file__).parent} manage.py {command}"


class OutageLog:
    """Logs one line when an outage begins and one when it ends, however many slots and processes notice.

    A pipe holds one byte. The slot that reads it logs for all slots, until it puts the byte back. There is a
    pipe for a database that is away, one for a table that is busy, and one for a missing index, which is
    never put back. A fourth one is empty once the whole worker ends.
    """

    def __init__(self) -> None:
        self._tokens = {trouble: _token() for trouble in (Trouble.AWAY, Trouble.BUSY)}
        self._index_token = _token()
        self._going_on = _token()

    def away(self, error: BaseException) -> bool:
        """Log that the database cannot be used; return False if another slot has logged it."""
        taken = self._take(Trouble.AWAY)
        if taken:
            if trouble_of(error) is Trouble.LOST:
                logger.warning("The database does not answer (%s). Trying until it does.", reason(error))
            else:
                logger.warning("The database cannot be used (%s). Trying until it can.", reason(error))
        return taken

    def back(self, seconds: float) -> None:
        """Log that the database answers again."""
        logger.warning("The database answers again after %.1f s.", seconds)
        self.put_back(Trouble.AWAY)

    def busy(self, error: BaseException) -> bool:
        """Log that statements are ended again and again; return False if another slot has logged it."""
        taken = self._take(Trouble.BUSY)
        if taken:
            logger.warning("The task table is busy (%s). Trying until it is not.", reason(error))
        return taken

    def free(self, seconds: float) -> None:
        """Log that statements work again."""
        logger.warning("The task table works again after %.1f s.", seconds)
        self.put_back(Trouble.BUSY)

    def index_missing(self) -> None:
        """Log, once in a worker's life, what claims cost without the index and how to get it."""
        if _taken(self._index_token):
            logger.warning(
                "The task table has no index for claims, so each looks at all READY tasks before its own, "
                "also those of other queues and deferred ones. `%s` creates it.",
                how_to_run("db_worker_setup"),
            )

    def _take(self, trouble: Trouble) -> bool:
        return _is_there(self._going_on) and _taken(self._tokens[trouble])

    def put_back(self, trouble: Trouble) -> None:
        """Let any slot log the next outage."""
        os.write(self._tokens[trouble][1], b"x")

    def end(self) -> None:
        """Log no more outages: the worker ends because of this one, and its slots leave one after another."""
        _taken(self._going_on)


def _is_there(token: tuple[int, int]) -> bool:
    poll = select.poll()
    poll.register(token[0], select.POLLIN)
    return bool(poll.poll(0))


def _taken(token: tuple[int, int]) -> bool:
    try:
        os.read(token[0], 1)
    except BlockingIOError:
        return False
    return True


def _token() -> tuple[int, int]:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.write(writer, b"x")
    return reader, writer


class Link:
    """The calling thread's connection to the task table."""

    def __init__(
        self,
        alias: str,
        stop: Stop,
        outages: OutageLog,
        *,
        on_wait: Callable[[], None],
        on_reconnect: Callable[[], None],
    ) -> None:
        """``on_wait`` is called before every attempt to connect, ``on_reconnect`` after one not the first."""
        self.alias = alias
        self._on_wait = on_wait
        self._on_reconnect = on_reconnect
        self._was_connected = False
        self._stop = stop
        self._outages = outages
        # How many in a row.
        self._failures = 0
        self._pause_seconds = 0.0
        # What this slot has logged, and when (monotonic).
        self._said: dict[Trouble, float] = {}
        self._refused_since: float | None = None
        _limit_connecting(self.connection)
        connection_created.connect(_connected, dispatch_uid="django_db_worker")

    @property
    def connection(self) -> BaseDatabaseWrapper:
        """The thread's connection."""
        return connections[self.alias]

    def open(self, *, even_when_stopping: bool) -> bool:
        """Wait until there is a working connection; return False if asked to stop.

        With ``even_when_stopping``, for a result that has to be stored, only a request to end at once counts.

        Raises:
            RefusedError: without ``even_when_stopping``, if the server has refused the user or the password
                for a minute.
        """
        while True:
            if self._pause_seconds and not self._pause(even_when_stopping=even_when_stopping):
                return False
            if self._is_open():
                self._was_connected = True
                return True
            self._on_wait()
            try:
                with self.answering():
                    self.connection.ensure_connection()
            except (DatabaseError, InterfaceError) as error:
                self._not_connected(error, may_end=not even_when_stopping)
            else:
                self._refused_since = None
                if self._was_connected:
                    self._on_reconnect()
                self._was_connected = True
                return True

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Let a statement of the slot's own raise if there is no answer within half a minute."""
        if self.connection.vendor == "sqlite":
            yield
            return
        with answering(self.connection):
            yield

    def met(self, error: BaseException) -> Trouble:
        """Note an error, and return what it asks for.

        After LOST, AWAY and BUSY, call ``open``, which waits, and try again. After LOST and AWAY it is not
        known whether a commit took place.
        """
        trouble = trouble_of(error)
        connection = self.connection
        if connection.in_atomic_block:
            # In a transaction that somebody else has begun, such as a test case of the project.
            return Trouble.OTHER
        # A receiver that raises an error of its own may have closed the connection before. But Django itself
        # raises ProgrammingError.
        may_be_lost = is_databases(error) or isinstance(error, ProgrammingError)
        if trouble in {Trouble.OTHER, Trouble.NOT_MIGRATED} and may_be_lost and connection.connection is None:
            trouble = Trouble.LOST
        if trouble is Trouble.DENIED:
            trouble = Trouble.AWAY
        if trouble in {Trouble.LOST, Trouble.AWAY}:
            self.renew()
            # A single broken connection is nothing special. If the next one breaks as well, it is an outage.
            self._fail(at_once=trouble is Trouble.LOST)
            if self._pause_seconds:
                self._say(Trouble.AWAY, error)
        elif trouble is Trouble.BUSY:
            self._fail()
            # A deadlock now and then is how databases work.
            if self._failures > 1:
                self._say(Trouble.BUSY, error)
                # A task may have set a limit in the session.
                self.renew()
        return trouble

    def worked(self) -> None:
        """Note that a statement succeeded: the next failure is the first one again."""
        self._failures = 0
        if self._said:
            for trouble, since in self._said.items():
                tell = self._outages.back if trouble is Trouble.AWAY else self._outages.free
                tell(time.monotonic() - since)
            self._said.clear()

    def check(self) -> None:
        """Test a connection that has been unused for long, and drop it if it has silently broken."""
        if self._is_open() and not self.connection.in_atomic_block:
            try:
                with (
                    _watchdog.limit(self.connection, PROBE_SECONDS, 0.0),
                    self.connection.cursor() as cursor,
                ):
                    cursor.execute("SELECT 1")
                    cursor.fetchone()
            except (DatabaseError, InterfaceError):
                self.renew()

    def renew(self) -> None:
        """Close the connection; the next statement opens a new one, with a fresh session."""
        if not self.connection.in_atomic_block:
            discard(self.connection)

    def largest_value(self) -> tuple[int, str] | None:
        """Return how many bytes the server accepts in a value, and the limit's name; None without a limit."""
        if self.connection.vendor == "postgresql":
            return PG_LARGEST, "the most in a jsonb"
        if self.connection.vendor != "mysql":
            return None
        with self.connection.cursor() as cursor:
            cursor.execute("SELECT @@max_allowed_packet")
            return int(cursor.fetchone()[0]), "max_allowed_packet"

    def tidy(self) -> None:
        """Close connections that are broken, or older than the project allows: between tasks.

        CONN_MAX_AGE=0, Django's default, means "until the end of the request", and a slot has no requests.
        Taken literally, every task would need a new connection.
        """
        connection = self.connection
        if connection.close_at is not None and not connection.settings_dict["CONN_MAX_AGE"]:
            connection.close_at = None
        for each in connections.all(initialized_only=True):
            if each.errors_occurred and each.vendor != "sqlite":
                # After an error, Django tests the connection with a statement.
                with _watchdog.limit(each, PROBE_SECONDS, 0.0):
                    each.close_if_unusable_or_obsolete()
            else:
                each.close_if_unusable_or_obsolete()

    def _is_open(self) -> bool:
        connection = self.connection
        if connection.connection is None:
            return False
        if connection.in_atomic_block or not has_hung_up(connection.connection):
            return True
        # Nothing has been sent, so nothing is in doubt.
        self.renew()
        return False

    def _not_connected(self, error: BaseException, *, may_end: bool) -> None:
        # Connecting may have failed half way.
        self.renew()
        if not is_understood(error) or type(error.__cause__).__name__ == "PoolTimeout":
            error = ask_why(self.connection) or error
        self._fail()
        self._say(Trouble.AWAY, error)
        if trouble_of(error) is not Trouble.DENIED:
            self._refused_since = None
            return
        now = time.monotonic()
        if self._refused_since is None:
            self._refused_since = now
        elif may_end and now - self._refused_since >= REFUSED_SECONDS:
            self._outages.end()
            raise RefusedError from error

    def _fail(self, *, at_once: bool = False) -> None:
        self._failures += 1
        if at_once and self._failures == 1:
            return
        delay = min(FIRST_RETRY_SECONDS * 2 ** min(self._failures - 1, 10), LONGEST_RETRY_SECONDS)
        # At random, so that the slots do not get in one another's way again.
        self._pause_seconds = delay * random.uniform(0.5, 1.0)  # noqa: S311

    def _pause(self, *, even_when_stopping: bool) -> bool:
        delay, self._pause_seconds = self._pause_seconds, 0.0
        if not even_when_stopping:
            return not self._stop.wait(delay)
        if not self._stop.at_once:
            time.sleep(delay)
        return not self._stop.at_once

    def _say(self, trouble: Trouble, error: BaseException) -> None:
        if trouble not in self._said:
            say = self._outages.away if trouble is Trouble.AWAY else self._outages.busy
            if say(error):
                self._said[trouble] = time.monotonic()

    def close(self) -> None:
        """Leave the logging of an outage that this slot has noticed to the others."""
        for trouble in self._said:
            self._outages.put_back(trouble)
        self._said.clear()


@contextmanager
def limited(alias: str) -> Iterator[None]:
    """Around what Django does with databases before there is a slot: none keeps it for longer than a slot.

    ``alias`` is the task table's database. No thread is left afterwards, because the process is to be forked.
    """
    _limit_connecting(connections[alias])
    timer = threading.Timer(ANSWER_SECONDS, _cut_all, [connections.all()])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


@contextmanager
def answering(connection: BaseDatabaseWrapper, seconds: float | None = None) -> Iterator[None]:
    """Let a statement that is not a task's raise if there is no answer in time.

    With ``seconds``, that time is not the usual one, and the connection is cut when it is over.
    """
    limits = (ANSWER_SECONDS, CUT_SECONDS) if seconds is None else (seconds, 0.0)
    with _watchdog.limit(connection, *limits):
        yield


def separate_connection(alias: str) -> BaseDatabaseWrapper:
    """Return a new connection of the calling thread's own, not opened, with the project's settings.

    It is not one of a pool, which has as many connections as there are slots.
    """
    settings = connections[alias].settings_dict
    options = {name: value for name, value in settings["OPTIONS"].items() if name != "pool"}
    own = {**settings, "OPTIONS": options, "CONN_MAX_AGE": None, "CONN_HEALTH_CHECKS": False}
    connection: BaseDatabaseWrapper = load_backend(settings["ENGINE"]).DatabaseWrapper(own, alias)
    _limit_connecting(connection)
    return connection


def _cut_all(every: Iterable[BaseDatabaseWrapper]) -> None:
    for each in every:
        if each.connection is not None:
            cut(socket_of(each.connection))


def _limit_connecting(connection: BaseDatabaseWrapper) -> None:
    """Limit how long drivers try to connect to the task table's database, unless the project has set a limit.

    PyMySQL's connect_timeout covers only the first step, so the limits for reading and writing are set as
    well, and removed when the connection is there. mysqlclient's covers all but its SET NAMES, and its limits
    could not be removed.
    """
    options: dict[str, Any] = connection.settings_dict["OPTIONS"]
    driver = getattr(getattr(connection, "Database", None), "__name__", None)
    elsewhere = "service" in options or "PGCONNECT_TIMEOUT" in os.environ or "read_default_file" in options
    if driver in {"psycopg", "psycopg2", "MySQLdb", "pymysql"} and not elsewhere:
        options.setdefault("connect_timeout", CONNECT_SECONDS)
    if driver == "pymysql" and not {"read_timeout", "write_timeout"} & options.keys():
        options["read_timeout"] = options["write_timeout"] = CONNECT_SECONDS
        _unlimited.add(connection.alias)
    _watched.add(connection.alias)


# Aliases of the databases with a task table, and of those whose limits for reading and writing are removed.
_watched: set[str] = set()
_unlimited: set[str] = set()


def _connected(*, connection: BaseDatabaseWrapper, **_: Any) -> None:
    if connection.alias in _watched:
        raw: Any = connection.connection
        keep_alive(raw, connection.settings_dict["OPTIONS"])
        if connection.alias in _unlimited:
            raw._read_timeout = raw._write_timeout = None  # noqa: SLF001
