"""Everything that one turn of a worker knows: what it saw, what it decided, and the outcome."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Self

from django_task_operator.metrics_api.availability import Availability, State
from django_task_operator.scaling import DRIVERS, NO_MARKS
from django_task_operator.spec import Driver

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from django_task_operator.contract import EventReason
    from django_task_operator.due import Due
    from django_task_operator.errors import WorkerError
    from django_task_operator.observed.objects import Autoscaler, Deployment, Rival
    from django_task_operator.observed.pods import Pod
    from django_task_operator.scaling import Decision, Demand, Marks, ScalingDriver
    from django_task_operator.spec import Key
    from django_task_operator.tasktable import Durations, QueueDemand

SERVING = Availability(State.SERVING)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a worker; the reason may be that of a condition.

    ``autoscaler`` is the uid of the worker's HorizontalPodAutoscaler if it gets the event, too.
    """

    kind: Literal["Normal", "Warning"]
    reason: EventReason | str
    note: str
    autoscaler: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a turn has decided to apply.

    Args:
        decision: the replicas that the Deployment gets, and why.
        spec_replicas: the value for ``spec.replicas``; None removes the field.
        marks: the pods to mark as the first to be removed. Marks are set before anything else, and then
            everything is decided again, because a pod may have started a task meanwhile.
    """

    decision: Decision
    spec_replicas: int | None
    marks: Marks = NO_MARKS


@dataclass(frozen=True, slots=True)
class Turn:
    """Everything that one turn knows, for the status and the next turn."""

    key: Key
    generation: int
    driver: Driver = Driver.OPERATOR
    # What spec.replicas says.
    asked: int | None = None
    paused: bool = False
    deployment: Deployment | None = None
    pods: tuple[Pod, ...] = ()
    # The ReplicaSets whose pods are of an earlier pod template: they are being replaced.
    outdated: frozenset[str] = frozenset()
    demand: Demand | None = None
    # The demand by queue: of those with tasks, and of those that the spec names. None if it is not known.
    queues: Mapping[str, QueueDemand] | None = None
    sampled_at: datetime | None = None
    sample_seconds: float = 0.0
    indexed: bool = False
    # How long tasks took, since the operator has measured it; None if they were not counted.
    durations: Durations | None = None
    decision: Decision | None = None
    # The keyed hash of the URL that new pods get; None if it is not known or not needed.
    url_hash: str | None = None
    # Why the demand is not known: an error of the Secret, its URL, or the database.
    database_error: WorkerError | None = None
    # What refuses the pods of the migration's Job, in its own words.
    migration_refusal: str | None = None
    # Why the decision was not applied: an error of the spec, or of the API server.
    apply_error: WorkerError | None = None
    shared_queue: tuple[str, Key] | None = None
    unserved_queues: tuple[str, ...] = ()
    last_scale_time: str | None = None
    # With driver HPA: the autoscaler, and where it gets its metric from.
    autoscaler: Autoscaler | None = None
    metrics: Availability = SERVING
    # Somebody else's autoscaler on the Deployment.
    rival: Rival | None = None
    # The name of a VerticalPodAutoscaler that evicts the worker's pods; empty if none does.
    evicted_by: str = ""
    # Counts of the rows of its pods, as far as they are known.
    orphaned_tasks: int | None = None
    stuck_tasks: int | None = None
    # The injected runtime of its pods, and the operator's if that is another; empty if there is none.
    runtime: str | None = None
    pending_runtime: str | None = None
    # What happened, in the order in which it is reported.
    events: tuple[Event, ...] = ()
    # When the next turn is due even if no change is reported; the soonest one counts.
    dues: tuple[Due, ...] = ()

    @property
    def scaling(self) -> ScalingDriver:
        """The scaling driver."""
        return DRIVERS[self.driver]

    def redacted(self, redact: Callable[[str], str]) -> Self:
        """Return the same with ``redact`` applied to everything that others wrote."""
        return replace(
            self,
            pods=tuple(pod.redacted(redact) for pod in self.pods),
            deployment=self.deployment and self.deployment.redacted(redact),
            migration_refusal=self.migration_refusal and redact(self.migration_refusal),
            apply_error=self.apply_error and self.apply_error.redacted(redact),
        )

    @property
    def awaits_sample(self) -> bool:
        """Whether the first sample after a start or a change is still pending, and worth waiting for."""
        return self.scaling.needs_demand and self.demand is None and self.database_error is None

    @property
    def is_sampled(self) -> bool:
        """Whether the tasks were counted under the URL that the worker has now."""
        return self.demand is not None and self.database_error is None

    @property
    def database_answers(self) -> bool:
        """Whether the database accepts statements, even if the tasks in it cannot be counted."""
        return self.database_error is None or self.database_error.database_answers
