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
from .database import Link, OutageLog, is_contention, is_missing_table, reason
from .errors import AbandonedError, NotMigratedError
from .outcome import Row
from .status_board import SlotStatus, State
from .stop import Stop

logger = logging.getLogger("django_tasks_db")

Result = TypeVar("Result")

STORE_ATTEMPTS = 10
STORE_PAUSE_SECONDS = 0.1


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

    def claim(self) -> tuple[Row | None, bool]:
        """The next row, and whether the table was looked at: not when it was locked, or asked to stop.

        Raises NotMigratedError.
        """
        while True:
            self._status.enter(State.CLAIMING)
            self._status.doubt = True
            since = timezone.now()
            try:
                row = self._open().claim(self._worker_id, None)
            except (DatabaseError, InterfaceError) as error:
                if self._link.is_lost(error):
                    row = self._claimed_after_all(since)
                    if row is None and not self._stop.requested:
                        continue
                    return self._noted(row), False
                # The database has answered: nothing was claimed.
                self._noted(None)
                if is_contention(error):
                    return None, False
                if is_missing_table(error):
                    raise NotMigratedError from error
                raise
            self._link.worked()
            self._status.note_claim()
            return self._noted(row), True

    def finish_and_claim(self, finished: Row) -> Row | None:
        """Store a row's result and claim the next row, in one commit."""
        self._status.enter(State.FINISHING)
        self._status.doubt = True
        since = timezone.now()
        try:
            outcome.check_size(finished, self._link.largest_value)
            row = self._open().claim(self._worker_id, finished)
        except Exception as error:  # noqa: BLE001
            row = None
            if self._link.is_lost(error):
                self._wait()
                row = self._persist(lambda: self._find_claim(since))
            # The result alone: it may be the claim that cannot be made now.
            self._store(finished)
        self._link.worked()
        self._status.note_claim()
        return self._noted(row)

    def finish(self, finished: Row) -> None:
        """Store a row's result."""
        self._status.enter(State.FINISHING)
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
            row = self._persist(lambda: self._find_claim(self._began))
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

    def _claimed_after_all(self, since: datetime) -> Row | None:
        """Wait for the database; the row of a claim whose answer was lost, if its commit took status."""
        while self._link.reconnect(even_when_stopping=False):
            try:
                return self._find_claim(since)
            except (DatabaseError, InterfaceError) as error:  # noqa: PERF203
                if not self._link.is_lost(error):
                    raise
        return None

    def _find_claim(self, since: datetime) -> Row | None:
        return claim.find_claim(self._alias, self._wanted, self._worker_id, since)

    def _store(self, row: Row) -> None:
        """Store a result; where the database refuses it, that it was refused; at the least, that it is there.

        Raises the refusal if not even that can be written: then it is not the row's doing.
        """
        error = self._refusal(row)
        if error is not None and is_contention(error):
            raise error
        if isinstance(error, DatabaseError | InterfaceError):
            # Perhaps a session that a task has changed, by a way that nobody sees.
            self._link.renew()
            error = self._refusal(row)
        if error is not None and row.status != TaskResultStatus.FAILED:
            logger.error("The result of task id=%s cannot be stored (%s): it fails.", row.id, reason(error))
            outcome.fail(row, error)
            error = self._refusal(row)
        for simpler in (outcome.plain, outcome.least):
            if error is not None:
                simpler(row)
                error = self._refusal(row)
        if error is not None:
            raise error

    def _refusal(self, row: Row) -> Exception | None:
        def finish() -> None:
            outcome.check_size(row, self._link.largest_value)
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
        """Do it, however long the database stays away; raises AbandonedError when asked to end at once."""
        attempts = 0
        while True:
            try:
                result = operation()
            except (DatabaseError, InterfaceError) as error:  # noqa: PERF203
                if self._link.is_lost(error):
                    self._wait()
                    continue
                attempts += 1
                if not is_contention(error) or attempts == STORE_ATTEMPTS:
                    raise
                time.sleep(STORE_PAUSE_SECONDS)
            else:
                self._link.worked()
                return result

    def _wait(self) -> None:
        if not self._link.reconnect(even_when_stopping=True):
            raise AbandonedError
