"""What a task changes in its process is restored. Each test runs in a forked process."""

from __future__ import annotations

import asyncio
import gc
import json
import locale
import logging
import os
import resource
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from django_db_worker.stop import Stop
from django_db_worker.surroundings import Surroundings

if TYPE_CHECKING:
    from collections.abc import Callable


def in_a_fork(work: Callable[[], Any]) -> Any:
    """Run ``work`` in a forked process; return its result, which is passed as JSON."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            # pytest-timeout's.
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            os.write(writer, json.dumps(work()).encode())
        except BaseException:  # noqa: BLE001
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        said = answer.read()
    os.waitpid(pid, 0)
    assert said, "the fork failed"
    return json.loads(said)


def in_a_thread(*steps: Callable[[], object]) -> None:
    thread = threading.Thread(target=lambda: [step() for step in steps])
    thread.start()
    thread.join()


def chdir_to_what_is_then_deleted() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)


def set_time_zone() -> None:
    os.environ["TZ"] = "Asia/Tokyo"
    time.tzset()


def set_time_zone_and_hide_it() -> None:
    set_time_zone()
    os.environ.pop("TZ", None)


def watch_signals_as_asyncio_does() -> None:
    asyncio.new_event_loop().add_signal_handler(signal.SIGTERM, print)


def fail_elsewhere() -> None:
    os.chdir("/")
    raise ValueError("the task's own error")


def lose_the_output() -> None:
    sys.stdout = None


def directory() -> str:
    try:
        return str(Path.cwd())
    except FileNotFoundError:
        return "gone"


CHANGES: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
    "working directory": (lambda: os.chdir("/"), directory),
    "working directory gone": (chdir_to_what_is_then_deleted, directory),
    "umask": (lambda: os.umask(0o777), lambda: [os.umask(0), os.umask(0o022)][0]),
    "variable changed": (lambda: os.environ.update(PATH="/"), lambda: os.environ["PATH"]),
    "variable removed": (lambda: os.environ.pop("PATH", ""), lambda: os.environ.get("PATH")),
    "variable added": (
        lambda: os.environ.update(HTTPS_PROXY="http://localhost:1"),
        lambda: os.environ.get("HTTPS_PROXY"),
    ),
    "time zone": (set_time_zone, lambda: [time.tzname, os.environ.get("TZ")]),
    "time zone hidden": (set_time_zone_and_hide_it, lambda: [time.tzname, os.environ.get("TZ")]),
    "locale": (
        lambda: locale.setlocale(locale.LC_ALL, "C"),
        lambda: locale.setlocale(locale.LC_ALL),
    ),
    "handler": (
        lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN),
        lambda: str(signal.getsignal(signal.SIGTERM)),
    ),
    "asyncio's handler": (
        watch_signals_as_asyncio_does,
        lambda: [signal.set_wakeup_fd(-1), str(signal.getsignal(signal.SIGTERM))],
    ),
    "mask": (
        lambda: signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM}),
        lambda: list(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
    ),
    "alarm": (lambda: signal.alarm(1000), lambda: signal.getitimer(signal.ITIMER_REAL)),
    "profiling timer": (
        lambda: signal.setitimer(signal.ITIMER_PROF, 1000),
        lambda: signal.getitimer(signal.ITIMER_PROF),
    ),
    "collector": (gc.disable, gc.isenabled),
    "collector's threshold": (lambda: gc.set_threshold(1), gc.get_threshold),
    "recursion": (lambda: sys.setrecursionlimit(200), sys.getrecursionlimit),
    "warnings": (lambda: warnings.simplefilter("error"), lambda: str(warnings.filters)),
    "warnings reset": (
        warnings.resetwarnings,
        lambda: [each for each in warnings.filters if each[0] == "error"],
    ),
    "streams": (lose_the_output, lambda: str(sys.stdout)),
    "time-out of sockets": (lambda: socket.setdefaulttimeout(0.01), socket.getdefaulttimeout),
    "logging": (lambda: logging.disable(logging.CRITICAL), lambda: logging.root.manager.disable),
    "open files": (
        lambda: resource.setrlimit(
            resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        ),
        lambda: resource.getrlimit(resource.RLIMIT_NOFILE),
    ),
}


def prepared() -> None:
    """A process before its first task, with settings that differ from Python's defaults."""
    os.umask(0o027)
    locale.setlocale(locale.LC_ALL, "C.UTF-8")
    signal.signal(signal.SIGTERM, lambda *_: None)
    warnings.simplefilter("error", ResourceWarning)


