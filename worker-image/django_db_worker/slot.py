"""One slot: claims a task, runs it, stores the result, and again, in one thread with one connection."""

import logging
import random
from dataclasses import dataclass
from datetime import datetime

from django.core.exceptions import SuspiciousOperation
from django_tasks_db.compat import TaskContext, TaskResultStatus, task_finished, task_started

from . import claim
from .claim import Row, Wanted
from .database import OutageLog
from .errors import PROCESS_DIED, AbandonedError
from .listeners import Listeners
from .quota import Quota
from .status_board import SlotStatus, State
from .stop import Stop
from .task_store import TaskStore

logger = logging.getLogger("django_tasks_db")


@dataclass(frozen=True)
class SlotOptions:
    """How slots go about their work: the same for all of a worker."""

    wanted: Wanted
    interval: float
    batch: bool
    startup_delay: bool
    began: datetime
    listeners: Listeners


class Slot:
    """The loop of upstream's Worker, with a connection that stays."""

    def __init__(
        self,
        *,
        worker_id: str,
        slot_options: SlotOptions,
        stop: Stop,
        status: SlotStatus,
        quota: Quota,
        outages: OutageLog,
    ) -> None:
        self.worker_id = worker_id
        self._options = slot_options
        self._stop = stop
        self._status = status
        self._quota = quota
        self._task_store = TaskStore(
            worker_id=worker_id,
            began=slot_options.began,
            wanted=slot_options.wanted,
            model_signals=slot_options.listeners.model,
            stop=stop,
            status=status,
            outages=outages,
        )
        self._next: Row | None = None

    def run(self) -> None:
        """Work until asked to stop, or until the batch or the quota ends."""
        names = ",".join(self._options.wanted.queues) or "*"
        logger.info("Starting worker worker_id=%s queues=%s", self.worker_id, names)
        self.settle(ChildProcessError(PROCESS_DIED))
        if self._options.startup_delay and self._options.interval:
            # Not all at once on the database.
            self._idle(random.random())  # noqa: S311
        while self._turn():
            pass
        self._status.enter(State.ENDED)

    def settle(self, error: BaseException) -> None:
        """Fail the task that the last process of this slot was running when it ended: nobody else knows."""
        row = self._task_store.leftover()
        if row is not None:
            claim.fail(row, error)
            self._task_store.finish(row)
            self._tell_failed(row)

    def _turn(self) -> bool:
        """One round of the loop; False ends it."""
        row, self._next = self._next, None
        looked = True
        if row is None:
            if self._stop.asked():
                return False
            if not self._quota.take():
                logger.info(
                    "Run maximum tasks (%d) on worker=%s - exiting gracefully.",
                    self._quota.taken,
                    self.worker_id,
                )
                return False
            row, looked = self._task_store.claim()
            if row is None:
                self._quota.give_back()
        if row is not None:
            # Claimed in the moment of the signal: still nobody's.
            if self._stop.asked():
                self._task_store.give_back(row)
                return False
            self._run(row)
        elif looked and self._options.batch:
            logger.info("No more tasks to run for worker_id=%s - exiting gracefully.", self.worker_id)
            return False
        self._task_store.tidy()
        if row is None:
            self._idle(self._options.interval)
        return True

    def _idle(self, seconds: float) -> None:
        self._status.enter(State.IDLE)
        self._stop.wait(seconds)

    def _run(self, row: Row) -> None:
        """Run a claimed task, and store what became of it."""
        self._status.enter(State.RUNNING)
        self._status.count_started(claim.seconds_ready(row))
        try:
            self._call(row)
        except AbandonedError:
            raise
        except BaseException as error:  # noqa: BLE001
            # SystemExit and the like too, as upstream: a task does not end the worker.
            claim.fail(row, error)
            self._store(row)
            self._tell_failed(row)
        took = (row.finished_at - row.started_at).total_seconds()
        self._status.count_finished(took, successful=row.status == TaskResultStatus.SUCCESSFUL)

    # The order of steps and signals, and what counts as the task's own failure, are upstream's.

    def _call(self, row: Row) -> None:
        task = row.task
        result = row.task_result
        # Upstream sends the instance here and the class for a failure; Django documents the class.
        sender = type(task.get_backend())
        task_started.send(sender=sender, task_result=result)
        context: tuple[object, ...] = (TaskContext(task_result=result),) if task.takes_context else ()
        with self._stop.task():
            value = task.call(*context, *result.args, **result.kwargs)
        claim.succeed(row, value)
        self._store(row)
        task_finished.send(sender=sender, task_result=row.task_result)

    def _tell_failed(self, row: Row) -> None:
        try:
            sender = type(row.task.get_backend())
            result = row.task_result
        except (ImportError, SuspiciousOperation):
            logger.exception("Task id=%s failed unexpectedly", row.id)
        else:
            task_finished.send(sender=sender, task_result=result)

    def _store(self, row: Row) -> None:
        """Store the result and, where nobody can tell the difference, claim the next row in that commit."""
        if self._may_claim_with_result() and self._quota.take():
            try:
                self._next = self._task_store.finish_and_claim(row)
            finally:
                if self._next is None:
                    self._quota.give_back()
        else:
            self._task_store.finish(row)
        self._status.enter(State.RUNNING)

    def _may_claim_with_result(self) -> bool:
        # A receiver of task_finished may enqueue something more urgent: then the next claim comes after it.
        return not (self._options.listeners.task_finished or self._next is not None or self._stop.asked())
