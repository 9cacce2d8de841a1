"""Builds the Job that migrates the database before the pods of a new image start."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from django_task_operator.resources import runtime
from django_task_operator.resources.job import build_job_spec
from django_task_operator.resources.labels import MIGRATION_LABEL
from django_task_operator.resources.metadata import object_metadata
from django_task_operator.spec import DatabaseSetup

if TYPE_CHECKING:
    from django_task_operator.resources.runtime import RuntimeSource
    from django_task_operator.spec import Manifest, Worker, WorkerSpec

# On the Deployment: what was migrated for its pods. On the Job: what it migrates.
MIGRATED_ANNOTATION = "djangotasks.dev/migrated"

# The container of `migrate`, where another command follows it.
MIGRATE = "django-db-worker-migrate"

# Stops a migration that waits for a lock forever. Migrations of large tables may take long.
DEADLINE_SECONDS = 7200

# The fields that affect what `migrate` does and whether its pod can start, but not how tasks are run.
_FIELDS = {
    "image",
    "image_pull_policy",
    "image_pull_secrets",
    "manage_py",
    "working_dir",
    "env",
    "env_from",
    "resources",
    "database",
    "pod_template",
}
# Of these, what `migrate` is not concerned with.
_BESIDE = {"database": {"operator_url_secret_ref", "url_change_policy"}}


def migration_hash(spec: WorkerSpec) -> str:
    """Return a hash that identifies a migration: the same hash is never migrated twice in a row.

    It is made from the user's spec, not from the Job, so that an upgraded operator repeats no migration.
    """
    fields = spec.model_dump(mode="json", include=_FIELDS, exclude=_BESIDE)
    # What is not said is left out, so that a field which the definition gets later changes no hash.
    fields["database"] = {name: value for name, value in fields["database"].items() if value is not None}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:8]


def build_migration(worker: Worker, source: RuntimeSource) -> Manifest:
    """Build the Job: ``migrate``, and then, if the spec says so, the set-up of the task table.

    ``migrate`` runs without the launcher: as PID 1, Python then ignores the SIGTERM of a drain, so that a
    migration has the worker's grace period to finish. Not every database can roll back half of one. The
    set-up may be interrupted at any moment, and repairs what it left when it runs again.
    """
    wanted = migration_hash(worker.spec)
    metadata = object_metadata(worker, f"{worker.key.name}-migrate-{wanted}")
    migrate = [*worker.spec.manage_py, "migrate", "--noinput"]
    is_managed = worker.spec.database.setup is DatabaseSetup.MANAGED
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {**metadata, "annotations": {MIGRATED_ANNOTATION: wanted}},
        "spec": build_job_spec(
            worker,
            source,
            command=runtime.setup_command(worker.spec) if is_managed else migrate,
            before=(MIGRATE, migrate) if is_managed else None,
            label=MIGRATION_LABEL,
            component="task-migration",
            deadline_seconds=DEADLINE_SECONDS,
        ),
    }
