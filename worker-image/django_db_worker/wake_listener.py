"""Listens for the announcements of new tasks: a thread with one connection for all slots of a process.

It relies on them only when it has been proven that they arrive: a slot has sent a notification on its own
connection, and it came here. Poolers that give each transaction another session swallow it. Then, and
whenever this connection is lost, the slots poll.
"""

import logging
import os
import random
import select
import signal
import threading
import time
import uuid
from collections import deque
from contextlib import suppress
from typing import Any

from django.db import DatabaseError, InterfaceError
from django.db.backends.base.base import BaseDatabaseWrapper

from .database import FIRST_RETRY_SECONDS, PROBE_SECONDS, answering, separate_connection
from .next_due import EVERY_SECONDS, NextDue
from .sessions import discard
from .trouble import reason
from .wake_trigger import NAME, channel_of, read_announcement, table_that_announces, wait_statement
from .wakes import Wakes

logger = logging.getLogger("django_tasks_db")

LONGEST_RETRY_SECONDS = 60.0
# What a pooler swallows once it will swallow again, unless the project's settings change.
SWALLOWED_SECONDS = 600.0
# A connection that may be lost without anybody's notice is tested as often.
SILENCE_SECONDS = 30.0
# So that a process whose tasks are short does not tell enqueuers before and after each of them.
BUSY_SECONDS = 0.25
CLOSING_SECONDS = 2.0


class _SwallowedError(Exception):
    """A notification has not come back."""


