"""Create the task table's indexes, while it is in use."""

import time
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import connections, router
from django.db.backends.base.base import BaseDatabaseWrapper
from django_tasks_db.models import DBTaskResult

from django_db_worker.database import how_to_run
from django_db_worker.indexes import INDEXES, TABLE, Index, find_indexes, has_use_for_indexes, names_of

# Between looks at whether another build has finished.
PAUSE_SECONDS = 1.0


class Command(BaseCommand):
    """See `help`."""

    help = "Create the indexes that keep claims and the operator's samples cheap, while the table is in use"

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take arguments."""
        instead = parser.add_mutually_exclusive_group()
        instead.add_argument(
            "--check", action="store_true", help="Change nothing; the exit code is 1 if an index is missing."
        )
        instead.add_argument("--remove", action="store_true", help="Remove the indexes.")
        parser.add_argument(
            "--sql", action="store_true", help="Only print the statements; needs no connection."
        )

    def handle(self, **given: Any) -> None:
        """Create, remove, check or print."""
        connection = connections[router.db_for_write(DBTaskResult)]
        if not has_use_for_indexes(connection):
            self.stdout.write(f"{connection.display_name} needs no other indexes than django-tasks-db's.")
        elif given["sql"]:
            for index in INDEXES:
                statement = index.remove if given["remove"] else index.create
                self.stdout.write(f"{statement(connection.vendor)};")
        elif TABLE not in connection.introspection.table_names():
            raise CommandError("There is no task table yet. Run `manage.py migrate` first.")
        elif given["check"]:
            self._check(connection)
        else:
            self._wait_for_others(connection)
            for index in INDEXES:
                (self._remove if given["remove"] else self._create)(connection, index)

    def _check(self, connection: BaseDatabaseWrapper) -> None:
        found = find_indexes(connection)
        missing = [index for index in INDEXES if not names_of(found, index, connection.vendor)]
        for index in INDEXES:
            state = "missing" if index in missing else "there"
            self.stdout.write(f"The index for {index.purpose} is {state}.")
        if missing:
            raise CommandError(
                f"Run `{how_to_run('db_worker_setup')}` to create what is missing.", returncode=1
            )

    def _wait_for_others(self, connection: BaseDatabaseWrapper) -> None:
        if _is_being_changed(connection):
            self.stdout.write("Waiting: somebody else is creating an index of the table.")
            self.stdout.flush()
            while _is_being_changed(connection):
                time.sleep(PAUSE_SECONDS)

    def _create(self, connection: BaseDatabaseWrapper, index: Index) -> None:
        found = find_indexes(connection)
        if names := names_of(found, index, connection.vendor):
            self.stdout.write(f"The index for {index.purpose} is there: {names[0]}.")
            return
        if index.name in {each.name for each in found}:
            # What an interrupted build has left behind, or of an older version.
            self.stdout.write(f"Removing {index.name}, which is incomplete or has other columns.")
            _execute(connection, index.remove(connection.vendor))
        self.stdout.write(f"Creating {index.name} for {index.purpose}, while the table is in use ...")
        self.stdout.flush()
        began = time.monotonic()
        if connection.vendor == "postgresql":
            # A build takes as long as it takes.
            _execute(connection, "SET statement_timeout = 0")
        _execute(connection, index.create(connection.vendor))
        self.stdout.write(f"Created {index.name} in {time.monotonic() - began:.1f} s.")

    def _remove(self, connection: BaseDatabaseWrapper, index: Index) -> None:
        if index.name in {each.name for each in find_indexes(connection)}:
            _execute(connection, index.remove(connection.vendor))
            self.stdout.write(f"Removed {index.name}.")
        else:
            self.stdout.write(f"There is no {index.name}.")


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


def _execute(connection: BaseDatabaseWrapper, sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)
