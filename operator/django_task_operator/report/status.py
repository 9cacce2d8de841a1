"""What a turn saw and did, as the status that users read: pure functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from django_task_operator.contract import ConditionReason, ConditionType, StatusField
from django_task_operator.errors import UserError
from django_task_operator.harmless import harmless, harmless_name, harmless_names
from django_task_operator.metrics_api.availability import State
from django_task_operator.observed.pods import PodTrouble
from django_task_operator.resources.hpa import METRIC
from django_task_operator.resources.labels import selector_labels
from django_task_operator.scaling import Reason
from django_task_operator.spec import GROUP, VERSION, Driver

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from django_task_operator.observed.objects import Deployment, Rival
    from django_task_operator.scaling import Decision
    from django_task_operator.spec import Key, Manifest
    from django_task_operator.turn import Turn

# A slower sample needs the index (docs/database.md), or a database that is less busy.
SLOW_SAMPLE_SECONDS = 0.5
# How many characters of a pod's message are shown.
LONGEST_DETAIL = 400
# The same of a refusal, in which policy engines list every rule that was broken.
LONGEST_REFUSAL = 2000

_POD_ADVICE = {
    PodTrouble.IMAGE_PULL_FAILED: (
        "The image cannot be pulled: {detail}. "
        "Correct the image there, or name its credentials in spec.imagePullSecrets."
    ),
    PodTrouble.CONTAINER_CONFIG_INVALID: (
        "The container cannot be started: {detail}. "
        "Correct spec.env, spec.envFrom, spec.database or spec.podTemplate."
    ),
    PodTrouble.CRASH_LOOPING: (
        "The worker keeps exiting: {detail}. See: kubectl logs -n {namespace} {pod} --previous"
    ),
    PodTrouble.UNSCHEDULABLE: (
        "No node has room for the pod: {detail}. "
        "Lower spec.resources or spec.scaling.maxReplicas, or add nodes."
    ),
}
# Why the HorizontalPodAutoscaler gets no metric from the operator: a reason, and what to do.
NO_METRICS = {
    State.OFF: (
        ConditionReason.METRICS_API_OFF,
        (
            "The operator does not serve {metric}, which the HorizontalPodAutoscaler needs. "
            "Set metricsApi.enabled in its chart, or spec.scaling.driver to Operator."
        ),
    ),
    State.FOREIGN: (
        ConditionReason.METRICS_API_FOREIGN,
        (
            "The cluster's external metrics come from {service}, which the operator leaves alone. "
            "Let it serve {metric} (docs/scaling-with-the-hpa.md), or set spec.scaling.driver to Operator."
        ),
    ),
    State.UNREACHABLE: (
        ConditionReason.METRICS_API_UNREACHABLE,
        (
            "The API server cannot reach the operator's metrics API{detail}. "
            "See: kubectl describe apiservice v1beta1.external.metrics.k8s.io."
        ),
    ),
}


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition's status and why; ``None`` is Unknown."""

    status: bool | None
    reason: str
    message: str


def conditions_of(turn: Turn, now: datetime) -> dict[ConditionType, Condition]:
    """Every condition of the worker, by type (kstatus's meaning of Ready, Reconciling, Stalled)."""
    database = _database(turn)
    stalled = _stalled(turn, now)
    reconciling = _reconciling(turn, now)
    return {
        ConditionType.READY: _ready(turn, database, stalled, reconciling),
        ConditionType.STALLED: stalled,
        ConditionType.RECONCILING: reconciling,
        ConditionType.SCALING_ACTIVE: _scaling(turn, database),
        ConditionType.DATABASE_REACHABLE: database,
        ConditionType.PAUSED: (
            Condition(
                True, ConditionReason.PAUSED, "spec.paused is set: the replicas are held where they are."
            )
            if turn.paused
            else Condition(False, ConditionReason.NOT_PAUSED, "")
        ),
    }


