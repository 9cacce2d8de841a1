"""Tasks, each of which shows something about the worker that runs it."""

import asyncio
import faulthandler
import gc
import locale
import logging
import os
import re
import resource
import signal
import socket
import sys
import threading
import time
from pathlib import Path

from diary.models import Entry
from django.db import IntegrityError, connection, transaction
from django.tasks import task
from django.utils import timezone

log = logging.getLogger("chores")

# For what a test brings about: much longer than that takes on a busy machine.
LONGEST_WAIT_SECONDS = 120


def wait_until(true, what):
    deadline = time.monotonic() + LONGEST_WAIT_SECONDS
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.02)


@task
def nothing():
    pass


@task
def add(left, right):
    return left + right


@task(takes_context=True)
def note(context, what="ran", seconds=0, gate=None):
    """Record each run in an entry, but not before the file ``gate`` exists."""
    time.sleep(seconds)
    if gate is not None:
        wait_until(Path(gate).exists, gate)
    Entry.write(what, str(context.task_result.id), time.time())
    return what


@task
def hold(gate):
    """Create a file beside ``gate``, and run until ``gate`` exists, without the database."""
    wait_until(Path(gate).exists, gate)
    Path(f"{gate}.passed").touch()


@task(takes_context=True)
def meet(context, folder, count):
    """Wait for ``count`` tasks of this kind in the folder: they can only end if all of them run at once."""
    Path(folder, str(context.task_result.id)).touch()
    wait_until(lambda: len(list(Path(folder).iterdir())) >= count, f"{count} in {folder}")
    Entry.write("met", str(context.task_result.id), time.time())


@task
def nap(seconds):
    time.sleep(seconds)
    return seconds


@task(takes_context=True)
def who(context):
    return {
        "id": str(context.task_result.id),
        "attempt": context.attempt,
        "workers": list(context.task_result.worker_ids),
        "status": str(context.task_result.status),
        "pid": os.getpid(),
    }


@task
async def later(value):
    await asyncio.sleep(0.01)
    return [value, timezone.now().tzinfo is not None]


@task
def fail(message):
    raise ValueError(message)


@task
def fail_deeply():
    try:
        fail.call("inner")
    except ValueError as error:
        raise RuntimeError("outer") from error


@task
def unserializable():
    return object()


@task
def leave(code):
    raise SystemExit(code)


@task
def interrupt():
    raise KeyboardInterrupt


@task
def crash(code):
    """End the whole process, as a segmentation fault would."""
    os._exit(code)


@task(takes_context=True)
def break_transaction(context):
    """Leave a broken transaction behind, which has saved the row of this task before it broke."""
    with transaction.atomic():
        Entry.write("lost", str(context.task_result.id), time.time())
        with connection.cursor() as cursor:
            cursor.execute("SELECT * FROM no_such_table")


@task
def leave_transaction_open():
    """Turn autocommit off and leave it so."""
    transaction.set_autocommit(False)
    Entry.write("forgotten", "", time.time())


@task
def duplicate():
    entry = Entry.objects.create(what="once", task="", pid=0, thread="", at=0)
    try:
        with transaction.atomic():
            Entry.objects.bulk_create([Entry(id=entry.id, what="twice", task="", pid=0, thread="", at=0)])
    except IntegrityError:
        return "refused"
    return "accepted"


@task
def close_connection():
    connection.close()


@task
def say(text):
    log.warning(text)


@task
def in_transaction():
    return connection.in_atomic_block


@task
def hour():
    return [timezone.now().isoformat(), timezone.get_current_timezone_name()]


@task
def import_late():
    """Use something that only an initialised project has."""
    from django.contrib.contenttypes.models import ContentType  # noqa: PLC0415

    return ContentType.__name__


not_a_task = 42


