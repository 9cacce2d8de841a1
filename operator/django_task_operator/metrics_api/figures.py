"""The workers' figures: the metric values that the metrics API serves, from the last polls.

An answer is complete, or there is none: an HPA adds up the items that it gets, and would scale in if one
were missing. So while the figures of a worker are not known, requests for them get an error, after which an
HPA does not scale.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from django_task_operator.contract import Metric
from django_task_operator.harmless import harmless_name
from django_task_operator.metrics_api.quantity import quantity

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from datetime import datetime

    from django_task_operator.metrics_api.selector import Selector
    from django_task_operator.spec import Key
    from django_task_operator.tasktable import Observation, QueueDemand, Selection, SelectionDemand

type _Measure = Callable[[QueueDemand | SelectionDemand, datetime], float]

WORKER, QUEUE, DATABASE = "worker", "queue", "database"


def _age(demand: QueueDemand | SelectionDemand, now: datetime) -> float:
    return max(0.0, (now - demand.oldest_ready).total_seconds()) if demand.oldest_ready else 0.0


METRICS: Mapping[str, _Measure] = {
    Metric.PENDING_TASKS: lambda demand, _: demand.ready,
    Metric.RUNNING_TASKS: lambda demand, _: demand.running,
    Metric.DEMAND_TASKS: lambda demand, _: demand.ready + demand.running,
    Metric.OLDEST_PENDING_SECONDS: _age,
}


class NotKnown(Exception):
    """The figures of a worker are not known; the message says why."""


class Polled(Protocol):
    """A worker's subscription to its database."""

    @property
    def selection(self) -> Selection:
        """The worker's rows."""

    @property
    def observation(self) -> Observation:
        """The results of the polls so far."""


@dataclass(frozen=True, slots=True)
class Item:
    """One figure."""

    labels: Mapping[str, str]
    at: datetime
    value: str


@dataclass(frozen=True, slots=True)
class _Worker:
    """Where a worker's figures come from; ``why_not`` says why there are none.

    ``until`` is when the operator stops waiting for a worker that was listed but not yet reported.
    """

    database: str = ""
    polled: Polled | None = None
    why_not: str = "it has not been observed yet"
    until: float = float("inf")


class Figures:
    """Every worker's figures, as recent as the last poll of its database."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Start without workers."""
        self._clock = clock
        self._workers: dict[str, dict[str, _Worker]] = defaultdict(dict)

    def expect(self, key: Key, seconds: float = float("inf")) -> None:
        """Note that a worker exists whose figures will follow within that time."""
        self._workers[key.namespace][key.name] = _Worker(until=self._clock() + seconds)

    def follow(self, key: Key, polled: Polled, database: str) -> None:
        """Get a worker's figures from its polls; ``database`` is the name of its Secret."""
        self._workers[key.namespace][key.name] = _Worker(database, polled)

    def fail(self, key: Key, database: str, why_not: str) -> None:
        """Note that a worker's figures are not available."""
        self._workers[key.namespace][key.name] = _Worker(database, why_not=why_not)

    def drop(self, key: Key) -> None:
        """Remove a worker that is gone."""
        workers = self._workers[key.namespace]
        workers.pop(key.name, None)
        if not workers:
            del self._workers[key.namespace]

    def items(self, namespace: str, metric: str, selector: Selector) -> list[Item]:
        """Return a metric's values for the workers of one namespace.

        Raises:
            NotKnown: a selected worker has no figures now.
        """
        now = self._clock()
        workers = self._workers.get(namespace, {})
        return [
            item
            for name, worker in sorted(workers.items())
            if now < worker.until
            for item in _items(name, worker, METRICS[metric], selector)
        ]


def _items(name: str, worker: _Worker, measure: _Measure, selector: Selector) -> Iterator[Item]:
    labels = {WORKER: name, DATABASE: worker.database}
    if not selector.matches(labels, unknown={QUEUE} if worker.database else {QUEUE, DATABASE}):
        return
    if worker.polled is None:
        raise NotKnown(f"the figures of worker {name} are not known: {worker.why_not}")
    observation, selection = worker.polled.observation, worker.polled.selection
    demand = observation.demand
    if observation.error or demand is None or observation.sampled_at is None:
        queues = [None] if selection.is_every_queue else selection.queues
        if any(selector.matches(*_at(labels, queue)) for queue in queues):
            why_not = observation.error or "its database has not been sampled yet"
            raise NotKnown(f"the figures of worker {name} are not known: {why_not}")
        return
    if "" in demand.queues:
        # Too many to name.
        if selector.asked(QUEUE):
            raise NotKnown(f"worker {name} has too many queues to tell them apart")
        found: Mapping[str, QueueDemand | SelectionDemand | None] = {"": demand}
    else:
        found = {queue: demand.queues.get(queue) for queue in _queues(selection, demand, selector)}
    for queue, part in found.items():
        mine = {**labels, QUEUE: queue} if queue else labels
        if selector.matches(mine):
            value = measure(part, observation.sampled_at) if part else 0
            shown = {label: harmless_name(text) for label, text in mine.items()}
            yield Item(shown, observation.sampled_at, quantity(value))


def _at(labels: Mapping[str, str], queue: str | None) -> tuple[Mapping[str, str], Collection[str]]:
    return (labels, {QUEUE}) if queue is None else ({**labels, QUEUE: queue}, ())


def _queues(selection: Selection, demand: SelectionDemand, selector: Selector) -> list[str]:
    """Return the queues to include: those with tasks, and those that are named, which may be zero.

    A worker for every queue without any tasks has one item without the label, unless a queue is selected.
    """
    named = selector.asked(QUEUE) if selection.is_every_queue else set(selection.queues)
    queues = (named - set(selection.exclude_queues)) | set(demand.queues)
    return sorted(queues) or [""]
