"""The objects that the operator creates for a worker: pure builders of manifests, one file for each kind.

In come a parsed worker, the decided replicas and where the runtime comes from. Out come complete manifests,
ready to apply; ``tests/unit/resources/golden/`` shows them in readable form.
"""

from django_task_operator.resources.children import build_children
from django_task_operator.resources.deployment import build_deployment, template_hash
from django_task_operator.resources.migration import build_migration, migration_hash
from django_task_operator.resources.restrictions import forbidden_fields
from django_task_operator.resources.rotation import Rotation, follow, url_hash
from django_task_operator.resources.runtime import RuntimeSource

__all__ = [
    "Rotation",
    "RuntimeSource",
    "build_children",
    "build_deployment",
    "build_migration",
    "follow",
    "forbidden_fields",
    "migration_hash",
    "template_hash",
    "url_hash",
]
