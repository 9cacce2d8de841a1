"""Creates and removes the task table's indexes, while the table is in use.

The command ``db_worker_setup`` and the migration of the app both do what is here. Either may run first, and
several at a time: what is there already is left alone.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from django.db import DatabaseError
from django.db.backends.base.base import BaseDatabaseWrapper

from .indexes import INDEXES, TABLE, Index, find_indexes, has_use_for_indexes, names_of
from .wake_setup import remove_trigger

# Between looks at whether another build has finished.
PAUSE_SECONDS = 1.0
# Of setups that begin at the same moment, PostgreSQL ends all but one: each waits for a lock of the others.
ATTEMPTS = 5


def has_table(connection: BaseDatabaseWrapper) -> bool:
    """Whether the database has the task table. Errors of the database pass through."""
    return TABLE in connection.introspection.table_names()


def set_up(connection: BaseDatabaseWrapper, say: Callable[[str], None]) -> None:
    """Create what is missing, and tell ``say`` about it. Errors of the database pass through.

    The connection must be in autocommit mode, which CREATE INDEX CONCURRENTLY wants.
    """
    if not has_use_for_indexes(connection):
        return
    with _without_limit(connection):
        for index in INDEXES:
            _create(connection, index, say)


def remove(connection: BaseDatabaseWrapper, say: Callable[[str], None]) -> None:
    """Remove what has our names, whoever has created it. Errors of the database pass through.

    Raises:
        TableInUseError: a transaction that uses the table has been open for a minute.
    """
    if not has_use_for_indexes(connection):
        return
    _wait_for_others(connection, say)
    with _without_limit(connection):
        for index in INDEXES:
            if _has(connection, index):
                _execute(connection, index.remove(connection.vendor))
                say(f"Removed {index.name}.")
            else:
                say(f"There is no {index.name}.")
    remove_trigger(connection, say)


def _create(connection: BaseDatabaseWrapper, index: Index, say: Callable[[str], None]) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        _wait_for_others(connection, say)
        if names := names_of(find_indexes(connection), index, connection.vendor):
            say(f"The index for {index.purpose} is there: {names[0]}.")
            return
        try:
            _build(connection, index, say)
        except DatabaseError:
            # Another setup has created the index meanwhile, or has waited for the same lock and left it
            # incomplete; without a trace of another, the error is about us.
            if attempt == ATTEMPTS or not _has(connection, index):
                raise
        else:
            return


def _build(connection: BaseDatabaseWrapper, index: Index, say: Callable[[str], None]) -> None:
    if _has(connection, index):
        # What an interrupted build has left behind, or of an older version.
        say(f"Removing {index.name}, which is incomplete or has other columns.")
        _execute(connection, index.remove(connection.vendor))
    say(f"Creating {index.name} for {index.purpose}, while the table is in use ...")
    began = time.monotonic()
    _execute(connection, index.create(connection.vendor))
    say(f"Created {index.name} in {time.monotonic() - began:.1f} s.")


def _has(connection: BaseDatabaseWrapper, index: Index) -> bool:
    return index.name in {each.name for each in find_indexes(connection)}


def _wait_for_others(connection: BaseDatabaseWrapper, say: Callable[[str], None]) -> None:
    if _is_being_changed(connection):
        say("Waiting: somebody else is creating an index of the table.")
        while _is_being_changed(connection):
            time.sleep(PAUSE_SECONDS)


def _is_being_changed(connection: BaseDatabaseWrapper) -> bool:
    """Whether somebody else creates an index of the table: one that is not ready looks like a broken one."""
    if connection.vendor != "postgresql":
        return False
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT EXISTS (SELECT FROM pg_stat_progress_create_index WHERE relid = to_regclass(%s))",
            [connection.ops.quote_name(TABLE)],
        )
        return bool(cursor.fetchone()[0])


@contextmanager
def _without_limit(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """Lift the session's limit on the time of a statement: a build takes as long as it takes."""
    if connection.vendor != "postgresql":
        yield
        return
    with connection.cursor() as cursor:
        cursor.execute("SHOW statement_timeout")
        (before,) = cursor.fetchone()
        cursor.execute("SET statement_timeout = 0")
    yield
    # The migrations that follow on this connection keep theirs; after an error there are none.
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('statement_timeout', %s, false)", [before])


def _execute(connection: BaseDatabaseWrapper, sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)