@pytest.mark.parametrize(("change", "read"), CHANGES.values(), ids=CHANGES)
def test_what_a_task_changes_is_put_back(change: Callable[[], object], read: Callable[[], object]) -> None:
    def work() -> list[Any]:
        prepared()
        left: list[int] = []
        around = Surroundings(lambda: left.append(1))
        before = str(read())
        # Some of them can only be read by changing them.
        around.begin()
        around.end()
        around.begin()
        change()
        changed = str(read())
        change()
        around.end()
        return [before, changed, str(read()), left]

    before, changed, after, left = in_a_fork(work)
    assert changed != before
    assert after == before
    assert left == []


HELPS: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
    "recursion": (lambda: sys.setrecursionlimit(9000), sys.getrecursionlimit),
    "warnings": (lambda: warnings.simplefilter("ignore"), lambda: warnings.filters[0][0]),
    "variable": (lambda: os.environ.update(OMP_THREADS="1"), lambda: os.environ["OMP_THREADS"]),
}


@pytest.mark.parametrize(("change", "read"), HELPS.values(), ids=HELPS)
def test_what_a_library_sets_up_for_good_stays(
    change: Callable[[], object], read: Callable[[], object]
) -> None:
    def work() -> list[Any]:
        around = Surroundings(lambda: None)
        around.begin()
        change()
        changed = read()
        around.end()
        return [changed, read()]

    changed, after = in_a_fork(work)
    assert changed == after


def test_a_process_that_cannot_be_put_back_leaves() -> None:
    def work() -> list[Any]:
        soft, hard = 100, 200
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        # Root may raise a hard limit again.
        os.setresuid(65534, 65534, 65534)
        left: list[int] = []
        around = Surroundings(lambda: left.append(1))
        for _ in range(2):
            around.begin()
            resource.setrlimit(resource.RLIMIT_NOFILE, (50, 50))
            around.end()
        return [left, around.gave_up]

    if os.getuid():
        pytest.skip("becomes another user")
    assert in_a_fork(work) == [[1], True]


def test_another_effective_user_is_put_back() -> None:
    def work() -> list[Any]:
        around = Surroundings(lambda: None)
        around.begin()
        os.seteuid(65534)
        around.end()
        return [os.getuid(), os.geteuid(), around.gave_up]

    if os.getuid():
        pytest.skip("becomes another user")
    assert in_a_fork(work) == [0, 0, False]


def test_what_a_neighbour_may_be_using_waits_until_none_runs() -> None:
    def work() -> list[Any]:
        around = Surroundings(lambda: None)
        before = str(Path.cwd())
        around.begin()

        def neighbour() -> None:
            around.begin()
            os.chdir("/")
            around.end()

        in_a_thread(neighbour)
        during = str(Path.cwd())
        around.end()
        return [before, during, str(Path.cwd()), around.gave_up]

    before, during, after, gave_up = in_a_fork(work)
    assert (during, after, gave_up) == ("/", before, False)


def test_neighbours_without_a_pause_make_the_process_leave_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def work() -> list[Any]:
        left: list[int] = []
        around = Surroundings(lambda: left.append(1))
        around.begin()

        def one(*, at: float) -> None:
            monkeypatch.setattr("django_db_worker.surroundings.time.monotonic", lambda: at)
            in_a_thread(around.begin, around.end)

        # A change that is undone in time does no harm: another task may have needed it.
        os.umask(0o077)
        os.environ["HOME"], home = "/elsewhere", os.environ["HOME"]
        one(at=1000)
        os.environ["HOME"] = home
        one(at=1059)
        os.environ["HOME"] = "/elsewhere"
        one(at=1061)
        one(at=1120)
        early = list(left)
        one(at=1122)
        return [early, left]

    assert in_a_fork(work) == [[], [1]]


