"""Keeps a worker's processes: starts, watches, replaces and ends them. Works as PID 1 of a container.

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
from dataclasses import dataclass, field, replace
from types import FrameType

from . import memory, process
from .after_fork import warn_of_threads
from .errors import (
    PROCESS_DIED,
    AbandonedError,
    NotMigratedError,
    RefusedError,
    grew_too_large,
    timed_out,
)
from .health import Answer, HealthServer
from .memory import Verdict
from .metrics import exposition
from .overdue import KILL_AFTER_SECONDS, Overdue, may_finish
from .process import CRASHED, DONE, NOT_MIGRATED, RECYCLE, REFUSED, STOP_SIGNALS, Loss, Place, Worker
from .quota import RecycleToken
from .stacks import Stacks
from .status_board import SlotStatus, State

logger = logging.getLogger("django_tasks_db")

QUICK_SECONDS = 10.0
QUICK_FAILURES = 5
FIRST_BACKOFF_SECONDS = 0.5
LONGEST_BACKOFF_SECONDS = 30.0
# Connecting to an address that swallows packets takes the kernel two minutes to give up.
STUCK_CONNECTING_SECONDS = 300.0
TICK_SECONDS = 1.0
RECYCLE_TICK_SECONDS = 0.05
MEMORY_TICK_SECONDS = 0.25
# How long a process that is to be killed may still store the results of tasks that have finished.
LAST_RESULTS_SECONDS = 2.0

CRASH_LOOP = 4


@dataclass
class _Child:
    """The worker's nth process: the one that runs, or when the next one is due."""

    number: int
    pid: int | None = None
    started: float = 0.0
    due: float | None = 0.0  # when to start a process here; None: never again
    failures: int = 0  # quick ones, in a row
    given_up_since: float | None = None
    stacks: Stacks | None = None
    overdue: dict[int, Overdue] = field(default_factory=dict)  # by thread
    asked_to_leave: float | None = None  # since when: it will be replaced, whatever its exit code
    killed: bool = False
    doomed_since: float | None = None  # it has grown so much that it will be killed
    losses: dict[int, Loss] = field(default_factory=dict)  # by thread: for the next process to settle


