"""Builds the Deployment of a worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django_task_operator.resources.labels import WORKER_UID_ANNOTATION, selector_labels
from django_task_operator.resources.metadata import object_metadata
from django_task_operator.resources.migration import MIGRATED_ANNOTATION
from django_task_operator.resources.pod_template import build_pod_template
from django_task_operator.resources.rotation import (
    NO_ROTATION,
    URL_HASH_ANNOTATION,
    URL_MARK_ANNOTATION,
    Rotation,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from django_task_operator.resources.runtime import RuntimeSource
    from django_task_operator.spec import Manifest, Worker


def build_deployment(
    worker: Worker,
    replicas: int,
    source: RuntimeSource,
    migrated: str | None = None,
    rotation: Rotation = NO_ROTATION,
) -> Manifest:
    """Build the whole Deployment, replicas included.

    Every apply includes the replicas: a later apply without them would reset them to 1. ``migrated``
    is what was migrated for its template, so that this is still known when the Job is gone.
    ``rotation`` is what the Deployment says of its database's URL.
    """
    name = worker.key.name
    template = build_pod_template(name, worker.spec, source)
    annotations = template["metadata"].get("annotations", {})
    marks = {WORKER_UID_ANNOTATION: worker.uid, URL_MARK_ANNOTATION: rotation.mark}
    template["metadata"]["annotations"] = {**annotations, **_given(marks)}
    metadata = object_metadata(worker)
    if notes := _given({MIGRATED_ANNOTATION: migrated, URL_HASH_ANNOTATION: rotation.known}):
        metadata["annotations"] = notes
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": selector_labels(name)},
            # A rollout removes no pod before its replacement is ready: a bad image stops there.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 0}},
            "template": template,
        },
    }


def _given(annotations: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in annotations.items() if value is not None}