def build_status(
    turn: Turn, conditions: Mapping[ConditionType, Condition], previous: Manifest, now: datetime
) -> Manifest:
    """Build the whole status; conditions that did not change keep their times from ``previous``."""
    before = {condition["type"]: condition for condition in previous.get(StatusField.CONDITIONS, ())}
    deployment, demand = turn.deployment, turn.demand
    known: Manifest = {
        StatusField.OBSERVED_GENERATION: turn.generation,
        StatusField.REPLICAS: deployment.replicas if deployment else 0,
        StatusField.READY_REPLICAS: deployment.ready_replicas if deployment else 0,
        StatusField.DESIRED_REPLICAS: turn.decision.replicas if turn.decision else None,
        StatusField.SELECTOR: _selector(turn.key),
        StatusField.PENDING_TASKS: demand.ready if demand else None,
        StatusField.RUNNING_TASKS: demand.running if demand else None,
        StatusField.OLDEST_PENDING_SECONDS: round(demand.oldest_ready_seconds) if demand else None,
        StatusField.ORPHANED_TASKS: turn.orphaned_tasks,
        StatusField.STUCK_TASKS: turn.stuck_tasks,
        StatusField.RUNTIME: turn.runtime,
        StatusField.PENDING_RUNTIME: turn.pending_runtime,
        StatusField.LAST_SCALE_TIME: turn.last_scale_time,
        StatusField.LAST_SAMPLE_TIME: timestamp(turn.sampled_at) if turn.sampled_at else None,
        StatusField.CONDITIONS: [
            _written(kind, condition, turn.generation, before.get(kind), now)
            for kind, condition in conditions.items()
        ],
    }
    # A value that is not known now stays as it was; an empty one has no field.
    kept = ((name, previous.get(name) if value is None else value) for name, value in known.items())
    return {str(name): value for name, value in kept if value is not None and value != ""}


def steady_part(status: Manifest) -> Manifest:
    """The part of a status whose changes are written immediately; the rest changes with every task."""
    moving = {
        StatusField.PENDING_TASKS,
        StatusField.RUNNING_TASKS,
        StatusField.OLDEST_PENDING_SECONDS,
        StatusField.LAST_SAMPLE_TIME,
    }
    steady = {name: value for name, value in status.items() if name not in moving}
    steady[StatusField.CONDITIONS] = [
        {**condition, "message": ""} if condition["type"] == ConditionType.SCALING_ACTIVE else condition
        for condition in status.get(StatusField.CONDITIONS, ())
    ]
    return steady


def differs(status: Manifest, other: Manifest) -> bool:
    """Whether two statuses differ in more than ages and times, which change by themselves."""
    passing = {StatusField.OLDEST_PENDING_SECONDS, StatusField.LAST_SAMPLE_TIME}
    return {k: v for k, v in status.items() if k not in passing} != {
        k: v for k, v in other.items() if k not in passing
    }


def _selector(key: Key) -> str:
    return ",".join(f"{name}={value}" for name, value in selector_labels(key.name).items())


def timestamp(at: datetime) -> str:
    """Format a time as the API does."""
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def _database(turn: Turn) -> Condition:
    if turn.database_error:
        return Condition(False, turn.database_error.reason, turn.database_error.message)
    if turn.demand is None:
        return Condition(None, ConditionReason.NOT_SAMPLED_YET, "The task table has not been sampled yet.")
    if turn.sample_seconds >= SLOW_SAMPLE_SECONDS:
        return Condition(
            True,
            ConditionReason.SAMPLE_SLOW,
            f"A sample of the task table takes more than {SLOW_SAMPLE_SECONDS:g} s, "
            "so it is taken less often. "
            + ("Is the database busy?" if turn.indexed else "Add the index of docs/database.md."),
        )
    return Condition(True, ConditionReason.SAMPLED, "The task table answers.")


def _scaling(turn: Turn, database: Condition) -> Condition:
    held = f" Replicas are held at {turn.decision.replicas}." if turn.decision else ""
    if database.status is not True and turn.scaling.needs_demand:
        return Condition(False, database.reason, database.message + held)
    if turn.rival:
        return Condition(False, Reason.CONFLICT, _conflict(turn, turn.rival))
    if turn.paused:
        return Condition(False, ConditionReason.PAUSED, f"spec.paused is set.{held}")
    if trouble := _autoscaler(turn) or _evictions(turn) or _queues(turn):
        return trouble
    if turn.decision is None:
        return Condition(None, ConditionReason.NOT_DECIDED_YET, "")
    return Condition(True, str(turn.decision.reason), turn.decision.message)


