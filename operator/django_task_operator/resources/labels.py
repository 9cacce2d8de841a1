"""The labels by which the operator finds what it made."""

from __future__ import annotations

MANAGER = "django-task-operator"
COMPONENT = "task-worker"
WORKER_LABEL = "djangotasks.dev/worker"
# Of the pods of Jobs: they are no workers, so neither a Deployment nor a budget nor a count may find them.
MIGRATION_LABEL = "djangotasks.dev/migration-of"
CLEANUP_LABEL = "djangotasks.dev/cleanup-of"

# Makes the hash of a pod template, and so the names of its pods, this very worker's of this cluster.
WORKER_UID_ANNOTATION = "djangotasks.dev/worker-uid"

# What the watches ask the API server for.
MANAGED_SELECTOR = f"app.kubernetes.io/managed-by={MANAGER},{WORKER_LABEL}"
MIGRATION_SELECTOR = f"app.kubernetes.io/managed-by={MANAGER},{MIGRATION_LABEL}"
CLEANUP_SELECTOR = f"app.kubernetes.io/managed-by={MANAGER},{CLEANUP_LABEL}"


def selector_labels(worker_name: str) -> dict[str, str]:
    """Labels that select the pods of a worker. A Deployment's selector can never change."""
    return {WORKER_LABEL: worker_name}


def object_labels(worker_name: str) -> dict[str, str]:
    """Labels of everything that is made for a worker."""
    return {
        "app.kubernetes.io/name": worker_name,
        "app.kubernetes.io/component": COMPONENT,
        "app.kubernetes.io/managed-by": MANAGER,
        **selector_labels(worker_name),
    }
