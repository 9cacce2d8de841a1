"""What the operator makes for a worker: pure builders of manifests."""

from django_task_operator.resources.children import build_children
from django_task_operator.resources.deployment import build_deployment
from django_task_operator.resources.migration import build_migration, migration_hash
from django_task_operator.resources.runtime import RuntimeSource

__all__ = ["RuntimeSource", "build_children", "build_deployment", "build_migration", "migration_hash"]
