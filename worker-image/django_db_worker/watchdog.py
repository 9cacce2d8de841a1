"""Ends a slot's own statement if there is no answer: drivers wait forever, and networks may drop packets.

There are two mechanisms. If it is configured to (``keep_alive``), the kernel notices that the other machine
no longer acknowledges anything. It cannot notice a pooler or sidecar that still acknowledges packets, but has
lost its own connection, or a server that waits for a lock. So a thread looks for statements that have taken
too long (``Watchdog``). A task's own statements may take as long as they like.
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

# How long packets may go unacknowledged before the kernel considers the connection broken.
# https://man7.org/linux/man-pages/man7/tcp.7.html
IDLE_SECONDS, PROBE_SECONDS, PROBES = 10, 5, 2
UNACKNOWLEDGED_SECONDS = 15
# For a slot's own statement: after the first time the server is asked to end it, and after the second one the
# connection is cut. Together they are less than the minute after which the supervisor considers a slot stuck.
ANSWER_SECONDS = 20.0
CUT_SECONDS = 10.0
TICK_SECONDS = 0.5


def socket_of(raw: Any) -> int | None:
    """Return the file descriptor of a driver's connection; None if it has none, or none that is known."""
    with suppress(Exception):
        if hasattr(raw, "pgconn"):
            # psycopg
            return int(raw.pgconn.socket)
        if hasattr(raw, "_sock"):
            # PyMySQL has no public attribute for it.
            return int(raw._sock.fileno())  # noqa: SLF001
        # mysqlclient, psycopg2
        return int(raw.fileno())
    return None


def keep_alive(raw: Any, options: Mapping[str, object]) -> None:
    """Let the kernel notice that a connection is broken, unless the project's own ``options`` configure that.

    The options have libpq's names. Without a TCP socket, this does nothing.
    """
    descriptor = socket_of(raw)
    if descriptor is None or options.get("keepalives") in {0, "0"}:
        return
    # macOS does not have all of them.
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
    # Errors and hang-ups are always reported. There may also be data to read: the server's last message.
    # macOS only reports a connection that is closed on both sides.
    poll.register(descriptor, getattr(select, "POLLRDHUP", 0))
    return bool(poll.poll(0))


def cut(descriptor: int | None) -> None:
    """Cut a connection from another thread: the thread that waits for an answer reads its end."""
    if descriptor is not None:
        with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as end:
            end.shutdown(socket.SHUT_RDWR)


class _Watched:
    """One slot's statement."""

    def __init__(self) -> None:
        # Held while the watchdog acts on the statement, so that it never ends the next one.
        self.lock = threading.Lock()
        self.connection: BaseDatabaseWrapper | None = None
        # The driver's connection and its socket when the statement began.
        self.raw: Any = None
        self.descriptor: int | None = None
        self.cancel_at: float | None = None
        self.cut_at: float | None = None


class Watchdog:
    """Watches the statements of all slots of a process, in a thread that starts with the first statement."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._all: list[_Watched] = []
        self._local = threading.local()
        self._pid: int | None = None

    @contextmanager
    def limit(self, connection: BaseDatabaseWrapper, seconds: float, cut_seconds: float) -> Iterator[None]:
        """Limit how long the calling thread waits for a statement, or for a new connection.

        After ``seconds``, the server is asked to end the statement, if the driver can do that. The connection
        is cut ``cut_seconds`` later. In both cases the driver raises.
        """
        watched = self._mine()
        raw: Any = connection.connection
        # Now, because mysqlclient does not reveal it to another thread.
        descriptor = socket_of(raw) if raw is not None else None
        now = time.monotonic()
        with watched.lock:
            watched.connection, watched.raw, watched.descriptor = connection, raw, descriptor
            watched.cancel_at, watched.cut_at = now + seconds, now + seconds + cut_seconds
        try:
            yield
        finally:
            # This waits for a request to end the statement, which otherwise could end the next one.
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
        """Start the thread, which a forked process does not have."""
        with self._lock:
            if self._pid == os.getpid():
                return
            self._pid = os.getpid()
            self._all = []
            self._local = threading.local()
            threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def _watch(self) -> None:
        # A signal that this thread got would not wake up the main thread.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        # An endless loop: the thread is a daemon, which ends with its process.
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
            # While Django connects, this is set as soon as the driver has a connection.
            raw = watched.connection.connection if watched.connection is not None else None
            if raw is None:
                return
            if watched.cut_at is not None and watched.cut_at <= now:
                watched.cancel_at = watched.cut_at = None
                # A new connection may have another socket, or the same number for another socket.
                cut(watched.descriptor if raw is watched.raw else socket_of(raw))
            elif watched.cancel_at is not None and watched.cancel_at <= now:
                watched.cancel_at = None
                _cancel(raw)


def _cancel(raw: Any) -> None:
    """Ask PostgreSQL to end a statement, which may wait for a lock even after the connection is cut.

    MySQL's protocol has no such request, but its server itself ends a statement whose client is gone.
    """
    # psycopg 3.2 uses another connection for this, with a time limit. If that fails, the connection is cut.
    if hasattr(raw, "cancel_safe"):
        with suppress(Exception):
            raw.cancel_safe(timeout=CUT_SECONDS / 2)
