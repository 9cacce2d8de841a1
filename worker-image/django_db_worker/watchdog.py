"""Ends a slot's own statement when nobody answers: drivers wait for ever, and networks drop packets silently.

Two things watch. The kernel does, where it is told to (`keep_alive`): it notices that the other machine no
longer acknowledges anything. It cannot notice what is between: a pooler or a sidecar that acknowledges and
lost its own connection, or a server that waits for a lock. For that a thread looks once a second for a
statement that has taken too long (`Watchdog`). A task's own statements may take as long as they like.
"""

import os
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

# Packets that nobody acknowledges: from the first one that is lost until the connection counts as broken.
# https://man7.org/linux/man-pages/man7/tcp.7.html
IDLE_SECONDS, PROBE_SECONDS, PROBES = 10, 5, 2
UNACKNOWLEDGED_SECONDS = 15
# A slot's own statement: after the first the server is asked to end it, after the second the connection is
# cut. Together they are less than the minute after which the supervisor calls a slot stuck.
ANSWER_SECONDS = 20.0
CUT_SECONDS = 10.0
TICK_SECONDS = 0.5


def socket_of(raw: Any) -> int | None:
    """The file descriptor of a driver's connection; None if it has none now, or none that is known."""
    with suppress(Exception):
        if hasattr(raw, "pgconn"):
            # psycopg
            return int(raw.pgconn.socket)
        if hasattr(raw, "_sock"):
            # PyMySQL has no other way to it.
            return int(raw._sock.fileno())  # noqa: SLF001
        # mysqlclient, psycopg2
        return int(raw.fileno())
    return None


def keep_alive(raw: Any, options: Mapping[str, object]) -> None:
    """Have the kernel notice that a connection is broken, but for what the project's own `options` say.

    The options' names are libpq's. Where a connection has no TCP socket nothing happens.
    """
    descriptor = socket_of(raw)
    if descriptor is None or options.get("keepalives") in {0, "0"}:
        return
    # macOS lacks some of them.
    wanted = {
        "keepalives_idle": ("TCP_KEEPIDLE", IDLE_SECONDS),
        "keepalives_interval": ("TCP_KEEPINTVL", PROBE_SECONDS),
        "keepalives_count": ("TCP_KEEPCNT", PROBES),
        "tcp_user_timeout": ("TCP_USER_TIMEOUT", UNACKNOWLEDGED_SECONDS * 1000),
    }
    with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as end:
        if end.family not in {socket.AF_INET, socket.AF_INET6}:
            return
        end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, (option, value) in wanted.items():
            if name not in options and hasattr(socket, option):
                end.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def has_hung_up(raw: Any) -> bool:
    """Whether the other end of a driver's connection has closed it, as far as this machine knows."""
    descriptor = socket_of(raw)
    if descriptor is None or descriptor < 0:
        return False
    poll = select.poll()
    # Errors and hang-ups are reported unasked. There may be data to read, too: why the server hangs up.
    # macOS reports only what is closed on both sides.
    poll.register(descriptor, getattr(select, "POLLRDHUP", 0))
    return bool(poll.poll(0))


def cut(descriptor: int | None) -> None:
    """End a connection from another thread: who waits for its answer reads that there is no more."""
    if descriptor is not None:
        with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as end:
            end.shutdown(socket.SHUT_RDWR)


class _Watched:
    """One slot's statement."""

    def __init__(self) -> None:
        # Held while the watchdog acts on it, so that what it does never meets the next statement.
        self.lock = threading.Lock()
        self.connection: BaseDatabaseWrapper | None = None
        # The driver's connection and its socket when it began.
        self.raw: Any = None
        self.descriptor: int | None = None
        self.cancel_at: float | None = None
        self.cut_at: float | None = None


class Watchdog:
    """Of a process: one thread for all its slots, which begins with the first statement."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._all: list[_Watched] = []
        self._local = threading.local()
        self._pid: int | None = None

    @contextmanager
    def limit(self, connection: BaseDatabaseWrapper, seconds: float, cut_seconds: float) -> Iterator[None]:
        """Around a statement, or connecting: the calling thread waits no longer than that.

        After `seconds` the server is asked to end the statement, where the driver can, and `cut_seconds`
        later the connection is cut. Either way the driver raises.
        """
        watched = self._mine()
        raw: Any = connection.connection
        # Now, because mysqlclient does not tell another thread.
        descriptor = socket_of(raw) if raw is not None else None
        now = time.monotonic()
        with watched.lock:
            watched.connection, watched.raw, watched.descriptor = connection, raw, descriptor
            watched.cancel_at, watched.cut_at = now + seconds, now + seconds + cut_seconds
        try:
            yield
        finally:
            # Waits for a request to end it that is under way: late it would hit the next statement.
            with watched.lock:
                watched.connection = watched.raw = watched.cancel_at = watched.cut_at = None

    def _mine(self) -> _Watched:
        if self._pid != os.getpid():
            self._begin()
        watched: _Watched | None = getattr(self._local, "watched", None)
        if watched is None:
            watched = self._local.watched = _Watched()
            with self._lock:
                self._all.append(watched)
        return watched

    def _begin(self) -> None:
        """Begin the thread, which a fork does not have."""
        with self._lock:
            if self._pid == os.getpid():
                return
            self._pid = os.getpid()
            self._all = []
            self._local = threading.local()
            threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def _watch(self) -> None:
        # A signal that this thread gets would not wake the main thread from what it waits for.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        # Daemon: it ends with its process.
        pause = threading.Event()
        while not pause.wait(TICK_SECONDS):
            with self._lock:
                every = list(self._all)
            for watched in every:
                self._look(watched)

    def _look(self, watched: _Watched) -> None:
        now = time.monotonic()
        due = watched.cancel_at, watched.cut_at
        if not any(at is not None and at <= now for at in due):
            return
        with watched.lock:
            # While Django connects it has the driver's connection as soon as there is one.
            raw = watched.connection.connection if watched.connection is not None else None
            if raw is None:
                return
            if watched.cut_at is not None and watched.cut_at <= now:
                watched.cancel_at = watched.cut_at = None
                # Another one than in the beginning may have another socket under the same number.
                cut(watched.descriptor if raw is watched.raw else socket_of(raw))
            elif watched.cancel_at is not None and watched.cancel_at <= now:
                watched.cancel_at = None
                _cancel(raw)


def _cancel(raw: Any) -> None:
    """Ask PostgreSQL to end a statement; it may wait for a lock, and would wait after the connection is cut.

    MySQL's protocol has no such request, and its server ends by itself what waits for nobody.
    """
    # psycopg 3.2: over a connection of its own, with a time limit. Any failure is the other end's silence.
    if hasattr(raw, "cancel_safe"):
        with suppress(Exception):
            raw.cancel_safe(timeout=CUT_SECONDS / 2)
