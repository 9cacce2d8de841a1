"""The task table's indexes, for projects that install the app: what ``manage.py db_worker_setup`` does."""

from django.db import migrations, router
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState
from django_tasks_db.models import DBTaskResult

from django_db_worker.setup import has_table, remove, set_up


class SetUp(Operation):
    """Sets the database up, if it has the task table.

    Routers are asked about the task table, and not about this app as RunPython would: they send the table
    where the project wants it, and know nothing of an app without models.
    """

    reduces_to_sql = False
    reversible = True

    def state_forwards(self, app_label: str, state: ProjectState) -> None:
        """Change no model."""

    def database_forwards(
        self,
        app_label: str,  # noqa: ARG002
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,  # noqa: ARG002
        to_state: ProjectState,  # noqa: ARG002
    ) -> None:
        """Create what is missing. Errors of the database pass through."""
        if _is_here(schema_editor):
            set_up(schema_editor.connection, _say_nothing)

    def database_backwards(
        self,
        app_label: str,  # noqa: ARG002
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,  # noqa: ARG002
        to_state: ProjectState,  # noqa: ARG002
    ) -> None:
        """Remove what has our names, whoever created it. Errors of the database pass through."""
        if _is_here(schema_editor):
            remove(schema_editor.connection, _say_nothing)

    def describe(self) -> str:
        """Return what ``migrate --plan`` shows."""
        return "Create the task table's indexes that are missing, while it is in use"


def _is_here(schema_editor: BaseDatabaseSchemaEditor) -> bool:
    connection = schema_editor.connection
    return router.allow_migrate_model(connection.alias, DBTaskResult) and has_table(connection)


def _say_nothing(line: str) -> None:
    """`migrate` says on a line of its own what it applies."""


class Migration(migrations.Migration):
    """Creates what is missing, so that it makes no difference whether the command has run before."""

    # CREATE INDEX CONCURRENTLY cannot run inside a transaction.
    atomic = False

    # The newest of django-tasks-db 0.13, the oldest that the worker needs.
    dependencies = [("django_tasks_database", "0021_conditional_partial_index_ordering")]  # noqa: RUF012

    operations = [SetUp()]  # noqa: RUF012
