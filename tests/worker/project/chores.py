"""Tasks, each of which shows one thing about the worker that runs it."""

import asyncio
import logging
import os
import time

from diary.models import Entry
from django.db import IntegrityError, connection, transaction
from django.tasks import task
from django.utils import timezone

log = logging.getLogger("chores")


@task
def nothing():
    pass


@task
def add(left, right):
    return left + right


@task(takes_context=True)
def note(context, what="ran", seconds=0):
    """Write down that it ran: one entry for each time."""
    time.sleep(seconds)
    Entry.write(what, str(context.task_result.id), time.time())
    return what


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
    """A process whose parent ends first: whoever is PID 1 inherits it."""
    if os.fork() == 0:
        if os.fork() == 0:
            time.sleep(0.3)
        os._exit(0)
    os.wait()


@task
def connection_id():
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT " + ("pg_backend_pid()" if connection.vendor == "postgresql" else "connection_id()")
        )
        time.sleep(0.02)
        return cursor.fetchone()[0]


@task
def burn(seconds):
    """Compute, for so many seconds of processor time."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        sum(range(1000))
