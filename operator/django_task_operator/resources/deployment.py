"""Builds the Deployment of a worker."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
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
from django_task_operator.resources.upgrade import RECORD_ANNOTATION

if TYPE_CHECKING:
    from collections.abc import Mapping

    from django_task_operator.resources.runtime import RuntimeSource
    from django_task_operator.resources.upgrade import Record
    from django_task_operator.spec import Manifest, Worker


def build_deployment(
    worker: Worker,
    replicas: int,
    source: RuntimeSource,
    migrated: str | None = None,
    rotation: Rotation = NO_ROTATION,
    record: Record | None = None,
) -> Manifest:
    """Build the whole Deployment, replicas included.

    Every apply includes the replicas: a later apply without them would reset them to 1. ``migrated``
    is what was migrated for its template, so that this is still known when the Job is gone.
    ``rotation`` is what the Deployment says of its database's URL, and ``record`` what it says of ``source``.
    """
    name = worker.key.name
    metadata = object_metadata(worker)
    notes = {
        MIGRATED_ANNOTATION: migrated,
        URL_HASH_ANNOTATION: rotation.known,
        RECORD_ANNOTATION: record.text if record else None,
    }
    if given := _given(notes):
        metadata["annotations"] = given
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": selector_labels(name)},
            # A rollout removes no pod before its replacement is ready: a bad image stops there.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 0}},
            "template": _template(worker, source, rotation),
        },
    }


def template_hash(worker: Worker, source: RuntimeSource, rotation: Rotation) -> str:
    """Hash a worker's pod template without what differs between two runtimes.

    It is made from what is built, so a version of the operator that builds another template has another hash.
    """
    template = _template(worker, replace(source, image="", revision="", recorded_hash=""), rotation)
    return hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:12]


def _template(worker: Worker, source: RuntimeSource, rotation: Rotation) -> Manifest:
    template = build_pod_template(worker.key.name, worker.spec, source)
    annotations = template["metadata"].get("annotations", {})
    marks = {WORKER_UID_ANNOTATION: worker.uid, URL_MARK_ANNOTATION: rotation.mark}
    template["metadata"]["annotations"] = {**annotations, **_given(marks)}
    return template


def _given(annotations: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in annotations.items() if value is not None}
