"""Builds the PodDisruptionBudget of a worker's pods."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django_task_operator.resources.labels import selector_labels
from django_task_operator.resources.metadata import object_metadata

if TYPE_CHECKING:
    from django_task_operator.spec import Manifest, Worker


def build_disruption_budget(worker: Worker) -> Manifest:
    """Build the budget: a drain may evict a quarter of the pods at a time, and also a worker's only pod."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": object_metadata(worker),
        "spec": {
            "maxUnavailable": "25%",
            "selector": {"matchLabels": selector_labels(worker.key.name)},
            # A broken pod must not block the drain of a node.
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }
