"""Creates and removes the trigger that announces new tasks, while the table is in use."""

import time
from collections.abc import Callable, Sequence

from django.db import DatabaseError, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from .trouble import Trouble, trouble_of
from .wake_trigger import NAME, create_statements, is_installed, remove_statements, table_that_announces

# How long the trigger's lock may keep others from the table at a time, and how often it is tried.
LOCK_SECONDS = 2
PAUSE_SECONDS = 1.0
ATTEMPTS = 20


class TableInUseError(Exception):
    """The trigger could not be changed."""

    def __str__(self) -> str:
        return (
            "The trigger could not be changed, because a transaction that uses the task table has been open "
            "all the time. Run the command again when it has ended."
        )


def has_notify(connection: BaseDatabaseWrapper) -> bool:
    """Whether this kind of database has NOTIFY."""
    return connection.vendor == "postgresql"


def create_trigger(connection: BaseDatabaseWrapper, say: Callable[[str], None]) -> None:
    """Create the trigger if it is missing or out of date. Errors of the database pass through.

    Raises:
        TableInUseError: a transaction has been open for a minute.
    """
    if not has_notify(connection):
        say(f"{connection.display_name} has no NOTIFY: its workers poll.")
    elif table_that_announces(connection) is not None:
        say(f"The trigger that wakes workers is there: {NAME}.")
    else:
        _change(connection, create_statements(), say)
        say(f"Created the trigger that wakes workers: {NAME}.")


def remove_trigger(connection: BaseDatabaseWrapper, say: Callable[[str], None]) -> None:
    """Remove the trigger, if there is one. Errors of the database pass through.

    Raises:
        TableInUseError: a transaction has been open for a minute.
    """
    # Looking is free, but even removing what is not there locks the table.
    if has_notify(connection) and is_installed(connection):
        _change(connection, remove_statements(), say)
        say(f"Removed the trigger {NAME}.")


def _change(connection: BaseDatabaseWrapper, statements: Sequence[str], say: Callable[[str], None]) -> None:
    """Execute the statements, whose lock keeps others from the table while it is waited for: only briefly."""
    for _ in range(ATTEMPTS):
        if _is_done(connection, statements):
            return
        say("Waiting: a transaction that uses the task table is open.")
        time.sleep(PAUSE_SECONDS)
    raise TableInUseError


def _is_done(connection: BaseDatabaseWrapper, statements: Sequence[str]) -> bool:
    try:
        with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
            cursor.execute(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'")
            for statement in statements:
                cursor.execute(statement)
    except DatabaseError as error:
        if trouble_of(error) is not Trouble.BUSY:
            raise
        return False
    return True
