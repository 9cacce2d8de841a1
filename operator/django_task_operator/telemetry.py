"""The operator's Prometheus metrics; ``startup/probes.py`` serves them."""

from __future__ import annotations

from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    process_collector,
)

from django_task_operator.contract import Metric, StatusField

# Each counter and histogram would have a second series, with the time of its first use.
disable_created_metrics()  # type: ignore[no-untyped-call]
REGISTRY = CollectorRegistry()
process_collector.ProcessCollector(registry=REGISTRY)

_WORKER = ("namespace", "worker")

PENDING_TASKS = Gauge(
    Metric.PENDING_TASKS,
    "Due tasks that are waiting, as counted for the last decision",
    _WORKER,
    registry=REGISTRY,
)
RUNNING_TASKS = Gauge(Metric.RUNNING_TASKS, "Tasks that are running", _WORKER, registry=REGISTRY)
DEMAND_TASKS = Gauge(Metric.DEMAND_TASKS, "Due tasks, waiting or running", _WORKER, registry=REGISTRY)
OLDEST_PENDING_SECONDS = Gauge(
    Metric.OLDEST_PENDING_SECONDS, "How long the oldest waiting task has been due", _WORKER, registry=REGISTRY
)
DESIRED_REPLICAS = Gauge(Metric.DESIRED_REPLICAS, "Replicas last decided", _WORKER, registry=REGISTRY)
READY_REPLICAS = Gauge(Metric.READY_REPLICAS, "Pods that are ready", _WORKER, registry=REGISTRY)
ORPHANED_TASKS = Gauge(
    Metric.ORPHANED_TASKS,
    "Tasks that are RUNNING in the table although the pod that ran them is gone",
    _WORKER,
    registry=REGISTRY,
)
STUCK_TASKS = Gauge(
    Metric.STUCK_TASKS,
    "Tasks that have run for longer than stuckAfterSeconds on a live pod",
    _WORKER,
    registry=REGISTRY,
)
ORPHANS = Counter(
    Metric.ORPHANS,
    "Orphaned tasks that were handled: Failed, Requeued or Ignored",
    (*_WORKER, "outcome"),
    registry=REGISTRY,
)
CONDITION = Gauge(
    Metric.CONDITION,
    "1 while the condition of the worker is True",
    (*_WORKER, "condition"),
    registry=REGISTRY,
)
SCALINGS = Counter(Metric.SCALINGS, "Changes of the replicas", (*_WORKER, "reason"), registry=REGISTRY)
SAMPLE_SECONDS = Histogram(
    Metric.SAMPLE_SECONDS,
    "How long a sample of a task table took",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
    registry=REGISTRY,
)
SAMPLE_ERRORS = Counter(Metric.SAMPLE_ERRORS, "Samples that failed", ("reason",), registry=REGISTRY)
TURNS = Counter(Metric.TURNS, "Turns of the workers' loops", ("outcome",), registry=REGISTRY)
API_REQUESTS = Counter(
    Metric.API_REQUESTS,
    "Requests to the API server",
    ("method", "resource"),
    registry=REGISTRY,
)

WATCHING = Gauge(
    Metric.WATCHING,
    "1 while the objects of a namespace are watched; 0 while the API server refuses the watch",
    ("namespace", "resource"),
    registry=REGISTRY,
)
LEADER = Gauge(Metric.LEADER, "1 while this operator is the leader", registry=REGISTRY)

_FROM_STATUS = {
    PENDING_TASKS: StatusField.PENDING_TASKS,
    RUNNING_TASKS: StatusField.RUNNING_TASKS,
    OLDEST_PENDING_SECONDS: StatusField.OLDEST_PENDING_SECONDS,
    DESIRED_REPLICAS: StatusField.DESIRED_REPLICAS,
    READY_REPLICAS: StatusField.READY_REPLICAS,
    ORPHANED_TASKS: StatusField.ORPHANED_TASKS,
    STUCK_TASKS: StatusField.STUCK_TASKS,
}


def observe(namespace: str, worker: str, status: dict[str, Any]) -> None:
    """Set the metrics from a worker's status, which may be written less often than this is called."""
    for metric, name in _FROM_STATUS.items():
        metric.labels(namespace, worker).set(status.get(name, 0))
    tasks = status.get(StatusField.PENDING_TASKS, 0) + status.get(StatusField.RUNNING_TASKS, 0)
    DEMAND_TASKS.labels(namespace, worker).set(tasks)
    for condition in status[StatusField.CONDITIONS]:
        CONDITION.labels(namespace, worker, condition["type"]).set(condition["status"] == "True")


def forget(namespace: str, worker: str) -> None:
    """Remove the metrics of a worker that is gone."""
    for metric in (*_FROM_STATUS, DEMAND_TASKS, CONDITION, SCALINGS, ORPHANS):
        metric.remove_by_labels({"namespace": namespace, "worker": worker})
