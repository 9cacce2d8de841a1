"""Create the task table's indexes, while it is in use."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import connections, router
from django.db.backends.base.base import BaseDatabaseWrapper
from django_tasks_db.models import DBTaskResult

from django_db_worker.database import how_to_run
from django_db_worker.indexes import INDEXES, find_indexes, has_use_for_indexes, names_of
from django_db_worker.setup import has_table, remove, set_up


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
        elif not has_table(connection):
            raise CommandError("There is no task table yet. Run `manage.py migrate` first.")
        elif given["check"]:
            self._check(connection)
        elif given["remove"]:
            remove(connection, self._say)
        else:
            set_up(connection, self._say)

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

    def _say(self, line: str) -> None:
        """Print a line at once: what follows may take long."""
        self.stdout.write(line)
        self.stdout.flush()
