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
from django_db_worker.wake_setup import TableInUseError, create_trigger, has_notify
from django_db_worker.wake_trigger import NAME, create_statements, remove_statements, table_that_announces


class Command(BaseCommand):
    """See `help`."""

    help = "Create the indexes that keep claims and the operator's samples cheap, while the table is in use"

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take arguments."""
        instead = parser.add_mutually_exclusive_group()
        instead.add_argument(
            "--check", action="store_true", help="Change nothing; the exit code is 1 if an index is missing."
        )
        instead.add_argument("--remove", action="store_true", help="Remove the indexes and the trigger.")
        parser.add_argument(
            "--sql", action="store_true", help="Only print the statements; needs no connection."
        )
        parser.add_argument(
            "--notify",
            action="store_true",
            help="Also the trigger by which new tasks wake idle workers at once: PostgreSQL only.",
        )

    def handle(self, **given: Any) -> None:
        """Create, remove, check or print."""
        connection = connections[router.db_for_write(DBTaskResult)]
        if not has_use_for_indexes(connection):
            self.stdout.write(f"{connection.display_name} needs no other indexes than django-tasks-db's.")
        elif given["sql"]:
            self._print(connection, remove=given["remove"], notify=given["notify"])
        elif not has_table(connection):
            raise CommandError("There is no task table yet. Run `manage.py migrate` first.")
        elif given["check"]:
            self._check(connection, notify=given["notify"] and has_notify(connection))
        else:
            try:
                self._change(connection, removes=given["remove"], notify=given["notify"])
            except TableInUseError as error:
                raise CommandError(str(error)) from error

    def _change(self, connection: BaseDatabaseWrapper, *, removes: bool, notify: bool) -> None:
        if removes:
            remove(connection, self._say)
        else:
            set_up(connection, self._say)
            if notify:
                create_trigger(connection, self._say)

    def _print(self, connection: BaseDatabaseWrapper, *, remove: bool, notify: bool) -> None:
        statements = [
            index.remove(connection.vendor) if remove else index.create(connection.vendor)
            for index in INDEXES
        ]
        if notify and has_notify(connection):
            statements += remove_statements() if remove else create_statements()
        for statement in statements:
            self.stdout.write(f"{statement};")

    def _check(self, connection: BaseDatabaseWrapper, *, notify: bool) -> None:
        found = find_indexes(connection)
        missing = [index for index in INDEXES if not names_of(found, index, connection.vendor)]
        for index in INDEXES:
            state = "missing" if index in missing else "there"
            self.stdout.write(f"The index for {index.purpose} is {state}.")
        silent = has_notify(connection) and table_that_announces(connection) is None
        if has_notify(connection):
            self.stdout.write(
                "No trigger wakes workers: they poll (--notify creates one)."
                if silent
                else f"A trigger wakes workers: {NAME}."
            )
        if missing or (notify and silent):
            command = how_to_run("db_worker_setup") + (" --notify" if notify else "")
            raise CommandError(f"Run `{command}` to create what is missing.", returncode=1)

    def _say(self, line: str) -> None:
        """Print a line at once: what follows may take long."""
        self.stdout.write(line)
        self.stdout.flush()
