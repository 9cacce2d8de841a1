"""All databases that workers use, each polled in its own thread."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import traceback
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from django_task_operator import telemetry
from django_task_operator.backoff import Backoff
from django_task_operator.tasktable.errors import ConnectionLost, DatabaseError, DatabaseFailed
from django_task_operator.tasktable.table import Table, TaskTable
from django_task_operator.tasktable.thread import Lane, ThreadLane
from django_task_operator.tasktable.values import Durations, Observation, UnservedQueue

if TYPE_CHECKING:
    from collections.abc import Callable

    from django_task_operator.tasktable.url import DatabaseURL
    from django_task_operator.tasktable.values import Listing, RunningRow, Sample, Selection, Settlement

log = logging.getLogger(__name__)

# Workers that appear together, for example at start-up, share their first poll.
JOIN_SECONDS = 0.05
JOIN_PAUSE_SECONDS = 0.25
# A database spends at most a fifth of its time on our polls.
REST_PER_WORK = 4
RETRY_SECONDS = 1.0
RETRY_CAP_SECONDS = 30.0
# Longer than every timeout that TaskTable sets, for a server that acknowledges packets but never answers.
HUNG_SECONDS = 25.0
FIRST_SEARCH_SECONDS = 5.0
SEARCH_SECONDS = 60.0
FAILED_SEARCH_SECONDS = 600.0
# For how long a listing of the RUNNING rows is shared by all callers.
SHARED_SECONDS = 0.5
# How often running tasks are looked at to learn how long they take, and after an error.
LOOK_SECONDS = 1.0
FAILED_LOOK_SECONDS = 60.0
# The search for queues that no worker serves takes at most a hundredth of the database's time.
SEARCH_REST_PER_WORK = 100


class Subscription:
    """One worker's view of its database. Only for use in the event loop."""

    def __init__(
        self,
        selection: Selection,
        *,
        secret: tuple[str, str],
        limit: int,
        poll_seconds: float,
        wake: Callable[[], None],
        measures: bool = False,
    ) -> None:
        """Created by ``Databases.subscribe``."""
        self.selection = selection
        self.secret = secret
        self.limit = limit
        self.poll_seconds = poll_seconds
        self.measures = measures
        self.observation = Observation()
        self.durations = Durations()
        self.unserved: frozenset[UnservedQueue] = frozenset()
        self._wake = wake
        self._poller: _Poller | None = None

    def close(self) -> None:
        """End the subscription; ``wake`` is not called any more. Closing again does nothing."""
        if self._poller is not None:
            self._poller.leave(self)
            self._poller = None

    def observe(self, observation: Observation) -> None:
        """Store a poll's outcome, and wake the worker if it has changed."""
        before, self.observation = self.observation, observation
        if (before.demand, before.error) != (observation.demand, observation.error):
            self._wake()

    def measure(self, durations: Durations) -> None:
        """Add how long tasks took. The worker is not woken: their end changes its demand as well."""
        self.durations = durations.after(self.durations)

    def warn(self, unserved: frozenset[UnservedQueue]) -> None:
        """Store the queues of this backend that no worker serves, and wake the worker if they changed."""
        before, self.unserved = self.unserved, unserved
        if before != unserved:
            self._wake()

    async def running(self, *, fresh: bool = False) -> Listing:
        """List the RUNNING rows of the database, of all its backends and queues.

        Callers at nearly the same time share one listing, unless it must be ``fresh``: requested now.

        Raises:
            DatabaseError: they cannot be listed.
        """
        return await self._open_poller.running(0.0 if fresh else SHARED_SECONDS)

    async def settle(self, row: RunningRow, settlement: Settlement) -> bool:
        """Settle a row if it is still RUNNING since it was listed; return whether it was.

        Raises:
            DatabaseError: it is not known whether the row was changed.
            PermissionDenied: the URL's user may not change it.
        """
        return await self._open_poller.settle(row, settlement)

    @property
    def _open_poller(self) -> _Poller:
        if self._poller is None:
            raise ConnectionLost
        return self._poller

    def join(self, poller: _Poller) -> None:
        """Subscribe to ``poller`` until closed."""
        self._poller = poller


