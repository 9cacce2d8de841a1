"""What a task can change in the process that runs it, and how it is restored before the next task begins.

Django keeps the time zone, the language and the like for each thread. What is restored here belongs to the
whole process. What a library sets up when a task first imports it has to stay, so changes that can do no harm
are left alone: a higher recursion limit, a filter that hides warnings, most new environment variables.
"""

import gc
import locale
import logging
import os
import resource
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

logger = logging.getLogger("django_tasks_db")

# Nothing is restored while other tasks run in the process. If one always does, the process is replaced.
PATIENCE_SECONDS = 60.0

# Variables that the C library and Python's own modules read. These are removed if they were not set before.
_HEEDED = {"TZ", "LANG", "LANGUAGE", "TMPDIR", "TEMP", "TMP", "HOME", "PATH", "DJANGO_SETTINGS_MODULE"}
_HEEDED |= {f"{scheme}_proxy" for scheme in ("http", "https", "all", "no")}
_HEEDED |= {f"{scheme}_PROXY" for scheme in ("HTTP", "HTTPS", "ALL", "NO")}
# The dictionary within os.environ: comparing it takes a hundredth of the time.
_ENVIRON: Any = getattr(os.environ, "_data", os.environ)

_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
_LIMITS = (
    resource.RLIMIT_AS,
    resource.RLIMIT_CPU,
    resource.RLIMIT_DATA,
    resource.RLIMIT_FSIZE,
    resource.RLIMIT_NOFILE,
)
# The signals that programs use. There are sixty signals, and reading the handler of one takes a microsecond.
_SIGNALS = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGALRM,
    signal.SIGVTALRM,
    signal.SIGPROF,
    signal.SIGCHLD,
    signal.SIGPIPE,
    signal.SIGUSR1,
    signal.SIGUSR2,
)


@dataclass(frozen=True)
class _Trait:
    """Something that a task can change; ``write`` gets the value that ``read`` returned at the start."""

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], object]


class Surroundings:
    """The state of the process before its first task: call ``begin()`` before each task, ``end()`` after it.

    Create it in the thread that runs the tasks, or starts their threads, after the signal handlers are set.
    """

    def __init__(self, leave: Callable[[], object], missed: Callable[[bytes], object] | None = None) -> None:
        """``leave`` is called if the process cannot be restored: it must claim no more tasks.

        After each task, ``missed`` is called with the signals that came meanwhile, because the task may have
        handled them. This requires the main thread.
        """
        self.gave_up = False
        self._leave = leave
        self._missed = missed
        self._wakeup, self._wakeup_writer = -1, -1
        if missed is not None:
            self._wakeup, self._wakeup_writer = os.pipe()
            os.set_blocking(self._wakeup, False)
            os.set_blocking(self._wakeup_writer, False)
            signal.set_wakeup_fd(self._wakeup_writer, warn_on_full_buffer=False)
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        self._handlers = [signal.getsignal(number) for number in _SIGNALS]
        self._timers = [timer for timer in _TIMERS if not any(signal.getitimer(timer))]
        self._directory = os.open(".", getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY)
        # The umask can only be read by setting it.
        self._umask = os.umask(0o077)
        os.umask(self._umask)
        self._before = [(trait, trait.read()) for trait in self._traits()]
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._running: set[int] = set()
        self._changed_since: float | None = None

    def close(self) -> None:
        """Close the file descriptors."""
        os.close(self._directory)
        if self._missed is not None:
            signal.set_wakeup_fd(-1)
            os.close(self._wakeup)
            os.close(self._wakeup_writer)

    def begin(self) -> None:
        """Note that a task begins."""
        with self._lock:
            self._running.add(threading.get_ident())

    def end(self) -> None:
        """Restore what a task has changed; what other running tasks may be using, when none is left."""
        if os.getpid() != self._pid:
            # In a process that the task has forked, the pipe is shared, and nobody will release the lock.
            return
        changed = self._put_back_signals()
        if self._missed is not None:
            with suppress(BlockingIOError):
                self._missed(os.read(self._wakeup, 4096))
        with self._lock:
            self._running.discard(threading.get_ident())
            if self._running:
                self._look()
            else:
                self._changed_since = None
                changed += self._put_back()
        if changed:
            logger.warning("A task has changed its process: %s. This is undone.", ", ".join(changed))

    def _put_back_signals(self) -> list[str]:
        # Until it is off, the task's own timer may interrupt this, and its handler may raise.
        while True:
            try:
                return self._put_back_handlers() + self._put_back_mask()
            except BaseException as error:  # noqa: BLE001, PERF203
                logger.warning("A task's signal handler was called after its end, and raised %r.", error)

    def _put_back_handlers(self) -> list[str]:
        # Only the main thread can have changed them.
        if threading.current_thread() is not threading.main_thread():
            return []
        changed = []
        if any(any(signal.getitimer(timer)) for timer in self._timers):
            changed.append("timer")
            for timer in self._timers:
                signal.setitimer(timer, 0)
        for number, before in zip(_SIGNALS, self._handlers, strict=True):
            # None: a handler that was not set from Python.
            if signal.getsignal(number) is not before and before is not None:
                changed.append(f"handler of {number.name}")
                signal.signal(number, before)
        if signal.set_wakeup_fd(self._wakeup_writer, warn_on_full_buffer=False) != self._wakeup_writer:
            changed.append("signal.set_wakeup_fd")
        return changed

    def _put_back_mask(self) -> list[str]:
        # Each thread has a mask of its own. After the handlers, because blocked signals are delivered now.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ()) - self._mask
        if not blocked:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
            return []
        for number in signal.sigpending() & blocked:
            # Without a handler, the signal would end the process. It may come from a timer of the task, say.
            if signal.getsignal(number) is signal.SIG_DFL:
                _discard(number)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        return ["blocked signals"]

    def _put_back(self) -> list[str]:
        changed = ["umask"] if os.umask(self._umask) != self._umask else []
        stays = []
        for trait, before in self._before:
            if _seen(trait) == before:
                continue
            try:
                trait.write(before)
            except (OSError, ValueError, locale.Error):
                stays.append(trait.name)
            else:
                (changed if _seen(trait) == before else stays).append(trait.name)
        if stays:
            self._give_up(stays)
        return changed

    def _look(self) -> None:
        """Look for changes while other tasks run: one of them may be using what looks like a change."""
        changed = [trait.name for trait, before in self._before if _seen(trait) != before]
        if not changed:
            self._changed_since = None
        elif self._changed_since is None:
            self._changed_since = time.monotonic()
        elif time.monotonic() - self._changed_since > PATIENCE_SECONDS:
            self._give_up(changed)

    def _give_up(self, names: Sequence[str]) -> None:
        if not self.gave_up:
            self.gave_up = True
            logger.warning(
                "A task has changed its process: %s. This cannot be undone, so the process ends.",
                ", ".join(names),
            )
            self._leave()

    def _traits(self) -> list[_Trait]:
        environment = dict(os.environ)
        copy = dict(_ENVIRON)

        def same_environment() -> bool:
            # First as bytes, which is fast, and only then the variables that matter.
            return copy == _ENVIRON or _relevant(environment) == environment

        def restore_environment(_: bool) -> None:  # noqa: FBT001
            for name in _relevant(environment).keys() - environment.keys():
                del os.environ[name]
            os.environ.update(environment)

        return [
            _Trait("working directory", _directory, lambda _: os.fchdir(self._directory)),
            _Trait("environment", same_environment, restore_environment),
            _Trait("time zone", lambda: (time.tzname, time.timezone), lambda _: time.tzset()),
            _Trait(
                "locale",
                lambda: locale.setlocale(locale.LC_ALL),
                lambda before: locale.setlocale(locale.LC_ALL, before),
            ),
            _Trait("sys.stdin", lambda: sys.stdin, lambda before: setattr(sys, "stdin", before)),
            _Trait("sys.stdout", lambda: sys.stdout, lambda before: setattr(sys, "stdout", before)),
            _Trait("sys.stderr", lambda: sys.stderr, lambda before: setattr(sys, "stderr", before)),
            _Trait("socket.setdefaulttimeout", socket.getdefaulttimeout, socket.setdefaulttimeout),
            _Trait("logging.disable", lambda: logging.root.manager.disable, logging.disable),
            _Trait("garbage collection", _collector, _set_collector),
            _lowest_recursion_limit(sys.getrecursionlimit()),
            _Trait("warnings that are errors", _fatal_warnings, _set_fatal_warnings),
            _Trait("resource limits", lambda: [resource.getrlimit(each) for each in _LIMITS], _set_limits),
            _Trait("priority", lambda: os.getpriority(os.PRIO_PROCESS, 0), _set_priority),
            _Trait("user or group", _ids, _set_ids),
        ]


