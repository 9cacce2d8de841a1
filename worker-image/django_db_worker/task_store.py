"""A slot's dealings with the task table, through lost connections: nothing done is forgotten."""

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
from .claim import Table, Wanted
from .database import Link, OutageLog
from .errors import AbandonedError, NotMigratedError
from .outcome import Row
from .status_board import SlotStatus, State
from .stop import Stop
from .trouble import Trouble, reason

logger = logging.getLogger("django_tasks_db")

Result = TypeVar("Result")

# After a task that ran for longer, its connection is tried before the result goes to it.
LONG_SECONDS = 5.0
# A commit whose connection broke may still take place: when to look for what it claimed, once more.
LATE_LOOKS_SECONDS = (1.0, 5.0, 30.0)

IN_DOUBT = {Trouble.LOST, Trouble.AWAY}
TRIED_AGAIN = {*IN_DOUBT, Trouble.BUSY}


class TaskStore:
    """Claims and stores for one slot."""

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
    ) -> None:
        """`began` is when the worker started: what runs since longer in its name is not its own."""
        self._worker_id = worker_id
        self._began = began
        self._wanted = wanted
        self._model_signals = model_signals
        self._stop = stop
        self._status = status
        self._alias = router.db_for_write(DBTaskResult)
        self._link = Link(self._alias, stop, outages, on_wait=lambda: status.enter(State.DISCONNECTED))
        self._table: Table | None = None
        # When to look (monotonic) for a claim that may have been made since (the row's clock).
        self._late_looks: list[tuple[float, datetime]] = []

    def claim(self) -> tuple[Row | None, bool]:
        """The next row, and whether the table was looked at: not when it was locked, or asked to stop.

        Raises NotMigratedError, and RefusedError.
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
            except (DatabaseError, InterfaceError) as error:
                row = self._claimed_after_all(self._link.met(error), error, since)
                self._noted(row)
                if row is not None or self._stop.requested:
                    return row, False
            else:
                self._link.worked()
                self._status.note_claim()
                return self._noted(row), True

    def finish_and_claim(self, finished: Row) -> Row | None:
        """Store a row's result and claim the next row, in one commit."""
        self._begin_storing()
        if self._late_look_is_due():
            # Before anything else is claimed in this slot's name.
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
                row = self._find_claim(since)
            # The result alone: it may be the claim that cannot be made now.
            self._store(finished)
        else:
            self._link.worked()
            self._status.note_claim()
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
        """The row that the last process of this slot was running when it died, if it still is RUNNING.

        Died in the middle of a claim, it may have left a row that never started: that one is given back.
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

    def tidy(self) -> None:
        """Between tasks: drop connections that a task broke."""
        self._link.tidy()

    def close(self) -> None:
        """At the end: give back what was claimed without anybody's knowledge."""
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
        return self._table

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
        """The row of a claim whose answer was lost, if its commit took place; waits for the database.

        Raises what the claim did where that says that nothing was claimed, and nothing will be.
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
        """Between tasks, when no row should be RUNNING in this slot's name."""
        since = min(since for _, since in self._late_looks)
        row = self._look(since)
        now = time.monotonic()
        self._late_looks = [look for look in self._late_looks if look[0] > now and row is None]
        return self._noted(row)

    def _store(self, row: Row) -> None:
        """Store a result; where the database refuses it, that it was refused; at the least, that it is there.

        Raises the refusal if not even that can be written: then it is not the row's doing.
        """
        error = self._refusal(row)
        if isinstance(error, DatabaseError | InterfaceError):
            # Perhaps a session that a task has changed, by a way that nobody sees.
            self._link.renew()
            error = self._refusal(row)
        if error is not None and row.status != TaskResultStatus.FAILED:
            logger.error("The result of task id=%s cannot be stored (%s): it fails.", row.id, reason(error))
            outcome.fail(row, error)
            error = self._refusal(row)
        # Not the database's: a receiver of the model's signals refuses even that.
        silently = error is not None and not isinstance(error, DatabaseError | InterfaceError)
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
            # Not only the database's: save() encodes a result once more.
            return error
        return None

    def _persist(self, operation: Callable[[], Result]) -> Result:
        """Do it, however long the database is away or busy; raises AbandonedError if asked to end at once."""
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
