"""The idle slots of a process, and what wakes them: an announcement, or the time of a deferred task.

Each slot waits at a pipe of its own. One of them is woken at a time; if it finds a task, it wakes the next
one, because there may be more. One idle slot, the guard, also looks without being woken, from time to time.
"""

import enum
import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from .next_due import EVERY_SECONDS
from .next_row import Wanted
from .stop import Stop
from .wake_rhythm import Rhythm, patience

logger = logging.getLogger("django_tasks_db")

# For an idle slot that is not the guard. Less than the time after which the supervisor takes it for stuck.
OTHERS_SECONDS = 30.0
# After a task has been found late without being announced, the process polls as if there were no NOTIFY.
DISTRUST_SECONDS = 60.0
# A wait of no time at all means to look at once.
LEAST_SECONDS = 0.001


class Cause(enum.Enum):
    """Why a slot no longer waits."""

    TIME = "nothing has woken it"
    ANNOUNCED = "a task was announced, or is due"
    OTHER = "another slot has found a task, or something else has changed"


class Listening(Protocol):
    """What listens for a process, in a thread of its own."""

    def poke(self) -> None:
        """See that a slot has become idle, or that none is idle any more."""

    def again(self) -> None:
        """Try again what has failed before: a slot has a new connection."""

    def close(self) -> None:
        """End."""