@task
def leave_a_grandchild():
    """Start a process whose parent ends first, so that PID 1 inherits it; return its process id."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        parent = os.getpid()
        grandchild = os.fork()
        if grandchild:
            os.write(writer, str(grandchild).encode())
        else:
            wait_until(lambda: os.getppid() != parent, "the parent has ended")
        os._exit(0)
    os.wait()
    os.close(writer)
    with os.fdopen(reader) as pipe:
        return int(pipe.read())


@task(takes_context=True)
def connection_id(context, folder, count):
    """Return the id of the slot's connection, while ``count`` slots run this at once."""
    meet.func(context, folder, count)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT " + ("pg_backend_pid()" if connection.vendor == "postgresql" else "connection_id()")
        )
        return cursor.fetchone()[0]


@task
def burn(seconds):
    """Compute for so many seconds of processor time."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        sum(range(1000))


@task
def describe_process():
    """Return what a task could have changed in its process."""
    return {
        "directory": str(Path.cwd()),
        "umask": re.search(r"Umask:\s*(\d+)", Path("/proc/self/status").read_text())[1],
        "zone": [os.environ.get("TZ"), list(time.tzname), time.strftime("%z")],
        "environment": sorted(os.environ.items()),
        "locale": locale.setlocale(locale.LC_ALL),
        "signals": {
            number.name: repr(signal.getsignal(number)).partition(" at ")[0]
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGALRM, signal.SIGUSR1)
        },
        "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        "timer": signal.getitimer(signal.ITIMER_REAL)[0],
        "collector": [gc.isenabled(), gc.get_threshold()],
        "recursion": sys.getrecursionlimit(),
        "timeout": socket.getdefaulttimeout(),
        "logging": logging.root.manager.disable,
        "files": resource.getrlimit(resource.RLIMIT_NOFILE),
    }


@task
def upset_process():
    """Change what the whole process shares, and leave it so."""
    os.chdir("/")
    os.umask(0o777)
    os.environ.update(TZ="Asia/Tokyo", LC_ALL="C", PATH="/nowhere", HTTP_PROXY="http://127.0.0.1:1")
    del os.environ["PYTHONUNBUFFERED"]
    time.tzset()
    locale.setlocale(locale.LC_ALL, "C")
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1):
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGALRM, lambda *_: os._exit(9))
        # It would come while the next task runs.
        signal.setitimer(signal.ITIMER_REAL, 0.5, 0.5)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR2})
    gc.disable()
    sys.setrecursionlimit(400)
    socket.setdefaulttimeout(0.001)
    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


@task
def keep_signals(how, seconds):
    """Handle SIGTERM in the worker's place, for good, and continue for a while."""
    if how == "handled":
        signal.signal(signal.SIGTERM, lambda *_: None)
    elif how == "ignored":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    log.warning("SIGTERM is %s", how)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(0.05)


@task
def spoil_process():
    """Change the process in a way that cannot be undone."""
    if os.getuid() == 0:
        os.setresuid(65534, 65534, 65534)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))
    return os.getpid()


@task
def overrun():
    """Never end, in a function that the stack should name."""
    stand_still()


def stand_still():
    while True:
        time.sleep(60)


@task
def overrun_without_answer():
    """Never end, but end the process when it is asked for its stacks."""
    faulthandler.unregister(signal.SIGRTMIN)
    stand_still()


@task
def overrun_in_c():
    """Never end, and let no other thread of the process run."""
    re.match("(x+x+)+y", "x" * 60)


HOARD = []


@task
def hoard(mebibytes, seconds=0):
    """Allocate memory, and keep it."""
    HOARD.append(b"x" * (mebibytes * 2**20))
    time.sleep(seconds)
    return os.getpid()


@task
def hoard_without_end():
    # As far as the machine of the tests can bear.
    while len(HOARD) < 200:
        HOARD.append(b"x" * (10 * 2**20))
        time.sleep(0.05)
    return "nobody stopped it"


@task
def beats():
    from beating import beats as in_this_process  # noqa: PLC0415

    return in_this_process()


@task
def count(path, number):
    """Record that it ran, without the database."""
    # Short enough that the kernel writes it at once, whoever else does.
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{number}\n".encode())
    os.close(descriptor)
    return number