class Databases:
    """The pollers of all databases. Only for use in one event loop."""

    def __init__(
        self,
        *,
        open_table: Callable[[DatabaseURL], Table] = TaskTable,
        open_lane: Callable[[str], Lane] = ThreadLane,
        jitter: Callable[[], float] = lambda: random.uniform(0.75, 1.25),  # noqa: S311
    ) -> None:
        """Start without databases.

        Args:
            open_table: returns a table that is not connected yet.
            open_lane: returns the lane in which a table's calls run.
            jitter: returns a factor of about 1, so that retries of many databases do not coincide.
        """
        self._open_table = open_table
        self._open_lane = open_lane
        self._jitter = jitter
        self._pollers: dict[DatabaseURL, _Poller] = {}
        self._secrets: Counter[tuple[str, str]] = Counter()
        self._numbers = itertools.count(1)

    def subscribe(
        self,
        url: DatabaseURL,
        selection: Selection,
        *,
        secret: tuple[str, str],
        limit: int,
        poll_seconds: float,
        wake: Callable[[], None],
        measures: bool = False,
    ) -> Subscription:
        """Have a database polled for a worker.

        The first poll follows immediately, unless the database is waiting for its next retry after an error.

        Args:
            url: the database; all subscriptions to it share one connection.
            selection: the worker's rows.
            secret: namespace and name of the Secret with the URL, by which metrics name the database.
            limit: how many ready rows are worth counting: as many as maxReplicas can use.
            poll_seconds: the database is polled at the smallest interval of its subscribers.
            wake: called in the event loop when demand, error or unserved queues have changed.
            measures: whether to measure how long the tasks take, too.
        """
        subscription = Subscription(
            selection, secret=secret, limit=limit, poll_seconds=poll_seconds, wake=wake, measures=measures
        )
        poller = self._pollers.get(url)
        if poller is None:
            table = self._open_table(url)
            lane = self._open_lane(f"database-{next(self._numbers)}")
            poller = _Poller(table, lane, self._jitter, lambda: self._pollers.pop(url, None), self._left)
            self._pollers[url] = poller
        self._secrets[secret] += 1
        poller.enter(subscription)
        subscription.join(poller)
        return subscription

    async def close(self) -> None:
        """Close all databases, without waiting for one that hangs."""
        await asyncio.gather(*(poller.close() for poller in list(self._pollers.values())))

    def _left(self, subscription: Subscription) -> None:
        self._secrets[subscription.secret] -= 1
        if not self._secrets[subscription.secret]:
            del self._secrets[subscription.secret]
            telemetry.forget_database(*subscription.secret)