class Wakes:
    """What the slots of one process and the thread that listens for them know of each other."""

    def __init__(self, wanted: Wanted, interval: float, *, enabled: bool) -> None:
        """``enabled`` is false for workers that do not wait for tasks."""
        self.wanted = wanted
        self.interval = interval
        self.enabled = enabled
        self._lock = threading.Lock()
        self._rhythm = Rhythm(interval)
        self._idle: list[Waiter] = []
        self._busy_since = time.monotonic()
        # Whether the next slot that gets idle has to look again.
        self._pending = False
        self._is_listening = False
        self._awaits_since: float | None = None
        self._distrusted_until = 0.0
        self._probe: str | None = None
        self._listening: Listening | None = None
        # When the next deferred task is due, and when to ask again (monotonic); see `knows_due`.
        self._due_at: float | None = None
        self._ask_at = 0.0
        self.knows_due = False

    def listen(self, start: Callable[["Wakes"], Listening]) -> None:
        """Start to listen, once in the life of the process."""
        with self._lock:
            if self._listening is None and self.enabled:
                self._listening = start(self)

    def reconnected(self) -> None:
        """Note that a slot has a new connection after it had lost one: notifications may come through now."""
        if self._listening is not None:
            self._listening.again()

    def close(self) -> None:
        """End the listening."""
        if self._listening is not None:
            self._listening.close()

    # For the thread that listens.

    def listens(self, *, proven: bool) -> None:
        """Note whether announcements arrive. If no longer, idle slots must not rely on them."""
        with self._lock:
            before, self._is_listening = self._is_listening, proven
            self._awaits_since = None
        if before and not proven:
            self.wake_all()

    def awaits(self, since: float | None) -> None:
        """Note since when (monotonic) enqueuers know that this process waits; None: they do not."""
        self._awaits_since = since

    def busy_seconds(self, now: float) -> float:
        """For how long no slot has been idle; 0 if one is."""
        with self._lock:
            return 0.0 if self._idle else max(0.0, now - self._busy_since)

    def due_at(self) -> float | None:
        """When (monotonic) the next deferred task is due, as far as it is known."""
        return self._due_at

    def is_due(self, now: float) -> None:
        """Have a slot look for the deferred task that is due."""
        with self._lock:
            self._due_at, self._ask_at = None, now
        self.announced(now)

    def ask_at(self) -> float | None:
        """When (monotonic) to ask when the next deferred task is due; None: never."""
        return self._ask_at if self.knows_due else None

    def forget_due(self) -> None:
        """Have it asked at once when the next deferred task is due: others may have been enqueued."""
        self._ask_at = 0.0

    def due_soon(self, now: float, seconds: float) -> None:
        """Note that a task that will be due in so many seconds was announced."""
        with self._lock:
            at = now + max(0.0, seconds)
            self._due_at = at if self._due_at is None else min(self._due_at, at)

    def announced(self, now: float) -> None:
        """Have a slot look at the table, now or when the process has rested."""
        with self._lock:
            if self._rhythm.announced(now):
                self._call(Cause.ANNOUNCED)

    def answer_at(self) -> float | None:
        """When (monotonic) to look for what was announced while the process rested; None: nothing was."""
        with self._lock:
            return self._rhythm.rested_at if self._rhythm.missed else None

    def look_now(self, now: float) -> None:
        """Have a slot look at the table, also for what was announced while the process rested."""
        with self._lock:
            missed = self._rhythm.missed
            if missed:
                self._rhythm.look(now)
            self._call(Cause.ANNOUNCED if missed else Cause.OTHER)

    def wake_all(self) -> None:
        """Let all idle slots look at the table."""
        with self._lock:
            self._pending = True
            while self._idle:
                self._call(Cause.OTHER)

    @property
    def probe_is_taken(self) -> bool:
        """Whether a slot sends, or has sent, the notification that was asked for."""
        return self._probe is None

    def ask_for_probe(self, channel: str | None) -> None:
        """Have a slot send a notification on its own connection; None: no longer."""
        with self._lock:
            self._probe = channel
            if channel is not None:
                self._call(Cause.OTHER)

    # For both.

    def asks_for_due(self, now: float, *, listener: bool) -> bool:
        """Whether to ask when the next deferred task is due: the listener, or a slot if nobody listens."""
        return self.knows_due and listener is self._is_listening and now >= self._ask_at

    def note_due(self, now: float, seconds: float | None) -> None:
        """Note in how many seconds the next deferred task is due; None: not before it is asked again."""
        with self._lock:
            self._ask_at = now + EVERY_SECONDS
            self._due_at = None if seconds is None else now + seconds

    # For the slots.

    def take_probe(self) -> str | None:
        """Return the channel on which the calling slot should send a notification, if any."""
        with self._lock:
            channel, self._probe = self._probe, None
        return channel

    def looks(self) -> None:
        """Note that a slot is about to look at the table: it will see all that was announced before."""
        with self._lock:
            self._pending = False

    def looked(self, cause: Cause | None, waited: float | None) -> None:
        """Note what a slot has found.

        Args:
            cause: why it looked; None if it had not been idle.
            waited: for how many seconds the task had been ready, if there was one.
        """
        late = waited is not None and waited > max(self.interval, 1.0)
        with self._lock:
            if cause is Cause.ANNOUNCED:
                self._rhythm.looked(found=waited is not None)
            if not self._is_listening or waited is None:
                return
            if cause is Cause.TIME and late:
                # The trigger has been switched off, or a transaction took long to commit.
                self._distrusted_until = time.monotonic() + DISTRUST_SECONDS
                logger.debug("A task was not announced, so this process polls for a while.")
            if self._idle:
                # There may be more.
                self._call(Cause.OTHER)

    def waits(self, waiter: "Waiter") -> float:
        """Note that a slot is idle; return for how many seconds it should wait, 0 to look again at once."""
        now = time.monotonic()
        with self._lock:
            if self._pending or self._probe is not None:
                return 0.0
            seconds = self._patience(now)
            waiter.guards = seconds != OTHERS_SECONDS
            waiter.cause = Cause.TIME
            if not self._is_listening and self._due_at is not None:
                due_in = max(self._due_at, self._rhythm.rested_at) - now
                if due_in < seconds:
                    # One slot of the process looks then, and asks again.
                    self._due_at, self._ask_at = None, 0.0
                    seconds, waiter.cause = max(due_in, LEAST_SECONDS), Cause.ANNOUNCED
                    self._rhythm.look(now + seconds)
            self._idle.append(waiter)
            first = len(self._idle) == 1
        if first and self._listening is not None:
            self._listening.poke()
        return seconds

    def _patience(self, now: float) -> float:
        if not self._is_listening or not self.knows_due or now < self._distrusted_until:
            return self.interval
        if any(each.guards for each in self._idle):
            return OTHERS_SECONDS
        if self._awaits_since is None:
            return self.interval
        return patience(self.interval, now - self._awaits_since)

    def leaves(self, waiter: "Waiter") -> None:
        """Note that a slot no longer waits."""
        with self._lock:
            if waiter in self._idle:
                self._idle.remove(waiter)
                self._note_busy()

    def _call(self, cause: Cause) -> None:
        """Wake the slot that became idle last. If none is, the next one that becomes idle looks again."""
        if not self._idle:
            self._pending = True
            return
        self._idle.pop().call(cause)
        self._note_busy()

    def _note_busy(self) -> None:
        if not self._idle:
            self._busy_since = time.monotonic()
            if self._listening is not None:
                self._listening.poke()


class Waiter:
    """One slot's pipe."""

    def __init__(self, wakes: Wakes) -> None:
        self.guards = False
        self.cause: Cause | None = None
        self._wakes = wakes
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)

    def call(self, cause: Cause) -> None:
        """Wake the slot, from any thread."""
        self.cause = cause
        os.write(self._writer, b"x")

    def wait(self, stop: Stop) -> None:
        """Wait until woken, until it is time to look anyway, or until asked to stop."""
        self.cause = Cause.OTHER
        seconds = self._wakes.waits(self)
        if not seconds:
            return
        stop.wait(seconds, self._reader)
        self._wakes.leaves(self)
        with suppress(BlockingIOError):
            os.read(self._reader, 64)

    def close(self) -> None:
        """Leave; other slots, which may rely on this one, look at the table."""
        self._wakes.wake_all()
        os.close(self._reader)
        os.close(self._writer)
