"""A slot: claims a task, runs it and stores its result, over and over, in one thread with one connection."""

import decimal
import logging
import os
import random
import sys
from asyncio import events
from collections.abc import Callable
from contextlib import nullcontext, suppress
from contextvars import Context, copy_context
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NoReturn

from django.dispatch import Signal
from django_tasks_db.compat import TaskContext, TaskResultStatus, task_finished, task_started

from . import claim, outcome
from .database import OutageLog
from .errors import PROCESS_DIED
from .listeners import Listeners
from .log_lines import about
from .next_row import Wanted
from .outcome import Row
from .quota import Quota
from .reading import check
from .sessions import Sessions
from .status_board import SlotStatus, State
from .stop import Stop
from .task_store import TaskStore
from .wakes import Waiter, Wakes

logger = logging.getLogger("django_tasks_db")


@dataclass(frozen=True)
class SlotOptions:
    """The options that all slots of a worker have in common."""

    wanted: Wanted
    interval: float
    batch: bool
    startup_delay: bool
    began: datetime
    listeners: Listeners


@dataclass(frozen=True)
class _Resolved:
    """A row's task, ready to be called, and the sender of its signals."""

    call: Callable[[], Any]
    # A class, as Django documents. Upstream sends an instance when a task starts, and a class when it fails.
    sender: type


def _resolve(row: Row) -> _Resolved:
    """Find a row's task. This may import its module, and so raise anything."""
    check(row)
    # Tasks change the decimal context in place, so each gets a copy.
    decimal.setcontext(decimal.getcontext().copy())
    task = row.task
    result = row.task_result
    context: tuple[object, ...] = (TaskContext(task_result=result),) if task.takes_context else ()
    return _Resolved(lambda: task.call(*context, *result.args, **result.kwargs), type(task.get_backend()))


def _call(resolved: _Resolved) -> object:
    """Run a task's own code. A process that it has forked ends here, and so does an event loop."""
    pid = os.getpid()
    try:
        return resolved.call()
    finally:
        if os.getpid() != pid:
            _end_fork(sys.exc_info()[1])
        # Some libraries, such as Playwright with its "sync" API, leave a loop behind that seems to run. Then
        # Django would refuse every query of this thread.
        if events._get_running_loop() is not None:  # noqa: SLF001
            events._set_running_loop(None)  # noqa: SLF001


def _end_fork(error: BaseException | None) -> NoReturn:
    """End a process that a task has forked and that has returned from the task: it must not act as a worker.

    It shares the worker's connections, so it must not close them.
    """
    code = 0 if error is None else 1
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    elif error is not None:
        logger.error("A process that a task has forked failed:\n%s", outcome.formatted(error).rstrip())
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code & 0xFF)


def _is_imported(row: Row) -> bool:
    """Whether the row's task can be found without running the project's code."""
    return row.task_path.rpartition(".")[0] in sys.modules


def _log_receiver(receiver: object, row: Row, error: BaseException) -> None:
    name = getattr(receiver, "__qualname__", "a receiver")
    # As text, because a logger raises if it is given an exception that cannot be formatted.
    logger.error(
        "Task id=%s: %s of a signal failed; the task's result is not affected:\n%s",
        row.id,
        name,
        outcome.formatted(error).rstrip(),
    )