def _conflict(turn: Turn, rival: Rival) -> str:
    number = f" ({turn.decision.replicas})" if turn.decision else ""
    return (
        f"{rival.words} scales the Deployment too. While it does, its number counts{number}, and only from "
        f"zero the operator starts pods. Delete it; or point it at DjangoTaskWorker {turn.key.name} "
        f"({GROUP}/{VERSION}) and set spec.scaling.driver to External; or let driver HPA make one."
    )


def _evictions(turn: Turn) -> Condition | None:
    """A conflict, but not about the number of replicas, which still follows the tasks."""
    if not turn.evicted_by:
        return None
    return Condition(
        True,
        Reason.CONFLICT,
        f"VerticalPodAutoscaler {turn.evicted_by} evicts pods to change their resources, also while they run "
        "tasks. Set its spec.updatePolicy.updateMode to Initial, so that only new pods get its values; "
        "or delete it, and set spec.resources.",
    )


def _queues(turn: Turn) -> Condition | None:
    if turn.shared_queue:
        queue, other = turn.shared_queue
        which = "Every queue" if queue == "*" else f"Queue {harmless_name(queue)}"
        return Condition(
            True,
            ConditionReason.QUEUE_SHARED,
            f"{which} is served by DjangoTaskWorker {other} too: both scale for the same tasks. "
            "Give each its own spec.queues, or delete one.",
        )
    if turn.unserved_queues:
        return Condition(
            True,
            ConditionReason.QUEUE_UNSERVED,
            f"Tasks wait in queue {harmless_names(turn.unserved_queues)}, which no DjangoTaskWorker serves. "
            "Add it to the spec.queues of one, or create one for it.",
        )
    return None


def _autoscaler(turn: Turn) -> Condition | None:
    """What keeps the HorizontalPodAutoscaler from working, or may do so once it leaves zero."""
    if turn.driver is not Driver.HPA:
        return None
    counts = turn.autoscaler.counts if turn.autoscaler else None
    if turn.metrics.state in NO_METRICS and not counts:
        reason, advice = NO_METRICS[turn.metrics.state]
        detail = f" ({turn.metrics.detail[:LONGEST_DETAIL].rstrip('.')})" if turn.metrics.detail else ""
        message = advice.format(service=turn.metrics.service, detail=detail, metric=METRIC)
        # At zero the autoscaler asks for no metric, so it is unknown whether another adapter serves it.
        may_work = counts is None and turn.metrics.state is not State.UNREACHABLE
        return Condition(
            None if may_work else False,
            reason,
            f"{message} Until then the operator only scales from and to zero, and otherwise holds.",
        )
    if turn.autoscaler and turn.autoscaler.trouble:
        trouble, detail = turn.autoscaler.trouble
        return Condition(
            False,
            ConditionReason.AUTOSCALER_FAILING,
            f"The HorizontalPodAutoscaler cannot scale ({trouble}): {detail[:LONGEST_DETAIL].rstrip('.')}. "
            f"Until it can, it holds the replicas. See: kubectl describe hpa {turn.key.name}",
        )
    return None


def _stalled(turn: Turn, now: datetime) -> Condition:
    for error in (turn.apply_error, turn.database_error):
        if isinstance(error, UserError):
            return Condition(True, error.reason, error.message)
    if refusal := turn.migration_refusal or (turn.deployment and turn.deployment.failure):
        return Condition(
            True,
            ConditionReason.PODS_REJECTED,
            f"Pods cannot be created: {refusal[:LONGEST_REFUSAL]}. "
            "See spec.resources, spec.podTemplate and the namespace's quotas.",
        )
    trouble = _pod_trouble(turn, now)
    if trouble and trouble[0] != PodTrouble.UNSCHEDULABLE:
        return Condition(True, *trouble)
    if turn.deployment and turn.deployment.overdue:
        return Condition(
            True,
            ConditionReason.ROLLOUT_OVERDUE,
            "The new pods are not ready after ten minutes. "
            f"See: kubectl describe pods -n {turn.key.namespace} -l {_selector(turn.key)}",
        )
    return Condition(False, ConditionReason.NOT_STALLED, "")


