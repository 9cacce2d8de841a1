"""The index that keeps the operator's samples cheap on a large task table: see docs/database.md."""

from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

INDEX = "django_task_operator_idx"
TABLE = "django_tasks_database_dbtaskresult"
COLUMNS = "status, backend_name, queue_name, run_after, enqueued_at"


def create(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:  # noqa: ARG001
    if schema_editor.connection.vendor == "postgresql":
        # An interrupted build leaves an invalid index behind, which PostgreSQL never uses.
        schema_editor.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {INDEX}")
        schema_editor.execute(
            f"CREATE INDEX CONCURRENTLY {INDEX} ON {TABLE} ({COLUMNS}) WHERE status IN ('READY', 'RUNNING')"
        )
    else:
        schema_editor.execute(f"CREATE INDEX {INDEX} ON {TABLE} ({COLUMNS})")


def drop(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:  # noqa: ARG001
    if schema_editor.connection.vendor == "mysql":
        schema_editor.execute(f"DROP INDEX {INDEX} ON {TABLE}")
    else:
        schema_editor.execute(f"DROP INDEX {INDEX}")


class Migration(migrations.Migration):
    # CREATE INDEX CONCURRENTLY cannot run inside a transaction.
    atomic = False

    dependencies = [
        ("orders", "0001_initial"),
        ("django_tasks_database", "0021_conditional_partial_index_ordering"),
    ]

    operations = [migrations.RunPython(create, drop)]
