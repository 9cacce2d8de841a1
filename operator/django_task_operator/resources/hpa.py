"""Builds the HorizontalPodAutoscaler of a worker whose driver is HPA."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django_task_operator.contract import Metric
from django_task_operator.resources.metadata import object_metadata
from django_task_operator.spec import GROUP, KIND, VERSION

if TYPE_CHECKING:
    from django_task_operator.spec import Manifest, Worker

# The number of pending and running tasks, which the operator serves at external.metrics.k8s.io.
METRIC = Metric.DEMAND_TASKS.value


def build_autoscaler(worker: Worker) -> Manifest:
    """Build the autoscaler: it writes the worker's scale subresource, not the Deployment's.

    Its minimum is 1, because it is inactive at zero: the operator itself scales from and to zero.
    """
    scaling = worker.spec.scaling
    metric = {"name": METRIC, "selector": {"matchLabels": {"worker": worker.key.name}}}
    target = {"type": "AverageValue", "averageValue": str(worker.spec.tasks_per_replica)}
    spec: Manifest = {
        "scaleTargetRef": {"apiVersion": f"{GROUP}/{VERSION}", "kind": KIND, "name": worker.key.name},
        "minReplicas": max(1, scaling.min_replicas),
        "maxReplicas": scaling.max_replicas,
        "metrics": [{"type": "External", "external": {"metric": metric, "target": target}}],
    }
    if scaling.behavior:
        spec["behavior"] = scaling.behavior
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": object_metadata(worker),
        "spec": spec,
    }