def _reconciling(turn: Turn, now: datetime) -> Condition:
    if turn.apply_error and not isinstance(turn.apply_error, UserError):
        return Condition(True, turn.apply_error.reason, turn.apply_error.message)
    trouble = _pod_trouble(turn, now)
    if trouble and trouble[0] == PodTrouble.UNSCHEDULABLE:
        return Condition(True, *trouble)
    if turn.deployment is None:
        if turn.awaits_sample:
            return Condition(True, ConditionReason.STARTING, "Waiting for the first sample.")
        return Condition(False, ConditionReason.SETTLED, "")
    return _progress(turn.deployment, turn.decision)


def _progress(deployment: Deployment, decision: Decision | None) -> Condition:
    wanted = decision.replicas if decision else deployment.wanted_replicas
    if not deployment.wanted_replicas == deployment.replicas == wanted:
        return Condition(True, ConditionReason.SCALING, "Pods are starting or terminating.")
    if not deployment.rolled_out:
        return Condition(
            True,
            ConditionReason.ROLLING_OUT,
            "Pods are being replaced, after a change of the spec, the database's URL or the runtime.",
        )
    if deployment.ready_replicas < deployment.replicas:
        return Condition(True, ConditionReason.PODS_STARTING, "Pods are not ready yet.")
    return Condition(False, ConditionReason.SETTLED, "")


def _ready(turn: Turn, database: Condition, stalled: Condition, reconciling: Condition) -> Condition:
    wanted = turn.decision.replicas if turn.decision else 0
    ready = turn.deployment.ready_replicas if turn.deployment else 0
    if stalled.status:
        # Not ready: a pipeline that waits for this condition must fail. The message says how many pods work.
        working = f"{min(ready, wanted)} of {wanted} replicas are ready. " if ready and wanted else ""
        return Condition(False, stalled.reason, working + stalled.message)
    if database.status is not True:
        return Condition(database.status, database.reason, database.message)
    if wanted and not ready:
        return Condition(
            False, reconciling.reason, f"0 of {wanted} replicas are ready. {reconciling.message}".strip()
        )
    if not wanted and turn.demand and turn.demand.tasks:
        held = turn.paused or turn.scaling.needs_demand
        return Condition(
            False,
            ConditionReason.PAUSED if held else ConditionReason.NO_REPLICAS_ASKED,
            f"Tasks wait, but {'spec.paused holds the replicas at' if held else 'spec.replicas is'} 0.",
        )
    if not wanted:
        return Condition(True, ConditionReason.SCALED_TO_ZERO, "No task is pending or running.")
    return Condition(
        True, ConditionReason.REPLICAS_READY, f"{min(ready, wanted)} of {wanted} replicas are ready."
    )


def _pod_trouble(turn: Turn, now: datetime) -> tuple[str, str] | None:
    order = list(PodTrouble)
    # What was wrong with an earlier template may have been corrected by this one.
    pods = (pod for pod in turn.pods if pod.replica_set not in turn.outdated)
    found = [(*trouble, pod.name) for pod in pods if (trouble := pod.trouble_at(now))]
    if not found:
        return None
    kind, detail, pod = min(found, key=lambda one: (order.index(one[0]), one[2]))
    detail = detail[:LONGEST_DETAIL].rstrip(".")
    message = _POD_ADVICE[kind].format(detail=detail, namespace=turn.key.namespace, pod=pod)
    return str(kind), message


def _written(
    kind: ConditionType, condition: Condition, generation: int, before: Manifest | None, now: datetime
) -> Manifest:
    status = {True: "True", False: "False", None: "Unknown"}[condition.status]
    unchanged = before is not None and before.get("status") == status
    return {
        "type": str(kind),
        "status": status,
        "reason": str(condition.reason),
        "message": harmless(condition.message),
        "observedGeneration": generation,
        "lastTransitionTime": before["lastTransitionTime"] if before and unchanged else timestamp(now),
    }