class _Poller:
    """Polls one database while it has subscriptions."""

    def __init__(
        self,
        table: Table,
        lane: Lane,
        jitter: Callable[[], float],
        forget: Callable[[], object],
        left: Callable[[Subscription], None],
    ) -> None:
        self._table = table
        self._lane = lane
        self._forget = forget
        self._left = left
        self._is_connected = False
        self._loop = asyncio.get_running_loop()
        self._subscriptions: set[Subscription] = set()
        self._moved = asyncio.Event()
        self._due = self._loop.time()
        self._last_poll = self._due - JOIN_PAUSE_SECONDS
        self._next_search: float | None = None
        self._next_look = self._due
        self._backoff = Backoff(RETRY_SECONDS, RETRY_CAP_SECONDS, jitter)
        self._error: DatabaseError | None = None
        self._one_at_a_time = asyncio.Lock()
        self._listing: Listing | None = None
        self._ended = False
        self._task = self._loop.create_task(self._run())

    def enter(self, subscription: Subscription) -> None:
        self._subscriptions.add(subscription)
        if self._error is not None:
            subscription.observation = Observation(error=self._error)
            return
        soon = max(self._loop.time() + JOIN_SECONDS, self._last_poll + JOIN_PAUSE_SECONDS)
        self._due = min(self._due, soon) if len(self._subscriptions) > 1 else soon
        self._moved.set()

    def leave(self, subscription: Subscription) -> None:
        self._subscriptions.discard(subscription)
        self._left(subscription)
        self._moved.set()

    async def running(self, max_age: float) -> Listing:
        not_before = self._loop.time() - max_age
        async with self._one_at_a_time:
            # Somebody else may have asked while this one waited for its turn.
            if self._listing is None or self._listing.asked_at < not_before:
                asked_at = self._loop.time()
                listing = await self._asked(self._table.running)
                self._listing = replace(listing, asked_at=asked_at)
            return self._listing

    async def settle(self, row: RunningRow, settlement: Settlement) -> bool:
        async with self._one_at_a_time:
            return await self._asked(lambda: self._table.settle(row, settlement))

    async def close(self) -> None:
        self._subscriptions.clear()
        self._moved.set()
        await asyncio.wait([self._task], timeout=1)
        self._task.cancel()

    async def _run(self) -> None:
        while self._subscriptions:
            if await self._is_due() and self._subscriptions:
                await self._poll()
                await self._look_at_durations()
                await self._search_unserved()
        self._forget()
        self._note_connected(is_connected=False)
        async with self._one_at_a_time:
            self._ended = True
            try:
                await self._lane.run(self._table.close)
            finally:
                self._lane.end()

    async def _is_due(self) -> bool:
        """Wait until the poll is due (True), or something has changed that may move it (False)."""
        delay = self._due - self._loop.time()
        if delay <= 0:
            return True
        self._moved.clear()
        try:
            async with asyncio.timeout(delay):
                await self._moved.wait()
        except TimeoutError:
            return True
        return False

    async def _poll(self) -> None:
        wanted: dict[Selection, int] = {}
        for subscription in self._subscriptions:
            limit = wanted.get(subscription.selection, 1)
            wanted[subscription.selection] = max(limit, subscription.limit)
        started = self._loop.time()
        try:
            async with self._one_at_a_time:
                started = self._loop.time()
                sample = await self._asked(lambda: self._table.sample(wanted))
        except DatabaseError as error:
            self._failed(error)
        except Exception as error:  # noqa: BLE001  a defect of ours must not end the polling
            # Log only the place, not the exception's text, which may quote anything.
            place = traceback.extract_tb(error.__traceback__)[-1]
            log.error("sample crashed", extra={"at": f"{place.filename}:{place.lineno}"})  # noqa: TRY400
            self._failed(DatabaseFailed(code=type(error).__name__))
        else:
            self._succeeded(sample, wanted, started)
        finally:
            self._last_poll = self._loop.time()

    async def _asked[T](self, ask: Callable[[], T]) -> T:
        """Query the table in its lane; a query that hangs is interrupted."""
        if self._ended:
            raise ConnectionLost
        hung = self._loop.call_later(HUNG_SECONDS, self._table.interrupt)
        try:
            return await self._lane.run(ask)
        finally:
            hung.cancel()

    def _succeeded(self, sample: Sample, wanted: dict[Selection, int], started: float) -> None:
        now = self._loop.time()
        self._backoff.reset()
        self._error = None
        self._note_connected(is_connected=True)
        for secret in self._secrets():
            telemetry.SAMPLE_SECONDS.labels(*secret).observe(sample.seconds)
        if self._next_search is None:
            self._next_search = now + FIRST_SEARCH_SECONDS
        interval = min((subscription.poll_seconds for subscription in self._subscriptions), default=0.0)
        self._due = max(started + interval, now + REST_PER_WORK * sample.seconds)
        for subscription in list(self._subscriptions):
            if wanted.get(subscription.selection, 0) < subscription.limit:
                # It came during the poll.
                self._due = min(self._due, now + JOIN_PAUSE_SECONDS)
                continue
            demand = sample.demands[subscription.selection].within(subscription.limit)
            subscription.observe(Observation(demand, None, sample.at, sample.seconds, sample.indexed))

    def _failed(self, error: DatabaseError) -> None:
        self._note_connected(is_connected=False)
        for secret in self._secrets():
            telemetry.SAMPLE_ERRORS.labels(*secret, error.reason).inc()
        self._error = error
        self._due = self._loop.time() + self._backoff.next()
        for subscription in list(self._subscriptions):
            subscription.observe(replace(subscription.observation, error=error))

    def _secrets(self) -> set[tuple[str, str]]:
        """The Secrets that have this database's URL: several namespaces may share a database."""
        return {subscription.secret for subscription in self._subscriptions}

    def _note_connected(self, *, is_connected: bool) -> None:
        telemetry.CONNECTED_DATABASES.inc(is_connected - self._is_connected)
        self._is_connected = is_connected

    async def _look_at_durations(self) -> None:
        """After a poll, measure how long tasks take, if a subscriber wants to know."""
        started = self._loop.time()
        measuring = [each for each in self._subscriptions if each.measures]
        if self._error is not None or started < self._next_look or not measuring:
            return
        selections = {subscription.selection for subscription in measuring}
        try:
            async with self._one_at_a_time:
                started = self._loop.time()
                found = await self._asked(lambda: self._table.durations(selections))
        except DatabaseError as error:
            # The samples are not affected, and scaling goes on with what it knows.
            log.info("durations not measured", extra={"reason": error.reason})
            self._next_look = self._loop.time() + FAILED_LOOK_SECONDS
            return
        now = self._loop.time()
        self._next_look = max(started + LOOK_SECONDS, now + REST_PER_WORK * (now - started))
        for subscription in measuring:
            if subscription.selection in found:
                subscription.measure(found[subscription.selection])

    async def _search_unserved(self) -> None:
        """From time to time, after a poll, search for queues with tasks that no worker serves."""
        started = self._loop.time()
        if self._error is not None or self._next_search is None or started < self._next_search:
            return
        served = {subscription.selection for subscription in self._subscriptions}
        try:
            async with self._one_at_a_time:
                started = self._loop.time()
                waiting = await self._asked(lambda: self._table.waiting_queues(served))
        except DatabaseError as error:
            # The samples are not affected, so the workers are not told.
            log.info("unserved queues not searched", extra={"reason": error.reason})
            self._next_search = self._loop.time() + FAILED_SEARCH_SECONDS
            return
        now = self._loop.time()
        self._next_search = now + max(SEARCH_SECONDS, SEARCH_REST_PER_WORK * (now - started))
        for subscription in list(self._subscriptions):
            backend = subscription.selection.backend
            subscription.warn(frozenset(queue for queue in waiting if queue.backend == backend))
