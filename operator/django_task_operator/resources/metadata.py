"""What everything that is made for a worker has in its metadata."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django_task_operator.resources.labels import object_labels
from django_task_operator.spec import GROUP, KIND, VERSION

if TYPE_CHECKING:
    from django_task_operator.spec import Manifest, Worker


def object_metadata(worker: Worker, name: str | None = None) -> Manifest:
    """Build the metadata of an object that goes with the worker; without ``name`` it has the worker's."""
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
                # True needs a right to finalizers where OwnerReferencesPermissionEnforcement is on.
                "blockOwnerDeletion": False,
            }
        ],
    }