class Supervisor:
    """Runs a worker of several slots, or one that answers probes."""

    def __init__(self, worker: Worker, *, stuck_seconds: float) -> None:
        """Raises OSError when the health port cannot be had."""
        self._worker = worker
        self._stuck_seconds = stuck_seconds
        timed = worker.options.task_timeout > 0
        self._children = [
            _Child(number, stacks=Stacks() if timed else None) for number in range(worker.options.processes)
        ]
        self._recycle_token = RecycleToken()
        self._recycled: _Child | None = None
        self._restarts = 0
        self._stop_signals = 0
        self._measured = 0.0
        self._exit: int | None = None
        self._ended_at_once: float | None = None
        self._selector = selectors.DefaultSelector()
        pages = {"/healthz": self._healthz, "/readyz": self._readyz, "/metrics": self._metrics}
        port = worker.options.health_port
        self._health = HealthServer(port, pages, self._selector) if port is not None else None
        self._signals, self._signals_writer = os.pipe()
        os.set_blocking(self._signals, False)
        os.set_blocking(self._signals_writer, False)
        self._selector.register(self._signals, selectors.EVENT_READ, lambda: None)

    def run(self) -> int:
        """Work until all processes have ended for good; return the exit code.

        Raises NotMigratedError, RefusedError and AbandonedError.
        """
        handled = (*STOP_SIGNALS, signal.SIGCHLD)
        # The numbers arrive through the pipe; a handler only keeps the default action away. The pipe is
        # first: a signal between the two would be heeded by neither.
        wakeup = signal.set_wakeup_fd(self._signals_writer, warn_on_full_buffer=False)
        before = {signum: signal.signal(signum, _ignore) for signum in handled}
        process.prepare_fork()
        # Those of a database's pool have gone with it.
        warn_of_threads(self._worker.after_fork)
        try:
            while self._once():
                pass
            self._settle()
        finally:
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
        due += [deadline - now for deadline in self._deadlines(now)]
        asking = any(child.overdue for child in self._children)
        tick = MEMORY_TICK_SECONDS if self._worker.options.max_memory is not None else TICK_SECONDS
        if self._recycled is not None or asking:
            tick = RECYCLE_TICK_SECONDS
        for key, _ in self._selector.select(max(0.0, min([tick, *due]))):
            key.data()
        if self._health is not None:
            self._health.drop_silent()

    # Processes

    def _start(self, child: _Child) -> None:
        slots = self._worker.board.of_process(child.number)
        for slot in slots:
            slot.enter(State.NEW)
            slot.leaving = slot.stopping = False
        worker = self._worker
        if child.started:
            worker = replace(worker, slot_options=replace(worker.slot_options, startup_delay=False))
        place = Place(child.number, os.getpid(), self._recycle_token, child.stacks, dict(child.losses))
        child.pid = self._fork(lambda: process.run_supervised(worker, place))
        child.started, child.due = time.monotonic(), None
        child.given_up_since = child.asked_to_leave = child.doomed_since = None
        child.killed = False

    def _fork(self, work: Callable[[], int]) -> int:
        """Run `work` in a process of its own, whose exit code it returns; return the process id."""
        sys.stdout.flush()
        sys.stderr.flush()
        # A signal between the fork and the fork's own handlers would be taken for the supervisor's.
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
            # Not the supervisor's stack: only what the interpreter does at its end.
            atexit._run_exitfuncs()  # noqa: SLF001
            with suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _reap(self) -> None:
        """Collect every process that has ended: as PID 1, also those that others left behind."""
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

    def _ended(self, child: _Child, code: int) -> None:
        slots = self._worker.board.of_process(child.number)
        for slot in slots:
            slot.enter(State.ENDED)
        if self._recycled is child:
            self._recycled = None
            self._recycle_token.put_back()
        child.overdue.clear()
        if code in {NOT_MIGRATED, REFUSED}:
            self._stop(code)
        elif child.asked_to_leave is not None and code in {DONE, RECYCLE, -signal.SIGKILL}:
            child.failures = 0
            self._replace(child, slots, 0.0, done=False)
        elif code in {DONE, RECYCLE}:
            child.failures = 0
            self._replace(child, slots, 0.0 if code == RECYCLE else FIRST_BACKOFF_SECONDS, done=code == DONE)
        else:
            self._crashed(child, slots, code)

    def _crashed(self, child: _Child, slots: list[SlotStatus], code: int) -> None:
        if self._ended_at_once is not None:
            return
        how = f"by signal {-code}, {signal.strsignal(-code)}" if code < 0 else f"with exit code {code}"
        self._restarts += 1
        quick = time.monotonic() - child.started < QUICK_SECONDS
        child.failures = child.failures + 1 if quick else 0
        delay = min(FIRST_BACKOFF_SECONDS * 2 ** max(child.failures - 1, 0), LONGEST_BACKOFF_SECONDS)
        logger.error("Worker process %d ended %s.", child.number + 1, how)
        # A task that kills its process is that task's failure: it will not come again.
        if child.failures >= QUICK_FAILURES and not any(slot.task for slot in slots):
            logger.error(
                "Worker process %d failed %d times in a row. Giving up.", child.number + 1, child.failures
            )
            self._stop(CRASH_LOOP)
        self._replace(child, slots, delay, done=False)

    def _replace(self, child: _Child, slots: list[SlotStatus], delay: float, *, done: bool) -> None:
        done = self._exit is not None or self._stop_signals > 0 or (done and self._worker.options.batch)
        if slots[0].leaving:
            slots[0].leaving = False
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
        """Ask every process to finish; the first reason is the exit code."""
        if self._exit is None:
            self._exit = code
            for child in self._children:
                self._ask_to_stop(child)
        for child in self._children:
            child.due = None

    def _ask_to_stop(self, child: _Child) -> None:
        """Have a process claim nothing more; what runs is finished."""
        if child.pid is not None:
            # A task may keep the signal from its process. It reads this when the task has ended.
            self._worker.board.slot(child.number, 0).stopping = True
            os.kill(child.pid, signal.SIGTERM)

    def _end_at_once(self) -> None:
        self._stop(0)
        if self._ended_at_once is None:
            self._ended_at_once = time.monotonic()
            self._send(signal.SIGQUIT)

    def _send(self, signum: signal.Signals) -> None:
        for child in self._children:
            if child.pid is not None:
                os.kill(child.pid, signum)

    def _settle(self) -> None:
        """Store the failure of tasks that were killed with their process, where no new process will."""
        if not any(slot.unsettled for slot in self._worker.board.all):
            return
        error: BaseException = ChildProcessError(PROCESS_DIED)
        if self._ended_at_once is not None:
            # What upstream raises in the task itself.
            error = SystemExit("The worker was told to end at once.")

        def work() -> int:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
            for signum in (*STOP_SIGNALS, signal.SIGALRM):
                signal.signal(signum, signal.SIG_DFL)
            signal.alarm(int(KILL_AFTER_SECONDS))
            process.settle(self._worker, [child.losses for child in self._children], error)
            return DONE

        os.waitpid(self._fork(work), 0)

    # Watching

    def _watch(self) -> None:
        now = time.monotonic()
        if self._ended_at_once is not None and now - self._ended_at_once > KILL_AFTER_SECONDS:
            self._send(signal.SIGKILL)
        # The next process may leave once the fresh one works: never all at once.
        fresh = self._recycled
        if fresh is not None and any(each.claims for each in self._worker.board.of_process(fresh.number)):
            self._recycled = None
            self._recycle_token.put_back()
        for child in self._children:
            if child.pid is not None:
                self._watch_child(child, child.pid, now)
            if child.pid is not None and child.stacks is not None and not child.killed:
                self._watch_time(child, child.pid, child.stacks, now)
        self._watch_memory(now)

    def _watch_child(self, child: _Child, pid: int, now: float) -> None:
        slots = self._worker.board.of_process(child.number)
        if child.given_up_since is None:
            if any(self._is_stuck(slot) for slot in slots):
                logger.error("Worker process %d is stuck. It will be replaced.", child.number + 1)
                child.given_up_since = now
                self._ask_to_stop(child)
        elif now - child.given_up_since > KILL_AFTER_SECONDS and all(
            # What still runs beside the stuck slot may finish.
            slot.state is not State.RUNNING
            for slot in slots
        ):
            os.kill(pid, signal.SIGKILL)

    # Tasks that run for longer than they may: their process claims nothing more, says where it is, and is
    # killed when nothing else runs in it. The next process there stores what became of them.

    def _deadlines(self, now: float) -> list[float]:
        limit = self._worker.options.task_timeout
        if not limit:
            return []
        return [
            now + limit - slot.seconds_in_state
            for child in self._children
            if child.pid is not None
            for thread, slot in enumerate(self._worker.board.of_process(child.number))
            if slot.state is State.RUNNING and thread not in child.overdue
        ]

    def _watch_time(self, child: _Child, pid: int, stacks: Stacks, now: float) -> None:
        limit = self._worker.options.task_timeout
        slots = self._worker.board.of_process(child.number)
        late = {
            thread: slot
            for thread, slot in enumerate(slots)
            if slot.state is State.RUNNING and slot.seconds_in_state > limit
        }
        # The others have ended after all, in time for their own result.
        child.overdue = {
            thread: overdue
            for thread, overdue in child.overdue.items()
            if thread in late and late[thread].task == overdue.task
        }
        new = late.keys() - child.overdue.keys()
        for thread in new:
            task = late[thread].task
            what = "A receiver of task_finished" if task is None else f"Task id={task}"
            logger.error("%s has run for more than %d s and will be ended.", what, limit)
            child.overdue[thread] = Overdue(task)
        if new:
            self._ask_to_leave(child, now)
            stacks.ask(pid)
        elif stacks.answered():
            for thread, overdue in child.overdue.items():
                if overdue.stack is None:
                    overdue.stack = stacks.read(slots[thread].thread)
        if child.overdue and all(each.stack is not None for each in child.overdue.values()):
            others = [slot for thread, slot in enumerate(slots) if thread not in child.overdue]
            leaving_seconds = None if child.asked_to_leave is None else now - child.asked_to_leave
            if not any(may_finish(slot, self._is_stuck(slot), leaving_seconds) for slot in others):
                self._kill_overdue(child, pid, slots)

    def _kill_overdue(self, child: _Child, pid: int, slots: list[SlotStatus]) -> None:
        limit = self._worker.options.task_timeout
        for thread, overdue in child.overdue.items():
            if overdue.task is not None:
                child.losses[thread] = Loss(overdue.task, timed_out(limit, overdue.stack or ""))
        # Last of all: one that has just ended is not to be killed while it stores its result.
        if all(slots[thread].state is State.RUNNING for thread in child.overdue):
            logger.error("Worker process %d is replaced: a task in it ran for too long.", child.number + 1)
            self._kill(child, pid)

    # Processes that grow: above the limit they leave between tasks, and are killed before the kernel has to
    # choose one.

    def _watch_memory(self, now: float) -> None:
        limit = self._worker.options.max_memory
        if limit is None or now - self._measured < MEMORY_TICK_SECONDS / 2:
            return
        self._measured = now
        sizes = [
            (memory.used_by(child.pid) or 0, child, child.pid)
            for child in self._children
            if child.pid is not None and not child.killed
        ]
        largest = max((used for used, _, _ in sizes), default=0)
        scarce = largest > limit and memory.is_scarce()
        for used, child, pid in sizes:
            verdict = memory.judge(used, limit, scarce=scarce and used == largest)
            if verdict is Verdict.KILL:
                self._kill_large(child, pid, now, memory.in_mib(used))
            elif verdict is Verdict.LEAVE and child.asked_to_leave is None:
                logger.warning(
                    "Worker process %d uses %s of memory, more than --max-memory-per-process (%s). "
                    "It is replaced when its tasks have finished.",
                    child.number + 1,
                    memory.in_mib(used),
                    memory.in_mib(limit),
                )
                self._ask_to_leave(child, now)

    def _kill_large(self, child: _Child, pid: int, now: float, used: str) -> None:
        if child.doomed_since is None:
            child.doomed_since = now
        self._ask_to_leave(child, now)
        slots = self._worker.board.of_process(child.number)
        storing = any(slot.state is State.FINISHING for slot in slots)
        if storing and now - child.doomed_since < LAST_RESULTS_SECONDS:
            return
        limit = memory.in_mib(self._worker.options.max_memory or 0)
        error = grew_too_large(used, limit, shared=len(slots) > 1)
        for thread, slot in enumerate(slots):
            if slot.task is not None:
                child.losses[thread] = Loss(slot.task, error)
        self._kill(child, pid)
        logger.error(
            "Worker process %d uses %s of memory, far more than --max-memory-per-process (%s). It is killed.",
            child.number + 1,
            used,
            limit,
        )

    def _kill(self, child: _Child, pid: int) -> None:
        child.killed = True
        self._restarts += 1
        os.kill(pid, signal.SIGKILL)

    def _ask_to_leave(self, child: _Child, now: float) -> None:
        """Have a process end after what runs in it, to be replaced."""
        if child.asked_to_leave is None:
            child.asked_to_leave = now
            self._ask_to_stop(child)

    def _is_stuck(self, slot: SlotStatus) -> bool:
        state = slot.state
        if state in {State.RUNNING, State.ENDED}:
            return False
        limit = STUCK_CONNECTING_SECONDS if state is State.DISCONNECTED else self._stuck_seconds
        if state is State.IDLE:
            limit += self._worker.slot_options.interval
        return slot.seconds_in_state > limit

    # Pages

    def _healthz(self) -> Answer:
        stuck = [
            f"{child.number + 1}.{thread + 1}"
            for child in self._children
            if child.pid is not None
            for thread, slot in enumerate(self._worker.board.of_process(child.number))
            if self._is_stuck(slot)
        ]
        return Answer(503, f"stuck: {', '.join(stuck)}\n") if stuck else Answer(200, "ok\n")

    def _readyz(self) -> Answer:
        if self._exit is not None:
            return Answer(503, "stopping\n")
        if any(slot.claims for slot in self._worker.board.all):
            return Answer(200, "ok\n")
        return Answer(503, "no slot has looked at the task table\n")

    def _metrics(self) -> Answer:
        return Answer(200, exposition(self._worker.board, restarts=self._restarts))


def _ignore(_signum: int, _frame: FrameType | None) -> None:
    pass
