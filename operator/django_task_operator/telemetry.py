"""The operator's Prometheus metrics; ``startup/probes.py`` serves them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    process_collector,
)

from django_task_operator.contract import Metric, StatusField
from django_task_operator.harmless import harmless_name

if TYPE_CHECKING:
    from collections.abc import Mapping

# How many queues of a worker have series of their own. Tenants name their queues, and Prometheus keeps every
# name for weeks. The largest queues are shown, and the others under one name together.
MOST_QUEUES = 50
# The label of all other queues. Upstream's queues may have this name, too: then it is one of them.
OTHER_QUEUES = "(others)"

# Each counter and histogram would have a second series, with the time of its first use.
disable_created_metrics()  # type: ignore[no-untyped-call]
REGISTRY = CollectorRegistry()
process_collector.ProcessCollector(registry=REGISTRY)

_WORKER = ("namespace", "worker")
# A database is known by the name of the Secret with its URL, in that namespace.
_DATABASE = ("namespace", "database")
_QUEUE = (*_WORKER, "queue")

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
QUEUE_PENDING_TASKS = Gauge(
    Metric.QUEUE_PENDING_TASKS, "Due tasks that are waiting in a queue", _QUEUE, registry=REGISTRY
)
QUEUE_RUNNING_TASKS = Gauge(
    Metric.QUEUE_RUNNING_TASKS, "Tasks of a queue that are running", _QUEUE, registry=REGISTRY
)
QUEUE_OLDEST_PENDING_SECONDS = Gauge(
    Metric.QUEUE_OLDEST_PENDING_SECONDS,
    "How long the oldest waiting task of a queue has been due",
    _QUEUE,
    registry=REGISTRY,
)
MIN_REPLICAS = Gauge(Metric.MIN_REPLICAS, "minReplicas of the spec", _WORKER, registry=REGISTRY)
MAX_REPLICAS = Gauge(Metric.MAX_REPLICAS, "maxReplicas of the spec", _WORKER, registry=REGISTRY)
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
DECISIONS = Counter(
    Metric.DECISIONS,
    "Decisions about the replicas, by the reason of the condition ScalingActive",
    (*_WORKER, "reason"),
    registry=REGISTRY,
)
SCALINGS = Counter(Metric.SCALINGS, "Changes of the replicas", (*_WORKER, "reason"), registry=REGISTRY)
SAMPLE_SECONDS = Histogram(
    Metric.SAMPLE_SECONDS,
    "How long a sample of a task table took",
    _DATABASE,
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
    registry=REGISTRY,
)
SAMPLE_ERRORS = Counter(
    Metric.SAMPLE_ERRORS, "Samples that failed", (*_DATABASE, "reason"), registry=REGISTRY
)
CONNECTED_DATABASES = Gauge(
    Metric.CONNECTED_DATABASES, "Databases whose last sample was successful", registry=REGISTRY
)
TURNS = Counter(Metric.TURNS, "Turns of the workers' loops", ("outcome",), registry=REGISTRY)
TURN_SECONDS = Histogram(
    Metric.TURN_SECONDS,
    "How long a turn of a worker's loop took, its requests included",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
    registry=REGISTRY,
)
API_REQUESTS = Counter(
    Metric.API_REQUESTS,
    "Requests to the API server, by the status of the answer",
    ("method", "resource", "code"),
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


_OF_QUEUES = (QUEUE_PENDING_TASKS, QUEUE_RUNNING_TASKS, QUEUE_OLDEST_PENDING_SECONDS)
# The queues that each worker has series for.
_shown: dict[tuple[str, str], frozenset[str]] = {}


@dataclass(frozen=True, slots=True)
class QueueFigures:
    """What is known of one queue of a worker."""

    pending: int = 0
    running: int = 0
    oldest_seconds: float = 0.0

    def __add__(self, other: QueueFigures) -> QueueFigures:
        return QueueFigures(
            self.pending + other.pending,
            self.running + other.running,
            max(self.oldest_seconds, other.oldest_seconds),
        )


def queue_series(queues: Mapping[str, QueueFigures]) -> dict[str, QueueFigures]:
    """Return what is shown for each value of the label ``queue``: at most ``MOST_QUEUES`` and the others.

    Names are made harmless. Those that become the same, because they are long or have no name, are added up.
    """
    by_size = sorted(queues.items(), key=lambda item: (-item[1].pending - item[1].running, item[0]))
    series: dict[str, QueueFigures] = {}
    for number, (queue, figures) in enumerate(by_size):
        shown = harmless_name(queue) if queue and number < MOST_QUEUES else OTHER_QUEUES
        series[shown] = series.get(shown, QueueFigures()) + figures
    return series


def observe_queues(namespace: str, worker: str, queues: Mapping[str, QueueFigures]) -> None:
    """Set the metrics of a worker's queues, and remove those of queues that it no longer has."""
    series = queue_series(queues)
    for gone in _shown.get((namespace, worker), frozenset()) - series.keys():
        for metric in _OF_QUEUES:
            metric.remove(namespace, worker, gone)
    _shown[namespace, worker] = frozenset(series)
    for queue, figures in series.items():
        QUEUE_PENDING_TASKS.labels(namespace, worker, queue).set(figures.pending)
        QUEUE_RUNNING_TASKS.labels(namespace, worker, queue).set(figures.running)
        QUEUE_OLDEST_PENDING_SECONDS.labels(namespace, worker, queue).set(figures.oldest_seconds)


def observe_limits(namespace: str, worker: str, *, least: int, most: int) -> None:
    """Set the bounds of a worker's replicas, as its spec has them."""
    MIN_REPLICAS.labels(namespace, worker).set(least)
    MAX_REPLICAS.labels(namespace, worker).set(most)


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
    observe_queues(namespace, worker, {})
    _shown.pop((namespace, worker))
    of_worker = (DEMAND_TASKS, MIN_REPLICAS, MAX_REPLICAS, CONDITION, DECISIONS, SCALINGS, ORPHANS)
    for metric in (*_FROM_STATUS, *of_worker):
        metric.remove_by_labels({"namespace": namespace, "worker": worker})


def forget_database(namespace: str, database: str) -> None:
    """Remove the metrics of a Secret whose database is no longer sampled."""
    for metric in (SAMPLE_SECONDS, SAMPLE_ERRORS):
        metric.remove_by_labels({"namespace": namespace, "database": database})
