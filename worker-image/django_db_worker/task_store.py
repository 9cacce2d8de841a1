"""What a slot does with the task table, through lost connections: no finished work is lost."""

import logging
import time
from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

from django.db import DatabaseError, InterfaceError, router
from django.utils import timezone
from django_tasks_db.compat import TaskResultStatus
from django_tasks_db.models import DBTaskResult

from . import claim, outcome
from .claim import Table
from .database import Link, OutageLog
from .errors import AbandonedError, NotMigratedError
from .next_due import NextDue
from .next_row import Wanted
from .outcome import Row
from .status_board import SlotStatus, State
from .stop import Stop
from .trouble import Trouble, is_databases, reason
from .wake_listener import WakeListener
from .wake_trigger import notify, table_that_announces
from .wakes import Wakes

logger = logging.getLogger("django_tasks_db")

Result = TypeVar("Result")

# After a task that ran for longer, the connection is tested before the result is sent on it.
LONG_SECONDS = 5.0
# If a connection breaks during a claim, its commit may still take place: when to look for that row again.
LATE_LOOKS_SECONDS = (1.0, 5.0, 30.0)

IN_DOUBT = {Trouble.LOST, Trouble.AWAY}
TRIED_AGAIN = {*IN_DOUBT, Trouble.BUSY}


