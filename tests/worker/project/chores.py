"""Tasks, each of which shows one thing about the worker that runs it."""

import asyncio
import logging
import os
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
    """Write down that it ran, one entry for each time; not before the file ``gate`` is there."""
    time.sleep(seconds)
    if gate is not None:
        wait_until(Path(gate).exists, gate)
    Entry.write(what, str(context.task_result.id), time.time())
    return what


@task
def hold(gate):
    """Run until the file ``gate`` is there, and leave one beside it; never ask the database."""
    wait_until(Path(gate).exists, gate)
    Path(f"{gate}.passed").touch()


@task(takes_context=True)
def meet(context, folder, count):
    """Wait in the folder for ``count`` of its kind: they can only end if all of them run at once."""
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
    """Leave a transaction broken, and the row of this task as the last good thing in it."""
    with transaction.atomic():
        Entry.write("lost", str(context.task_result.id), time.time())
        with connection.cursor() as cursor:
            cursor.execute("SELECT * FROM no_such_table")


@task
def leave_transaction_open():
    """Turn autocommit off and forget about it."""
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
    """Use what only an initialised project has."""
    from django.contrib.contenttypes.models import ContentType  # noqa: PLC0415

    return ContentType.__name__


not_a_task = 42


@task
def leave_a_grandchild():
    """A process whose parent ends first: whoever is PID 1 inherits it. Returns its number."""
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
    """The number of the connection in a slot, of which ``count`` run this at once."""
    meet.func(context, folder, count)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT " + ("pg_backend_pid()" if connection.vendor == "postgresql" else "connection_id()")
        )
        return cursor.fetchone()[0]


@task
def burn(seconds):
    """Compute, for so many seconds of processor time."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        sum(range(1000))
