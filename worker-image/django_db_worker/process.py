"""One worker process: its slots, one in the main thread or several in threads, and its signals."""

import gc
import logging
import os
import select
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from django.db import connections
from django.utils.autoreload import DJANGO_AUTORELOAD_ENV, run_with_reloader

from .after_fork import SETTING, Hook
from .database import OutageLog
from .errors import AbandonedError, NotMigratedError, RefusedError
from .memory import volunteer
from .options import Options
from .outcome import LostTask
from .quota import Quota, RecycleToken
from .slot import Slot, SlotOptions
from .stacks import Stacks
from .status_board import State, StatusBoard
from .stop import PARENT_CHECK_SECONDS, Stop
from .surroundings import Surroundings
from .wakes import Wakes

logger = logging.getLogger("django_tasks_db")

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)

# How a supervised process ends, for its supervisor.
DONE, CRASHED, RECYCLE, NOT_MIGRATED, REFUSED = 0, 1, 3, 5, 6


@dataclass(frozen=True)
class ProcessContext:
    """What a supervisor gives to one of its processes, beside the ``Worker`` that all share."""

    number: int
    supervisor_pid: int
    recycle_token: RecycleToken
    stacks: Stacks | None
    lost_tasks: Mapping[int, LostTask]  # by thread: those of the process before this one, to be settled


@dataclass(frozen=True)
class Worker:
    """What all processes of a worker share."""

    options: Options
    slot_options: SlotOptions
    board: StatusBoard
    outages: OutageLog
    after_fork: Hook | None

    @contextmanager
    def wakes(self) -> Iterator[Wakes]:
        """What wakes the slots of one process, while they run."""
        options = self.slot_options
        wakes = Wakes(options.wanted, options.interval, enabled=not options.batch)
        try:
            yield wakes
        finally:
            wakes.close()

    def slot(self, process: int, thread: int, stop: Stop, quota: Quota, wakes: Wakes) -> Slot:
        """Build a slot. Its connection opens in the thread that runs it."""
        return Slot(
            worker_id=self.options.slot_id(process, thread),
            slot_options=self.slot_options,
            stop=stop,
            status=self.board.slot(process, thread),
            quota=quota,
            outages=self.outages,
            wakes=wakes,
        )


def run_here(worker: Worker) -> None:
    """Run the only slot of an unsupervised worker in this thread: upstream's worker, with its signals.

    Raises:
        NotMigratedError, RefusedError, AbandonedError: the slot has ended for this reason.
    """
    stop = Stop()
    status = worker.board.slot(0, 0)

    def asked(signum: int, _: FrameType | None) -> None:
        second = stop.requested
        # First, so that the request is not lost, whatever happens in the log.
        stop.request()
        if stop.in_task or status.state is State.IDLE:
            # Elsewhere, the code that this interrupts may hold the lock of the log.
            log_signal(signum, second=second)
        if second:
            stop.end_now()

    def missed(signums: bytes) -> None:
        # These came while a task had a handler of its own.
        for signum in signums:
            if signum in STOP_SIGNALS and not stop.requested:
                asked(signum, None)

    try:
        with (
            worker.wakes() as wakes,
            _handling(dict.fromkeys(STOP_SIGNALS, asked)),
            _restoring(stop, missed),
        ):
            worker.slot(0, 0, stop, Quota(worker.options.max_tasks), wakes).run()
    finally:
        stop.close()


def run_reloaded(worker: Worker) -> None:
    """Do what ``run_here`` does in a thread, because Django's reloader has the main thread and SIGTERM."""
    stop = Stop()

    def work() -> None:
        with worker.wakes() as wakes, _restoring(stop):
            worker.slot(0, 0, stop, Quota(worker.options.max_tasks), wakes).run()
        if stop.requested:
            os.kill(os.getpid(), signal.SIGTERM)

    def asked(signum: int, _: FrameType | None) -> None:
        log_signal(signum, second=stop.requested)
        if stop.requested:
            raise SystemExit(1)
        stop.request()

    # The reloader runs this in two processes, and only its child is to work.
    child = os.environ.get(DJANGO_AUTORELOAD_ENV) == "true"
    with _handling(dict.fromkeys((signal.SIGINT, signal.SIGQUIT), asked) if child else {}):
        run_with_reloader(work)


def run_supervised(worker: Worker, context: ProcessContext) -> int:
    """Run the slots of one process, which has just been forked; return its exit code.

    SIGTERM and SIGINT ask it to stop, however often they come, because systemd and terminals send them to a
    whole process group. SIGQUIT, from the supervisor, ends it at once.
    """
    volunteer()
    if context.stacks is not None:
        context.stacks.arm()
    first = worker.board.slot(context.number, 0)
    stop = Stop(parent=context.supervisor_pid, told=lambda: first.stopping)
    replaced = not worker.options.batch
    quota = Quota(worker.options.max_tasks, lambda: not replaced or context.recycle_token.take(first))
    threads = worker.options.threads

    def asked(signum: int, _: FrameType | None) -> None:
        if signum != signal.SIGQUIT:
            stop.request()
        elif threads == 1:
            stop.end_now()
        else:
            # Threads cannot be interrupted. The supervisor stores that their tasks have failed.
            os._exit(CRASHED)

    with _handling(dict.fromkeys(STOP_SIGNALS, asked)):
        # They have been blocked since before the fork, because the supervisor's handlers were still in place.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        if worker.after_fork is not None:
            try:
                worker.after_fork()
            except Exception:
                logger.exception("The function that %s names failed, so the process ends.", SETTING)
                return CRASHED
        with worker.wakes() as wakes, _restoring(stop) as surroundings:
            runners = [_SlotRunner(worker, context, thread, stop, quota, wakes) for thread in range(threads)]
            ends = [runners[0].run()] if threads == 1 else _run_threads(runners, stop)
    for end in (NOT_MIGRATED, REFUSED, CRASHED):
        if end in ends:
            return end
    return RECYCLE if first.recycling or surroundings.gave_up else DONE