class TaskStore:
    """Claims rows and stores results for one slot."""

    def __init__(
        self,
        *,
        worker_id: str,
        began: datetime,
        wanted: Wanted,
        model_signals: bool,
        stop: Stop,
        status: SlotStatus,
        outages: OutageLog,
        wakes: Wakes,
    ) -> None:
        """``began`` is when the worker started: rows with its id that were started before are not its own."""
        self._worker_id = worker_id
        self._began = began
        self._wanted = wanted
        self._model_signals = model_signals
        self._stop = stop
        self._status = status
        self._alias = router.db_for_write(DBTaskResult)
        self._link = Link(
            self._alias,
            stop,
            outages,
            on_wait=lambda: status.enter(State.DISCONNECTED),
            on_reconnect=self._note_reconnect,
        )
        self._outages = outages
        self._wakes = wakes
        self._table: Table | None = None
        self._next_due: NextDue | None = None
        # When to look (monotonic) for a claim that may have been made since (the row's clock).
        self._late_looks: list[tuple[float, datetime]] = []

    def claim(self) -> tuple[Row | None, bool]:
        """Return the next row, and whether the table was queried: not if it is busy or the worker stops.

        Raises:
            NotMigratedError: the table, or a column of it, does not exist.
            RefusedError: the server has refused the user or the password for a minute.
        """
        while True:
            self._status.enter(State.CLAIMING)
            if self._late_look_is_due():
                row = self._look_late()
                if row is not None:
                    return row, True
            if not self._link.open(even_when_stopping=False):
                return None, False
            self._status.enter(State.CLAIMING)
            self._status.doubt = True
            since = timezone.now()
            try:
                with self._link.answering():
                    row = self._open().claim(self._worker_id, None)
                    if row is None:
                        self._ask_for_due()
            except (DatabaseError, InterfaceError) as error:
                self._status.count_failed_claim()
                row = self._claimed_after_all(self._link.met(error), error, since)
                self._noted(row)
                if row is not None or self._stop.requested:
                    return row, False
            else:
                self._link.worked()
                self._status.note_claim(found=row is not None)
                return self._noted(row), True

    def finish_and_claim(self, finished: Row) -> Row | None:
        """Store a row's result and claim the next row, in one commit."""
        self._begin_storing()
        if self._late_look_is_due():
            # This slot may have claimed another row, which has to be found before the next claim.
            self.finish(finished)
            return None
        if not self._link.open(even_when_stopping=True):
            raise AbandonedError
        self._status.enter(State.FINISHING)
        self._status.doubt = True
        since = timezone.now()
        try:
            with self._link.answering():
                outcome.check_size(finished, self._link.largest_value)
                row = self._open().claim(self._worker_id, finished)
        except Exception as error:  # noqa: BLE001
            row = None
            if isinstance(error, DatabaseError | InterfaceError) and self._link.met(error) in IN_DOUBT:
                self._status.count_failed_claim()
                row = self._find_claim(since)
            # Only the result, because it may be the claim that fails.
            self._store(finished)
        else:
            self._link.worked()
            self._status.note_claim(found=row is not None)
        return self._noted(row)

    def finish(self, finished: Row) -> None:
        """Store a row's result."""
        self._begin_storing()
        self._store(finished)
        self._noted(None)

    def give_back(self, row: Row) -> None:
        """Undo a claim whose task has not started."""
        self._status.enter(State.FINISHING)
        self._persist(lambda: claim.give_back(self._alias, row, self._worker_id))
        self._noted(None)

    def leftover(self) -> Row | None:
        """Return the row that this slot was running when its last process died, if it still is RUNNING.

        If the process died during a claim, there may be a row whose task was never started. It is given back.
        """
        key = self._status.task
        if self._status.doubt:
            row = self._look(self._began)
            if row is not None and row.pk != key:
                self.give_back(row)
                row = None
        elif key is not None:
            row = self._persist(lambda: claim.find_running(self._alias, key, self._worker_id))
        else:
            row = None
        return self._noted(row)

    def send_probe(self, channel: str) -> None:
        """Send a notification, by which the process learns whether any reaches it; it may get lost."""
        if not self._link.open(even_when_stopping=False):
            return
        self._status.enter(State.CLAIMING)
        try:
            with self._link.answering():
                notify(self._link.connection, channel)
        except (DatabaseError, InterfaceError) as error:
            self._link.met(error)
        else:
            self._link.worked()

    def tidy(self) -> None:
        """Drop connections that a task has broken: between tasks."""
        self._link.tidy()

    def close(self) -> None:
        """Close the connection, and give back a row whose claim was never answered."""
        if self._late_looks:
            row = self._look_late()
            if row is not None:
                self.give_back(row)
        self._link.close()

    def _open(self) -> Table:
        # A task may have done away with the connection that was there before.
        if self._table is None or self._table.connection is not self._link.connection:
            self._table = claim.open_table(
                self._link.connection, self._wanted, model_signals=self._model_signals
            )
            if self._table.lacks_index:
                self._outages.index_missing()
            if self._wakes.enabled:
                self._next_due = NextDue(self._link.connection, self._wanted)
                self._wakes.knows_due = self._next_due.is_known
            if self._wakes.enabled and (announcing := table_that_announces(self._link.connection)):
                self._wakes.listen(lambda wakes: WakeListener(self._alias, announcing, wakes))
        return self._table

    def _ask_for_due(self) -> None:
        now = time.monotonic()
        if self._next_due is not None and self._wakes.asks_for_due(now, listener=False):
            self._wakes.note_due(now, self._next_due.seconds(self._wakes.interval))

    def _note_reconnect(self) -> None:
        self._status.count_reconnect()
        self._wakes.reconnected()

    def _noted(self, row: Row | None) -> Row | None:
        self._status.task = row.pk if row is not None else None
        self._status.doubt = False
        return row

    def _begin_storing(self) -> None:
        took_long = self._status.state is State.RUNNING and self._status.seconds_in_state > LONG_SECONDS
        self._status.enter(State.FINISHING)
        if took_long:
            self._link.check()

    def _claimed_after_all(self, trouble: Trouble, error: Exception, since: datetime) -> Row | None:
        """Return the row of a failed claim, if its commit took place; wait for the database.

        Raises:
            Exception: the claim's error, if nothing was claimed and another claim would fail, too.
        """
        if trouble in IN_DOUBT:
            return self._find_claim(since)
        if trouble is Trouble.BUSY:
            return None
        self._noted(None)
        if trouble is Trouble.NOT_MIGRATED:
            raise NotMigratedError from error
        raise error

    def _find_claim(self, since: datetime) -> Row | None:
        row = self._look(since)
        if row is None:
            now = time.monotonic()
            self._late_looks += [(now + seconds, since) for seconds in LATE_LOOKS_SECONDS]
        return row

    def _look(self, since: datetime) -> Row | None:
        return self._persist(lambda: claim.find_claim(self._alias, self._wanted, self._worker_id, since))

    def _late_look_is_due(self) -> bool:
        return bool(self._late_looks) and min(self._late_looks)[0] <= time.monotonic()

    def _look_late(self) -> Row | None:
        """Look for a row again: between tasks, when no row should be RUNNING with this slot's id."""
        since = min(since for _, since in self._late_looks)
        row = self._look(since)
        now = time.monotonic()
        self._late_looks = [look for look in self._late_looks if look[0] > now and row is None]
        return self._noted(row)

    def _store(self, row: Row) -> None:
        """Store a result; if the database refuses it, store a failure, in fewer words if necessary.

        Raises:
            Exception: the database's error, if not even that can be stored: it is not because of the result.
        """
        error = self._refusal(row)
        if isinstance(error, DatabaseError | InterfaceError):
            # A task may have changed the session without being noticed.
            self._link.renew()
            error = self._refusal(row)
        if error is not None and row.status != TaskResultStatus.FAILED:
            logger.error(
                "The result of task id=%s cannot be stored (%s), so the task fails.", row.id, reason(error)
            )
            outcome.fail(row, error)
            error = self._refusal(row)
        # Not the database's: a receiver of the model's signals refuses even that.
        silently = error is not None and not is_databases(error)
        if silently:
            error = self._refusal(row, silently=True)
        for simpler in (outcome.plain, outcome.least):
            if error is not None:
                simpler(row)
                error = self._refusal(row, silently=silently)
        if error is not None and self._model_signals:
            error = self._refusal(row, silently=True)
        if error is not None:
            raise error

    def _refusal(self, row: Row, *, silently: bool = False) -> Exception | None:
        def finish() -> None:
            outcome.check_size(row, self._link.largest_value)
            if silently:
                claim.finish_silently(self._alias, row)
            else:
                self._open().finish(row)

        try:
            self._persist(finish)
        except AbandonedError:
            raise
        except Exception as error:  # noqa: BLE001
            # Not only errors of the database: save() encodes a result again.
            return error
        return None

    def _persist(self, operation: Callable[[], Result]) -> Result:
        """Run an operation, and repeat it for as long as the database is away or busy.

        Raises:
            AbandonedError: the worker was asked to end at once.
        """
        while True:
            if not self._link.open(even_when_stopping=True):
                raise AbandonedError
            self._status.enter(State.FINISHING)
            try:
                with self._link.answering():
                    result = operation()
            except (DatabaseError, InterfaceError) as error:
                if self._link.met(error) not in TRIED_AGAIN:
                    raise
            else:
                self._link.worked()
                return result
