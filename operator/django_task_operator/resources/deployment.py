"""Builds the Deployment of a worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django_task_operator.resources.labels import object_labels, selector_labels
from django_task_operator.resources.pod_template import build_pod_template
from django_task_operator.spec import GROUP, KIND, VERSION

if TYPE_CHECKING:
    from django_task_operator.resources.runtime import RuntimeSource
    from django_task_operator.spec import Manifest, Worker


def build_deployment(worker: Worker, replicas: int, source: RuntimeSource) -> Manifest:
    """Build the whole Deployment, replicas included.

    Every apply carries the replicas: a later apply without them would reset them to 1.
    """
    name = worker.key.name
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": name,
            "namespace": worker.key.namespace,
            "labels": object_labels(name),
            "ownerReferences": [
                {
                    "apiVersion": f"{GROUP}/{VERSION}",
                    "kind": KIND,
                    "name": name,
                    "uid": worker.uid,
                    "controller": True,
                    # True needs a right to finalizers where OwnerReferencesPermissionEnforcement is on.
                    "blockOwnerDeletion": False,
                }
            ],
        },
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": selector_labels(name)},
            # A rollout takes no pod away before its successor runs: a bad image stops there.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 0}},
            "template": build_pod_template(name, worker.spec, source),
        },
    }
