"""Tasks that end when a test wants them to."""

import os
import time
from typing import Any

from django.db import InterfaceError, OperationalError, connection
from django.tasks import TaskContext, task


@task
def add(one: int, other: int) -> int:
    return one + other


@task
def fail() -> None:
    raise ValueError("fails by design")


@task
def wait_at(gate: int) -> int:
    """Wait until nobody holds the gate, an advisory lock of the database."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock_shared(%s)", [gate])
        cursor.execute("SELECT pg_advisory_unlock_shared(%s)", [gate])
    return gate


@task
def eat(megabytes: int) -> int:
    return len([bytearray(b"x" * 1_000_000) for _ in range(megabytes)])


@task(takes_context=True)
def keep_books(context: TaskContext[Any, None], seconds: float) -> None:
    """Record that it runs, as soon as the database permits that, and then take some time."""
    while True:
        try:
            with connection.cursor() as cursor:
                cursor.execute(
                    "INSERT INTO ran (task, pod) VALUES (%s, %s)",
                    [context.task_result.id, os.environ["POD_NAME"]],
                )
            break
        except (OperationalError, InterfaceError):
            connection.close()
            time.sleep(0.5)
    time.sleep(seconds)