def settle(worker: Worker, lost_tasks: Sequence[Mapping[int, LostTask]], error: BaseException) -> None:
    """Store that the tasks of processes that are gone have failed; runs in a process of its own, at the end.

    ``lost_tasks`` has what is known of each process's tasks, by thread; all others fail with ``error``.
    """
    for process in range(worker.options.processes):
        for thread in range(worker.options.threads):
            status = worker.board.slot(process, thread)
            if status.unsettled:
                lost = lost_tasks[process].get(thread)
                wakes = Wakes(worker.slot_options.wanted, worker.options.interval, enabled=False)
                slot = worker.slot(process, thread, Stop(), Quota(None), wakes)
                slot.settle(lost.error if lost is not None and lost.task == status.task else error)


def log_signal(signum: int, *, second: bool) -> None:
    """Log a request to stop, in upstream's words."""
    if second:
        logger.warning("Received %s - terminating current task.", signal.strsignal(signum))
    else:
        logger.warning(
            "Received %s - shutting down gracefully... (press Ctrl+C again to force)",
            signal.strsignal(signum),
        )


class _SlotRunner:
    """Runs one slot of a process in the thread that calls it."""

    def __init__(
        self,
        worker: Worker,
        context: ProcessContext,
        thread: int,
        stop: Stop,
        quota: Quota,
        wakes: Wakes,
    ) -> None:
        self._slot = worker.slot(context.number, thread, stop, quota, wakes)
        self._status = worker.board.slot(context.number, thread)
        self._lost = context.lost_tasks.get(thread)
        self._stop = stop
        self.name = self._slot.worker_id.rpartition("/")[2]

    def run(self) -> int:
        """Settle what the last process has lost, then work; return how that ended."""
        self._status.thread = threading.get_ident()
        try:
            if self._lost is not None and self._lost.task == self._status.task:
                self._slot.settle(self._lost.error)
            self._slot.run()
        except NotMigratedError:
            end = NOT_MIGRATED
        except RefusedError:
            end = REFUSED
        except AbandonedError as error:
            logger.error("%s", error)  # noqa: TRY400
            end = CRASHED
        except Exception:
            logger.exception("Worker %s failed.", self._slot.worker_id)
            end = CRASHED
        else:
            return DONE
        finally:
            connections.close_all()
        # The whole process ends, after the other slots have finished their tasks.
        self._stop.request()
        return end


def _run_threads(runners: list[_SlotRunner], stop: Stop) -> list[int]:
    ends: list[int] = []
    done_reader, done_writer = os.pipe()

    def work(runner: _SlotRunner) -> None:
        end = CRASHED
        try:
            end = runner.run()
        finally:
            ends.append(end)
            os.write(done_writer, b"x")

    threads = [
        threading.Thread(target=work, args=(runner,), name=runner.name, daemon=True) for runner in runners
    ]
    for thread in threads:
        thread.start()
    # The main thread must not block for long: signal handlers run in it.
    poll = select.poll()
    poll.register(done_reader, select.POLLIN)
    while len(ends) < len(runners):
        if poll.poll(PARENT_CHECK_SECONDS * 1000):
            os.read(done_reader, len(runners))
        stop.asked()
    for thread in threads:
        thread.join()
    return ends


def prepare_fork() -> None:
    """Close what forked processes must not share, and freeze the rest so that they do."""
    for connection in connections.all(initialized_only=True):
        connection.close()
        # Not `connection.pool`, which would create one.
        if connection.alias in getattr(connection, "_connection_pools", {}):
            connection.close_pool()  # type: ignore[attr-defined]
    gc.collect()
    # Objects that exist now are not collected in a fork, so its pages stay shared.
    gc.freeze()


@contextmanager
def _restoring(stop: Stop, missed: Callable[[bytes], None] | None = None) -> Iterator[Surroundings]:
    """Restore the process after each task; ``missed`` is called with the signals that came meanwhile."""
    surroundings = stop.surroundings = Surroundings(stop.request, missed)
    try:
        yield surroundings
    finally:
        stop.surroundings = None
        surroundings.close()


Handler = Callable[[int, FrameType | None], None]


@contextmanager
def _handling(handlers: dict[signal.Signals, Handler]) -> Iterator[None]:
    """Handle these signals for a while. Python only can in the main thread; in others this does nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {signum: signal.signal(signum, handler) for signum, handler in handlers.items()}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler if handler is not None else signal.SIG_DFL)