class Slot:
    """The loop of upstream's Worker, with a connection that stays open."""

    def __init__(
        self,
        *,
        worker_id: str,
        slot_options: SlotOptions,
        stop: Stop,
        status: SlotStatus,
        quota: Quota,
        outages: OutageLog,
        wakes: Wakes,
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
            wakes=wakes,
        )
        self._wakes = wakes
        self._waiter = Waiter(wakes)
        self._sessions = Sessions()
        self._next: Row | None = None

    def run(self) -> None:
        """Work until asked to stop, or until the batch or the quota ends."""
        try:
            with self._sessions.watched():
                self._work()
        finally:
            self._waiter.close()

    def _work(self) -> None:
        names = ",".join(self._options.wanted.queues) or "*"
        logger.info("Starting worker worker_id=%s queues=%s", self.worker_id, names)
        self.settle(ChildProcessError(PROCESS_DIED))
        if self._options.startup_delay and self._options.interval:
            # At random, so that the database does not get all workers at once.
            self._idle(random.random())  # noqa: S311
        while self._turn():
            pass
        self._task_store.close()
        self._status.enter(State.ENDED)

    def settle(self, error: BaseException) -> None:
        """Fail the task that this slot was running when its last process ended, if there was one."""
        row = self._task_store.leftover()
        if row is not None:
            with about(row, self.worker_id):
                outcome.fail(row, error)
                self._task_store.finish(row)
                self._tell_settled(row)

    def _tell_settled(self, row: Row) -> None:
        context = copy_context()
        with self._sessions.lent():
            try:
                sender = context.run(_resolve, row).sender
            except BaseException as error:  # noqa: BLE001
                logger.error(  # noqa: TRY400
                    "Task id=%s failed unexpectedly\n%s", row.id, outcome.formatted(error).rstrip()
                )
            else:
                context.run(self._tell, task_finished, sender, row)

    def _turn(self) -> bool:
        """Do one round of the loop; return False if it was the last one."""
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
            self._wakes.looks()
            row, looked = self._task_store.claim()
            if looked:
                self._note_look(row)
            if row is None:
                self._quota.give_back()
        if row is not None:
            # The request to stop came during the claim: no process needs to run this task.
            if self._stop.asked():
                self._task_store.give_back(row)
                return False
            with about(row, self.worker_id):
                self._run(row)
        elif looked and self._options.batch:
            logger.info("No more tasks to run for worker_id=%s - exiting gracefully.", self.worker_id)
            return False
        self._sessions.between_tasks()
        self._task_store.tidy()
        if row is None:
            self._await()
        return True

    def _note_look(self, row: Row | None) -> None:
        cause, self._waiter.cause = self._waiter.cause, None
        self._wakes.looked(cause, None if row is None else claim.seconds_ready(row))

    def _await(self) -> None:
        channel = self._wakes.take_probe()
        if channel is not None:
            self._task_store.send_probe(channel)
        self._status.enter(State.IDLE)
        self._waiter.wait(self._stop)

    def _idle(self, seconds: float) -> None:
        self._status.enter(State.IDLE)
        self._stop.wait(seconds)

    def _run(self, row: Row) -> None:
        """Run a claimed task, store its result, and send its signals."""
        self._status.enter(State.RUNNING)
        self._status.count_started(row.task_path, claim.seconds_ready(row))
        # What a task sets in its context, such as the language and the time zone, ends with the task.
        context = copy_context()
        sender = None
        try:
            with self._sessions.lent():
                with nullcontext() if _is_imported(row) else self._stop.task():
                    resolved = context.run(_resolve, row)
                sender = resolved.sender
                context.run(self._tell, task_started, sender, row)
                with self._stop.task():
                    value = context.run(_call, resolved)
                outcome.succeed(row, value)
        except BaseException as error:  # noqa: BLE001
            # Also SystemExit and the like, as upstream: a task cannot end the worker.
            outcome.fail(row, error)
            # Within the handler, because receivers log the exception that is being handled.
            self._conclude(row, sender, context)
        else:
            self._conclude(row, sender, context)
        took = (row.finished_at - row.started_at).total_seconds()
        successful = row.status == TaskResultStatus.SUCCESSFUL
        self._status.count_finished(row.task_path, took, successful=successful)

    def _conclude(self, row: Row, sender: type | None, context: Context) -> None:
        self._store(row)
        if sender is None:
            logger.error("Task id=%s failed unexpectedly\n%s", row.id, row.traceback.rstrip())
        else:
            with self._sessions.lent():
                context.run(self._tell, task_finished, sender, row)

    @staticmethod
    def _tell(signal: Signal, sender: type, row: Row) -> None:
        """Send a signal. An exception of a receiver is logged, and does not concern the task."""
        try:
            for receiver, answer in signal.send_robust(sender=sender, task_result=row.task_result):
                if isinstance(answer, Exception):
                    _log_receiver(receiver, row, answer)
        except BaseException as error:  # noqa: BLE001
            _log_receiver(None, row, error)

    def _store(self, row: Row) -> None:
        """Store the result and, if nobody can tell the difference, claim the next row in the same commit."""
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
        # A receiver of task_finished may enqueue something more urgent, so the next claim has to wait for it.
        return not (self._options.listeners.task_finished or self._next is not None or self._stop.asked())