class WakeListener:
    """The thread. It ends with the process, or when it is closed."""

    def __init__(self, alias: str, table: int, wakes: Wakes) -> None:
        """Start the thread; ``table`` is the oid of the task table."""
        self._alias = alias
        self._table = table
        self._wakes = wakes
        self._reader, self._writer = os.pipe()
        for end in (self._reader, self._writer):
            os.set_blocking(end, False)
        self._closing = False
        self._again = False
        # Channels and payloads, as they came.
        self._heard: deque[tuple[str, str]] = deque()
        self._awaits = False
        self._thread = threading.Thread(target=self._run, name="wakes", daemon=True)
        self._thread.start()

    def poke(self) -> None:
        """See Listening."""
        # If the pipe is full, the thread will look anyway.
        with suppress(BlockingIOError):
            os.write(self._writer, b"x")

    def again(self) -> None:
        """See Listening."""
        self._again = True
        self.poke()

    def close(self) -> None:
        """See Listening."""
        self._closing = True
        self.poke()
        # It may be connecting to a server that does not answer.
        self._thread.join(CLOSING_SECONDS)

    def _run(self) -> None:
        # A signal that this thread got would not wake up the main thread.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        failures = 0
        while not self._closing:
            began = time.monotonic()
            self._again = False
            pause = self._try()
            failures = 0 if time.monotonic() - began > LONGEST_RETRY_SECONDS else failures + 1
            if pause is None:
                delay = min(FIRST_RETRY_SECONDS * 2 ** min(failures, 10), LONGEST_RETRY_SECONDS)
                pause = delay * random.uniform(0.5, 1.0)  # noqa: S311
            until = time.monotonic() + pause
            while not (self._closing or self._again) and (left := until - time.monotonic()) > 0:
                self._sleep(None, left)

    def _try(self) -> float | None:
        """Listen for as long as it works; return for how long to pause, None for a growing pause."""
        connection = separate_connection(self._alias)
        try:
            self._listen(connection)
        except (DatabaseError, InterfaceError, OSError) as error:
            # The slots notice for themselves, and log, if it is not only this connection.
            logger.debug("New tasks do not wake this process for now (%s).", reason(error))
            return None
        except _SwallowedError:
            logger.info("Notifications do not come through to this process, so it polls. Is there a pooler?")
            return SWALLOWED_SECONDS
        except Exception:
            logger.exception("New tasks do not wake this process, so it polls.")
            return SWALLOWED_SECONDS
        finally:
            self._wakes.ask_for_probe(None)
            self._wakes.listens(proven=False)
            self._awaits = False
            discard(connection)
        return None

    def _listen(self, connection: BaseDatabaseWrapper) -> None:
        with answering(connection):
            connection.connect()
        raw: Any = connection.connection
        if not hasattr(raw, "pgconn"):
            # Only psycopg 3 has it.
            raise _SwallowedError
        self._heard.clear()
        raw.add_notify_handler(lambda notice: self._heard.append((notice.channel, notice.payload)))
        self._prove(connection)
        if self._closing:
            return
        if table_that_announces(connection) != self._table:
            raise _SwallowedError
        self._execute(connection, f"LISTEN {channel_of(self._table)}")
        self._wakes.listens(proven=True)
        logger.info("New tasks wake this process.")
        next_due = NextDue(connection, self._wakes.wanted)
        silent_at = time.monotonic() + SILENCE_SECONDS
        while not self._closing:
            now = time.monotonic()
            if now >= silent_at:
                self._execute(connection, "SELECT 1")
                silent_at = now + SILENCE_SECONDS
            self._answer(now)
            self._tell(connection, now)
            self._look_ahead(connection, next_due)
            times = [silent_at, self._wakes.answer_at(), self._busy_at(now), *self._due_times()]
            self._receive(connection, min(at for at in times if at is not None) - time.monotonic())

    def _prove(self, connection: BaseDatabaseWrapper) -> None:
        """Have a slot send a notification, and wait until it has come.

        Listening to nothing else until then, because a pooler may leave that behind in another's session.

        Raises:
            _SwallowedError: it has not come.
        """
        channel = f"{NAME}_{uuid.uuid4().hex}"
        self._execute(connection, f"LISTEN {channel}")
        self._wakes.ask_for_probe(channel)
        until: float | None = None
        while not self._closing and not any(heard == channel for heard, _ in self._heard):
            if until is None and self._wakes.probe_is_taken:
                until = time.monotonic() + PROBE_SECONDS
            if until is not None and time.monotonic() > until:
                self._execute(connection, f"UNLISTEN {channel}")
                raise _SwallowedError
            self._receive(connection, PROBE_SECONDS / 10)
        self._execute(connection, f"UNLISTEN {channel}")
        self._heard.clear()

    def _answer(self, now: float) -> None:
        """Pass on what was announced."""
        channel = channel_of(self._table)
        while self._heard:
            heard, payload = self._heard.popleft()
            announcement = read_announcement(payload) if heard == channel else None
            if announcement is None or not announcement.is_for(self._wakes.wanted):
                continue
            if announcement.ready:
                self._wakes.announced(now)
            if announcement.due is not None:
                self._wakes.due_soon(now, announcement.due - time.time())

    def _tell(self, connection: BaseDatabaseWrapper, now: float) -> None:
        """Tell enqueuers whether this process waits for tasks."""
        answer_at = self._wakes.answer_at()
        busy = self._wakes.busy_seconds(now)
        if self._awaits and ((answer_at is not None and now < answer_at) or busy >= BUSY_SECONDS):
            # It knows that there are more tasks. Until it has rested, nobody needs to say so again.
            self._execute(connection, "SELECT pg_advisory_unlock_all()")
            self._awaits = False
            self._wakes.awaits(None)
        rested = answer_at is None or now >= answer_at
        if rested and not self._awaits and not busy:
            self._execute(connection, *wait_statement(self._table, self._wakes.wanted))
            self._awaits = True
            self._wakes.awaits(time.monotonic())
            self._wakes.forget_due()
            # For what was committed before the enqueuers could know.
            self._wakes.look_now(now)
        elif rested and answer_at is not None:
            self._wakes.look_now(now)

    def _look_ahead(self, connection: BaseDatabaseWrapper, next_due: NextDue) -> None:
        """See to deferred tasks, while enqueuers know that this process waits: they announce the others."""
        if not self._awaits:
            return
        now = time.monotonic()
        due_at = self._wakes.due_at()
        if due_at is not None and now >= due_at:
            self._wakes.is_due(now)
        if self._wakes.asks_for_due(now, listener=True):
            with answering(connection, PROBE_SECONDS):
                self._wakes.note_due(now, next_due.seconds(EVERY_SECONDS))

    def _due_times(self) -> list[float | None]:
        if not self._awaits:
            return []
        return [self._wakes.due_at(), self._wakes.ask_at()]

    def _busy_at(self, now: float) -> float | None:
        busy = self._wakes.busy_seconds(now)
        return now + BUSY_SECONDS - busy if self._awaits and busy else None

    def _execute(self, connection: BaseDatabaseWrapper, sql: str, values: Any = None) -> None:
        with answering(connection, PROBE_SECONDS), connection.cursor() as cursor:
            cursor.execute(sql, values)

    def _receive(self, connection: BaseDatabaseWrapper, seconds: float) -> None:
        """Wait for notifications, or until poked."""
        raw: Any = connection.connection
        if self._heard:
            return
        if self._sleep(raw.pgconn.socket, seconds):
            with connection.wrap_database_errors:
                raw.pgconn.consume_input()
        while notice := raw.pgconn.notifies():
            self._heard.append(
                (notice.relname.decode(errors="replace"), notice.extra.decode(errors="replace"))
            )

    def _sleep(self, descriptor: int | None, seconds: float) -> bool:
        """Sleep until poked; return whether there is something to read before that."""
        poll = select.poll()
        poll.register(self._reader, select.POLLIN)
        if descriptor is not None:
            poll.register(descriptor, select.POLLIN)
        ready = {at for at, _ in poll.poll(max(0.0, seconds) * 1000)}
        if self._reader in ready:
            with suppress(BlockingIOError):
                os.read(self._reader, 4096)
        return descriptor in ready
