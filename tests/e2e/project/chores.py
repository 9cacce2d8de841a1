"""Tasks that end when a test wants them to."""

from django.db import connection
from django.tasks import task


@task
def add(one: int, other: int) -> int:
    return one + other


@task
def fail() -> None:
    raise ValueError("fails by design")


@task
def wait_at(gate: int) -> int:
    """Runs until nobody holds the gate, which is an advisory lock of the database."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock_shared(%s)", [gate])
        cursor.execute("SELECT pg_advisory_unlock_shared(%s)", [gate])
    return gate


@task
def eat(megabytes: int) -> int:
    return len([bytearray(b"x" * 1_000_000) for _ in range(megabytes)])
