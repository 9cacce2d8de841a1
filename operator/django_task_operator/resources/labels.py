"""The labels by which the operator finds the objects that it created."""

from __future__ import annotations

MANAGER = "django-task-operator"
COMPONENT = "task-worker"
WORKER_LABEL = "djangotasks.dev/worker"
# For the pods of Jobs: they are not workers, so no Deployment, budget or count may select them.
MIGRATION_LABEL = "djangotasks.dev/migration-of"
CLEANUP_LABEL = "djangotasks.dev/cleanup-of"

# Makes the hash of a pod template, and so the names of its pods, unique to this worker and cluster.
WORKER_UID_ANNOTATION = "djangotasks.dev/worker-uid"

# The selector of the operator's watches.
MANAGED_SELECTOR = f"app.kubernetes.io/managed-by={MANAGER},{WORKER_LABEL}"
MIGRATION_SELECTOR = f"app.kubernetes.io/managed-by={MANAGER},{MIGRATION_LABEL}"
CLEANUP_SELECTOR = f"app.kubernetes.io/managed-by={MANAGER},{CLEANUP_LABEL}"


def selector_labels(worker_name: str) -> dict[str, str]:
    """Return the labels that select the pods of a worker. A Deployment's selector is immutable."""
    return {WORKER_LABEL: worker_name}


def object_labels(worker_name: str) -> dict[str, str]:
    """Return the labels of every object of a worker."""
    return {
        "app.kubernetes.io/name": worker_name,
        "app.kubernetes.io/component": COMPONENT,
        "app.kubernetes.io/managed-by": MANAGER,
        **selector_labels(worker_name),
    }
