"""The metadata that all objects of a worker have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django_task_operator.resources.labels import object_labels
from django_task_operator.spec import GROUP, KIND, VERSION

if TYPE_CHECKING:
    from django_task_operator.spec import Manifest, Worker


def object_metadata(worker: Worker, name: str | None = None) -> Manifest:
    """Build the metadata of an object that is owned by the worker; the default ``name`` is the worker's."""
    return {
        "name": name or worker.key.name,
        "namespace": worker.key.namespace,
        "labels": object_labels(worker.key.name),
        "ownerReferences": [
            {
                "apiVersion": f"{GROUP}/{VERSION}",
                "kind": KIND,
                "name": worker.key.name,
                "uid": worker.uid,
                "controller": True,
                # True would need permission on finalizers if OwnerReferencesPermissionEnforcement is enabled.
                "blockOwnerDeletion": False,
            }
        ],
    }
