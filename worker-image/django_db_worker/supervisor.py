"""Starts, watches, replaces and ends the processes of a worker. It can be PID 1 of a container.

It has one thread and no database connection, because it forks: at the start, and to replace a process.
"""

import atexit
import logging
import os
import selectors
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from types import FrameType

from . import process
from .after_fork import warn_of_threads
from .child import Child
from .errors import PROCESS_DIED, AbandonedError, NotMigratedError, RefusedError
from .health import Answer, HealthServer
from .memory import TICK_SECONDS as MEMORY_TICK_SECONDS
from .memory_watch import MemoryWatch
from .metrics import exposition
from .overdue import KILL_AFTER_SECONDS
from .process import CRASHED, DONE, NOT_MIGRATED, RECYCLE, REFUSED, STOP_SIGNALS, ProcessContext, Worker
from .quota import RecycleToken
from .shortage import ShortageWatch
from .stacks import Stacks
from .status_board import State
from .stuck import StuckLimits
from .time_watch import TimeWatch

logger = logging.getLogger("django_tasks_db")

QUICK_SECONDS = 10.0
QUICK_FAILURES = 5
FIRST_BACKOFF_SECONDS = 0.5
LONGEST_BACKOFF_SECONDS = 30.0
TICK_SECONDS = 1.0
RECYCLE_TICK_SECONDS = 0.05

CRASH_LOOP = 4