def _discard(number: signal.Signals) -> None:
    """Consume a pending signal, without waiting, because another thread may have consumed it."""
    if hasattr(signal, "sigtimedwait"):
        signal.sigtimedwait((number,), 0)
    else:  # macOS
        signal.sigwait((number,))


def _seen(trait: _Trait) -> object:
    try:
        return trait.read()
    except OSError:
        # The working directory, for example, may have been deleted.
        return None


def _directory() -> tuple[int, int]:
    found = os.stat(".")  # noqa: PTH116
    return found.st_dev, found.st_ino


def _relevant(before: dict[str, str]) -> dict[str, str]:
    """Return the variables that were set before, and those that change how other code works."""
    return {
        name: value
        for name, value in os.environ.items()
        if name in before or name in _HEEDED or name.startswith("LC_")
    }


def _collector() -> tuple[bool, tuple[int, int, int]]:
    return gc.isenabled(), gc.get_threshold()


def _set_collector(before: tuple[bool, tuple[int, int, int]]) -> None:
    enabled, threshold = before
    gc.set_threshold(*threshold)
    (gc.enable if enabled else gc.disable)()


def _lowest_recursion_limit(before: int) -> _Trait:
    return _Trait("recursion limit", lambda: min(sys.getrecursionlimit(), before), sys.setrecursionlimit)


def _fatal_warnings() -> list[object]:
    return [each for each in warnings.filters if each[0] == "error"]


def _set_fatal_warnings(before: list[object]) -> None:
    kept = [each for each in warnings.filters if each[0] != "error"]
    warnings.filters[:] = [*before, *kept]  # type: ignore[index]


def _set_limits(before: list[tuple[int, int]]) -> None:
    for each, limits in zip(_LIMITS, before, strict=True):
        resource.setrlimit(each, limits)


def _set_priority(before: int) -> None:
    os.setpriority(os.PRIO_PROCESS, 0, before)


def _ids() -> tuple[int, int, int, int]:
    return os.getuid(), os.geteuid(), os.getgid(), os.getegid()


def _set_ids(before: tuple[int, int, int, int]) -> None:
    user, effective_user, group, effective_group = before
    os.setreuid(user, effective_user)
    os.setregid(group, effective_group)