def test_a_signal_that_a_task_kept_for_itself_is_told_after_it() -> None:
    def work() -> list[Any]:
        told: list[int] = []
        around = Surroundings(lambda: None, told.extend)
        handled: list[int] = []
        signal.signal(signal.SIGTERM, lambda *_: handled.append(2))
        around.begin()
        signal.signal(signal.SIGTERM, lambda *_: handled.append(1))
        os.kill(os.getpid(), signal.SIGTERM)
        during = list(told)
        around.end()
        around.close()
        return [during, told, handled]

    assert in_a_fork(work) == [[], [signal.SIGTERM], [1]]


def test_a_process_that_a_task_has_forked_takes_nothing_from_the_worker() -> None:
    def work() -> list[Any]:
        told: list[int] = []
        around = Surroundings(lambda: None, told.extend)
        around.begin()
        signal.signal(signal.SIGTERM, lambda *_: None)
        os.kill(os.getpid(), signal.SIGTERM)
        if not (child := os.fork()):
            around.end()
            os._exit(0)
        os.waitpid(child, 0)
        around.end()
        return told

    assert in_a_fork(work) == [signal.SIGTERM]


def test_a_blocked_signal_meets_the_workers_handler_after_the_task() -> None:
    def work() -> list[Any]:
        handled: list[int] = []
        signal.signal(signal.SIGTERM, lambda *_: handled.append(1))
        around = Surroundings(lambda: None)
        around.begin()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        os.kill(os.getpid(), signal.SIGTERM)
        signal.signal(signal.SIGTERM, lambda *_: handled.append(2))
        during = list(handled)
        around.end()
        return [during, handled]

    assert in_a_fork(work) == [[], [1]]


def test_a_timer_that_is_late_does_not_disturb_the_worker() -> None:
    def work() -> list[Any]:
        around = Surroundings(lambda: None)

        around.begin()
        signal.signal(signal.SIGALRM, lambda *_: None)
        signal.setitimer(signal.ITIMER_REAL, 1000)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
        signal.raise_signal(signal.SIGALRM)
        # It is pending, and its own default would end the process.
        around.end()
        return [str(signal.getsignal(signal.SIGALRM)), signal.getitimer(signal.ITIMER_REAL)]

    assert in_a_fork(work) == [str(signal.SIG_DFL), [0.0, 0.0]]


def test_a_handler_that_raises_while_the_process_is_put_back() -> None:
    def work() -> list[Any]:
        around = Surroundings(lambda: None)
        read, raised = signal.getitimer, []

        def late(*_: object) -> None:
            raised.append(1)
            raise SystemExit

        def interrupted(which: int) -> tuple[float, float]:
            if not raised:
                signal.raise_signal(signal.SIGALRM)
            return read(which)

        around.begin()
        signal.signal(signal.SIGALRM, late)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(signal, "getitimer", interrupted)
            around.end()
        return [str(signal.getsignal(signal.SIGALRM)), raised]

    assert in_a_fork(work) == [str(signal.SIG_DFL), [1]]


def test_around_a_tasks_code_in_each_thread() -> None:
    def work() -> list[Any]:
        stop = Stop()
        stop.surroundings = Surroundings(stop.request)
        seen = []

        def slot() -> None:
            with stop.task():
                signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            seen.append(sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())))
            with pytest.raises(ValueError, match="own error"), stop.task():
                fail_elsewhere()

        before = Path.cwd()
        in_a_thread(slot)
        return [seen, before == Path.cwd()]

    assert in_a_fork(work) == [[[]], True]


def test_what_the_supervisor_says_is_a_request() -> None:
    stop = Stop(told=lambda: True)
    assert stop.asked()
    assert stop.requested
    stop.close()