class Supervisor:
    """Runs a worker of several slots, or one that answers probes."""

    def __init__(self, worker: Worker, *, stuck_seconds: float) -> None:
        """Open the health port; ``stuck_seconds`` is how long a slot without a task may be silent.

        Raises:
            OSError: the health port is in use or not allowed.
        """
        self._worker = worker
        options = worker.options
        self._stuck_limits = StuckLimits(stuck_seconds, worker.slot_options.interval)
        self._children = [
            Child(number, worker.board.of_process(number), Stacks() if options.task_timeout else None)
            for number in range(options.processes)
        ]
        self._time_watches = [
            TimeWatch(child, child.stacks, options.task_timeout, self._stuck_limits)
            for child in self._children
            if child.stacks is not None
        ]
        self._memory_watch = MemoryWatch(options.max_memory) if options.max_memory is not None else None
        self._shortage_watch = ShortageWatch() if ShortageWatch.is_useful(options.processes) else None
        self._recycle_token = RecycleToken()
        self._recycled: Child | None = None
        self._stop_signals = 0
        self._exit: int | None = None
        self._ended_at_once: float | None = None
        self._selector = selectors.DefaultSelector()
        pages = {"/healthz": self._healthz, "/readyz": self._readyz, "/metrics": self._metrics}
        port = options.health_port
        self._health = HealthServer(port, pages, self._selector) if port is not None else None
        self._signals, self._signals_writer = os.pipe()
        os.set_blocking(self._signals, False)
        os.set_blocking(self._signals_writer, False)
        self._selector.register(self._signals, selectors.EVENT_READ, lambda: None)

    def run(self) -> int:
        """Work until all processes have ended for good; return the exit code.

        Raises:
            NotMigratedError, RefusedError: the processes have ended for this reason.
            AbandonedError: a row may still be RUNNING.
        """
        handled = (*STOP_SIGNALS, signal.SIGCHLD)
        # The signals' numbers arrive through the pipe; the handler only prevents the default action. The pipe
        # comes first, because a signal between the two steps would be lost.
        wakeup = signal.set_wakeup_fd(self._signals_writer, warn_on_full_buffer=False)
        before = {signum: signal.signal(signum, _ignore) for signum in handled}
        process.prepare_fork()
        # The threads of a database's pool have ended with it.
        warn_of_threads(self._worker.after_fork)
        try:
            while self._once():
                pass
            self._settle()
        finally:
            if self._shortage_watch is not None:
                self._shortage_watch.withdraw()
            signal.set_wakeup_fd(wakeup)
            for signum, handler in before.items():
                signal.signal(signum, handler)
            if self._health is not None:
                self._health.close()
            self._selector.close()
        if self._exit == NOT_MIGRATED:
            raise NotMigratedError
        if self._exit == REFUSED:
            raise RefusedError
        if any(slot.unsettled for slot in self._worker.board.all):
            raise AbandonedError
        return self._exit or 0

    def _once(self) -> bool:
        now = time.monotonic()
        for child in self._children:
            if child.pid is None and child.due is not None and child.due <= now:
                self._start(child)
        self._wait(now)
        self._heed_signals()
        self._reap()
        self._watch()
        return any(child.pid is not None or child.due is not None for child in self._children)

    def _wait(self, now: float) -> None:
        due = [child.due - now for child in self._children if child.pid is None and child.due is not None]
        due += [seconds for watch in self._time_watches for seconds in watch.seconds_left()]
        tick = TICK_SECONDS
        may_run_short = self._shortage_watch is not None and any(slot.task for slot in self._worker.board.all)
        if self._memory_watch is not None or may_run_short:
            tick = MEMORY_TICK_SECONDS
        if self._recycled is not None or any(watch.waiting for watch in self._time_watches):
            tick = RECYCLE_TICK_SECONDS
        for key, _ in self._selector.select(max(0.0, min([tick, *due]))):
            key.data()
        if self._health is not None:
            self._health.drop_silent()

    # Processes

    def _start(self, child: Child) -> None:
        for slot in child.slots:
            slot.enter(State.NEW)
            slot.recycling = slot.stopping = False
        worker = self._worker
        if child.started:
            worker = replace(worker, slot_options=replace(worker.slot_options, startup_delay=False))
        context = ProcessContext(
            number=child.number,
            supervisor_pid=os.getpid(),
            recycle_token=self._recycle_token,
            stacks=child.stacks,
            lost_tasks=dict(child.lost_tasks),
        )
        child.has_started(self._fork(lambda: process.run_supervised(worker, context)), time.monotonic())

    def _fork(self, work: Callable[[], int]) -> int:
        """Run ``work`` in a process of its own, whose exit code it returns; return the process id."""
        sys.stdout.flush()
        sys.stderr.flush()
        # Until the forked process has its own handlers, a signal to it would count as one to the supervisor.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        pid = os.fork()
        if pid:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            return pid
        code = CRASHED
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            # A terminal's Ctrl+C is for the supervisor, which passes it on.
            os.setpgid(0, 0)
            self._selector.close()
            if self._health is not None:
                self._health.close()
            code = work()
        except BaseException:
            logger.exception("A worker process failed.")
        finally:
            # Do not return to the supervisor's code: only do what the interpreter does at its end.
            atexit._run_exitfuncs()  # noqa: SLF001
            with suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _reap(self) -> None:
        """Collect every process that has ended: as PID 1, also orphans of other processes."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            child = next((each for each in self._children if each.pid == pid), None)
            if child is not None:
                child.pid = None
                self._ended(child, os.waitstatus_to_exitcode(status))

    def _ended(self, child: Child, code: int) -> None:
        for slot in child.slots:
            slot.enter(State.ENDED)
        if self._recycled is child:
            self._recycled = None
            self._recycle_token.put_back()
        if code in {NOT_MIGRATED, REFUSED}:
            self._stop(code)
        elif child.leaving_since is not None and code in {DONE, RECYCLE, -signal.SIGKILL}:
            child.quick_failures = 0
            self._replace(child, 0.0, done=False)
        elif code in {DONE, RECYCLE}:
            child.quick_failures = 0
            self._replace(child, 0.0 if code == RECYCLE else FIRST_BACKOFF_SECONDS, done=code == DONE)
        else:
            self._crashed(child, code)

    def _crashed(self, child: Child, code: int) -> None:
        if self._ended_at_once is not None:
            return
        how = f"by signal {-code}, {signal.strsignal(-code)}" if code < 0 else f"with exit code {code}"
        child.restarts += 1
        quick = time.monotonic() - child.started < QUICK_SECONDS
        child.quick_failures = child.quick_failures + 1 if quick else 0
        delay = min(FIRST_BACKOFF_SECONDS * 2 ** max(child.quick_failures - 1, 0), LONGEST_BACKOFF_SECONDS)
        logger.error("Worker process %d ended %s.", child.number + 1, how)
        # If a task has killed its process, only that task has failed, and it will not run again.
        if child.quick_failures >= QUICK_FAILURES and not any(slot.task for slot in child.slots):
            logger.error(
                "Worker process %d failed %d times in a row. Giving up.",
                child.number + 1,
                child.quick_failures,
            )
            self._stop(CRASH_LOOP)
        self._replace(child, delay, done=False)

    def _replace(self, child: Child, delay: float, *, done: bool) -> None:
        done = self._exit is not None or self._stop_signals > 0 or (done and self._worker.options.batch)
        if child.slots[0].recycling:
            child.slots[0].recycling = False
            self._recycled = child
        if not done:
            child.due = time.monotonic() + delay
        elif self._recycled is child:
            self._recycled = None

    # Ending

    def _heed_signals(self) -> None:
        with suppress(BlockingIOError):
            for signum in os.read(self._signals, 4096):
                if signum in STOP_SIGNALS:
                    self._stop_signals += 1
                    process.log_signal(signum, second=self._stop_signals > 1)
                    if self._stop_signals == 1:
                        self._stop(0)
                    else:
                        self._end_at_once()

    def _stop(self, code: int) -> None:
        """Ask every process to finish. The first ``code`` is the supervisor's exit code."""
        if self._exit is None:
            self._exit = code
            for child in self._children:
                child.ask_to_stop()
        for child in self._children:
            child.due = None

    def _end_at_once(self) -> None:
        self._stop(0)
        if self._ended_at_once is None:
            self._ended_at_once = time.monotonic()
            for child in self._children:
                child.send(signal.SIGQUIT)

    def _settle(self) -> None:
        """Store the failure of tasks that were killed with their process, if no new process will."""
        if not any(slot.unsettled for slot in self._worker.board.all):
            return
        error: BaseException = ChildProcessError(PROCESS_DIED)
        if self._ended_at_once is not None:
            # The exception that upstream raises in the task itself.
            error = SystemExit("The worker was told to end at once.")

        def work() -> int:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
            for signum in (*STOP_SIGNALS, signal.SIGALRM):
                signal.signal(signum, signal.SIG_DFL)
            signal.alarm(int(KILL_AFTER_SECONDS))
            process.settle(self._worker, [child.lost_tasks for child in self._children], error)
            return DONE

        os.waitpid(self._fork(work), 0)

    # Watching

    def _watch(self) -> None:
        now = time.monotonic()
        if self._ended_at_once is not None and now - self._ended_at_once > KILL_AFTER_SECONDS:
            for child in self._children:
                child.send(signal.SIGKILL)
        # One process at a time: the next one may leave once the new one has queried the table.
        fresh = self._recycled
        if fresh is not None and any(slot.claims for slot in fresh.slots):
            self._recycled = None
            self._recycle_token.put_back()
        for child in self._children:
            if child.pid is not None:
                self._watch_stuck(child, now)
        for watch in self._time_watches:
            watch.watch(now)
        if self._memory_watch is not None:
            self._memory_watch.watch(self._children, now)
        if self._shortage_watch is not None:
            self._shortage_watch.watch(self._children, now)

    def _watch_stuck(self, child: Child, now: float) -> None:
        if child.stuck_since is None:
            if any(map(self._stuck_limits.exceeded_by, child.slots)):
                logger.error("Worker process %d is stuck. It will be replaced.", child.number + 1)
                child.stuck_since = now
                child.ask_to_stop()
        # Tasks of the other slots may finish.
        elif now - child.stuck_since > KILL_AFTER_SECONDS and not any(
            slot.state is State.RUNNING for slot in child.slots
        ):
            child.send(signal.SIGKILL)

    # Pages

    def _healthz(self) -> Answer:
        stuck = [
            f"{child.number + 1}.{thread + 1}"
            for child in self._children
            if child.pid is not None
            for thread, slot in enumerate(child.slots)
            if self._stuck_limits.exceeded_by(slot)
        ]
        return Answer(503, f"stuck: {', '.join(stuck)}\n") if stuck else Answer(200, "ok\n")

    def _readyz(self) -> Answer:
        if self._exit is not None:
            return Answer(503, "stopping\n")
        if any(slot.claims for slot in self._worker.board.all):
            return Answer(200, "ok\n")
        return Answer(503, "no slot has looked at the task table\n")

    def _metrics(self) -> Answer:
        return Answer(
            200, exposition(self._worker.board, restarts=sum(child.restarts for child in self._children))
        )


def _ignore(_signum: int, _frame: FrameType | None) -> None:
    pass
