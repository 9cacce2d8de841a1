"""Situations, and the conditions that describe them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from tests.unit.fakes import worker_manifest
from tests.unit.test_spec import DEFINITION

from django_task_operator.contract import ConditionType
from django_task_operator.errors import (
    ApiUnavailable,
    InvalidSpec,
    Migrating,
    ObjectLeftOver,
    ObjectNameTaken,
    ObjectRejected,
    SecretMissing,
)
from django_task_operator.observed.objects import Deployment
from django_task_operator.observed.pods import Pod, PodTrouble
from django_task_operator.report.status import build_status, conditions_of, differs, steady_part, timestamp
from django_task_operator.scaling import Decision, Demand, History, Reason
from django_task_operator.spec import Key
from django_task_operator.tasktable.errors import ConnectionRefused
from django_task_operator.turn import Turn

if TYPE_CHECKING:
    from django_task_operator.errors import WorkerError

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
KEY = Key(namespace="shop", name="emails")
OTHER = Key(namespace="shop", name="mails")


def decided(replicas: int, reason: Reason = Reason.DEMAND_MET, message: str = "why") -> Decision:
    return Decision(replicas, replicas, reason, message, History())


def deployed(wanted: int, there: int | None = None, ready: int | None = None, **more: Any) -> Deployment:
    there = wanted if there is None else there
    values: dict[str, Any] = {
        "name": "emails",
        "uid": "d",
        "controller_kind": "DjangoTaskWorker",
        "controller_uid": "w",
        "revision": "1",
        "labels": frozenset(),
        "wanted_replicas": wanted,
        "rolled_out": True,
        "replicas": there,
        "ready_replicas": there if ready is None else ready,
        "failure": None,
    }
    return Deployment(**values | more)


GOOD = Turn(
    KEY,
    3,
    deployment=deployed(2),
    demand=Demand(12, 3, 4.4),
    sampled_at=NOW,
    decision=decided(2),
)
MISSING = SecretMissing(secret="shop-db", namespace="shop", field="spec.database.urlSecretRef.name")
DOWN = ConnectionRefused()


def with_pod(trouble: PodTrouble, detail: str = "detail") -> Turn:
    return replace(GOOD, deployment=deployed(2, ready=0), pods=(Pod("p-1", trouble=trouble, detail=detail),))


def unsampled(error: WorkerError | None, **more: Any) -> Turn:
    return replace(GOOD, demand=None, sampled_at=None, database_error=error, **more)


# T is True, F False, U Unknown; each with the reason.
TABLE: list[tuple[str, Turn, dict[str, str]]] = [
    (
        "all is well",
        GOOD,
        {
            "Ready": "T ReplicasReady",
            "Reconciling": "F Settled",
            "Stalled": "F NotStalled",
            "ScalingActive": "T DemandMet",
            "DatabaseReachable": "T Sampled",
            "Paused": "F NotPaused",
        },
    ),
    (
        "nothing to do",
        replace(GOOD, demand=Demand(0, 0), deployment=deployed(0), decision=decided(0)),
        {"Ready": "T ScaledToZero", "Reconciling": "F Settled", "Stalled": "F NotStalled"},
    ),
    (
        "new",
        Turn(KEY, 1),
        {
            "Ready": "U NotSampledYet",
            "Reconciling": "T Starting",
            "Stalled": "F NotStalled",
            "ScalingActive": "F NotSampledYet",
            "DatabaseReachable": "U NotSampledYet",
        },
    ),
    (
        "first pods start",
        replace(GOOD, deployment=deployed(2, there=0), decision=decided(2, Reason.SCALED_UP)),
        {"Ready": "F Scaling", "Reconciling": "T Scaling", "ScalingActive": "T ScaledUp"},
    ),
    (
        "more pods start",
        replace(GOOD, deployment=deployed(5, there=2), decision=decided(5)),
        {"Ready": "T ReplicasReady", "Reconciling": "T Scaling"},
    ),
    (
        "pods are not ready",
        replace(GOOD, deployment=deployed(2, ready=1)),
        {"Ready": "T ReplicasReady", "Reconciling": "T PodsStarting"},
    ),
    (
        "rollout",
        replace(GOOD, deployment=deployed(2, rolled_out=False)),
        {"Ready": "T ReplicasReady", "Reconciling": "T RollingOut"},
    ),
    (
        "held back",
        replace(GOOD, decision=decided(2, Reason.STABILIZING)),
        {"ScalingActive": "T Stabilizing", "Ready": "T ReplicasReady"},
    ),
    (
        "paused",
        replace(GOOD, paused=True, decision=decided(2, Reason.HELD)),
        {"Paused": "T Paused", "ScalingActive": "F Paused", "Ready": "T ReplicasReady"},
    ),
    (
        "Secret missing",
        unsampled(MISSING),
        {
            "Ready": "F SecretMissing",
            "Stalled": "T SecretMissing",
            "ScalingActive": "F SecretMissing",
            "DatabaseReachable": "F SecretMissing",
        },
    ),
    (
        "Secret missing from the start",
        unsampled(MISSING, deployment=None, decision=decided(0)),
        {"Ready": "F SecretMissing", "Stalled": "T SecretMissing", "Reconciling": "F Settled"},
    ),
    (
        "database down",
        unsampled(DOWN),
        {
            "Ready": "F ConnectionRefused",
            "Stalled": "F NotStalled",
            "ScalingActive": "F ConnectionRefused",
            "DatabaseReachable": "F ConnectionRefused",
        },
    ),
    (
        "slow samples",
        replace(GOOD, sample_seconds=0.5),
        {"DatabaseReachable": "T SampleSlow", "Ready": "T ReplicasReady"},
    ),
    (
        "spec invalid",
        replace(GOOD, demand=None, apply_error=InvalidSpec(field="spec.image", problem="no")),
        {"Stalled": "T InvalidSpec", "Ready": "F InvalidSpec"},
    ),
    (
        "name taken",
        replace(GOOD, deployment=None, apply_error=ObjectNameTaken(kind="Deployment", name="emails")),
        {"Stalled": "T DeploymentNameTaken", "Ready": "F DeploymentNameTaken"},
    ),
    (
        "template rejected",
        replace(GOOD, apply_error=ObjectRejected(kind="Deployment", problem="no")),
        {"Stalled": "T DeploymentRejected", "Ready": "F DeploymentRejected"},
    ),
    (
        "API away",
        replace(GOOD, apply_error=ApiUnavailable(action="Deployment", problem="no")),
        {"Stalled": "F NotStalled", "Reconciling": "T ApiUnavailable", "Ready": "T ReplicasReady"},
    ),
    (
        "left over",
        replace(GOOD, deployment=None, apply_error=ObjectLeftOver(kind="Deployment", name="emails")),
        {"Reconciling": "T DeploymentLeftOver", "Stalled": "F NotStalled", "Ready": "F DeploymentLeftOver"},
    ),
    (
        "image",
        with_pod(PodTrouble.IMAGE_PULL_FAILED),
        {"Stalled": "T ImagePullFailed", "Ready": "F ImagePullFailed"},
    ),
    (
        "container",
        with_pod(PodTrouble.CONTAINER_CONFIG_INVALID),
        {"Stalled": "T ContainerConfigInvalid", "Ready": "F ContainerConfigInvalid"},
    ),
    (
        "crash loop",
        with_pod(PodTrouble.CRASH_LOOPING),
        {"Stalled": "T CrashLooping", "Ready": "F CrashLooping"},
    ),
    (
        "no room",
        with_pod(PodTrouble.UNSCHEDULABLE),
        {"Stalled": "F NotStalled", "Reconciling": "T PodUnschedulable", "Ready": "F PodUnschedulable"},
    ),
    (
        "quota",
        replace(GOOD, deployment=deployed(2, there=0, failure="exceeded quota")),
        {"Stalled": "T PodsRejected", "Ready": "F PodsRejected"},
    ),
    # An unfinished rollout beside pods that work: not ready, because pipelines wait for Ready.
    (
        "bad image beside good pods",
        replace(GOOD, pods=(Pod("p-3", trouble=PodTrouble.IMAGE_PULL_FAILED, detail="no"),)),
        {"Stalled": "T ImagePullFailed", "Ready": "F ImagePullFailed"},
    ),
    (
        "new pods never get ready",
        replace(GOOD, deployment=deployed(2, overdue=True, rolled_out=False)),
        {"Stalled": "T RolloutOverdue", "Ready": "F RolloutOverdue", "Reconciling": "T RollingOut"},
    ),
    (
        "migrates",
        replace(GOOD, apply_error=Migrating(problem="Job a migrates.")),
        {"Reconciling": "T Migrating", "Stalled": "F NotStalled", "Ready": "T ReplicasReady"},
    ),
    (
        "shared",
        replace(GOOD, shared_queue=("a", OTHER)),
        {"ScalingActive": "T QueueShared", "Ready": "T ReplicasReady"},
    ),
    (
        "unserved",
        replace(GOOD, unserved_queues=("a", "b")),
        {"ScalingActive": "T QueueUnserved", "Ready": "T ReplicasReady"},
    ),
    # What keeps the goal from being applied comes before what keeps it from being known.
    (
        "two troubles",
        unsampled(MISSING, apply_error=ObjectNameTaken(kind="Deployment", name="emails")),
        {"Stalled": "T DeploymentNameTaken", "DatabaseReachable": "F SecretMissing"},
    ),
]


def say(turn: Turn) -> dict[str, str]:
    letters = {True: "T", False: "F", None: "U"}
    return {kind: f"{letters[v.status]} {v.reason}" for kind, v in conditions_of(turn, NOW).items()}


@pytest.mark.parametrize(("turn", "said"), [case[1:] for case in TABLE], ids=[case[0] for case in TABLE])
def test_situation(turn: Turn, said: dict[str, str]) -> None:
    assert say(turn) == say(turn) | said


@pytest.mark.parametrize("turn", [case[1] for case in TABLE], ids=[case[0] for case in TABLE])
def test_whatever_happens(turn: Turn) -> None:
    verdicts = conditions_of(turn, NOW)

    assert list(verdicts) == [
        "Ready",
        "Stalled",
        "Reconciling",
        "ScalingActive",
        "DatabaseReachable",
        "Paused",
    ]
    assert not (verdicts[ConditionType.READY].status and verdicts[ConditionType.STALLED].status)
    for verdict in verdicts.values():
        assert verdict.reason.isalpha()
        assert verdict.reason[0].isupper()
        assert verdict.message == verdict.message.strip()
        assert "None" not in verdict.message


@pytest.mark.parametrize(
    ("turn", "condition", "message"),
    [
        (GOOD, "Ready", "2 of 2 replicas are ready."),
        (replace(GOOD, deployment=deployed(5, ready=4)), "Ready", "2 of 2 replicas are ready."),
        (
            replace(GOOD, deployment=deployed(2, there=0)),
            "Ready",
            "0 of 2 replicas are ready. Pods are starting or terminating.",
        ),
        (
            replace(
                GOOD,
                deployment=deployed(2, ready=1),
                pods=(Pod("a", trouble=PodTrouble.CRASH_LOOPING, detail="x"),),
            ),
            "Ready",
            (
                "1 of 2 replicas are ready. "
                "The worker keeps exiting: x. See: kubectl logs -n shop a --previous"
            ),
        ),
        (
            replace(GOOD, deployment=None, apply_error=Migrating(problem="Job a migrates.")),
            "Ready",
            "0 of 2 replicas are ready. Job a migrates.",
        ),
        (unsampled(DOWN), "ScalingActive", f"{DOWN} Replicas are held at 2."),
        (replace(GOOD, paused=True), "ScalingActive", "spec.paused is set. Replicas are held at 2."),
        (
            replace(GOOD, shared_queue=("*", OTHER)),
            "ScalingActive",
            (
                "Every queue is served by DjangoTaskWorker shop/mails too: both scale for the same tasks. "
                "Give each its own spec.queues, or delete one."
            ),
        ),
        (
            replace(GOOD, unserved_queues=("a", "b")),
            "ScalingActive",
            (
                "Tasks wait in queue a, b, which no DjangoTaskWorker serves. "
                "Add it to the spec.queues of one, or create one for it."
            ),
        ),
        (
            with_pod(PodTrouble.CRASH_LOOPING, "exit code 1."),
            "Stalled",
            "The worker keeps exiting: exit code 1. See: kubectl logs -n shop p-1 --previous",
        ),
        (
            with_pod(PodTrouble.UNSCHEDULABLE, "0/3 nodes are available."),
            "Reconciling",
            (
                "No node has room for the pod: 0/3 nodes are available. "
                "Lower spec.resources or spec.scaling.maxReplicas, or add nodes."
            ),
        ),
    ],
)
def test_message(turn: Turn, condition: str, message: str) -> None:
    assert conditions_of(turn, NOW)[ConditionType(condition)].message == message


def test_of_many_pods_the_most_telling_speaks() -> None:
    pods = (
        Pod("c", trouble=PodTrouble.UNSCHEDULABLE, detail="no room"),
        Pod("b", trouble=PodTrouble.CRASH_LOOPING, detail="exit code 1"),
        Pod("d", trouble=PodTrouble.IMAGE_PULL_FAILED, detail="second"),
        Pod("a", trouble=PodTrouble.IMAGE_PULL_FAILED, detail="first"),
    )
    turn = replace(GOOD, pods=pods)
    stalled = conditions_of(turn, NOW)[ConditionType.STALLED]

    assert stalled.reason == "ImagePullFailed"
    assert "first" in stalled.message
    assert conditions_of(replace(turn, pods=pods[::-1]), NOW)[ConditionType.STALLED] == stalled, (
        "whatever their order"
    )


def test_a_pod_may_not_talk_for_ever() -> None:
    message = conditions_of(with_pod(PodTrouble.CRASH_LOOPING, "x" * 5000), NOW)[
        ConditionType.STALLED
    ].message

    assert len(message) < 600


def status_of(turn: Turn, previous: dict[str, Any] | None = None, now: datetime = NOW) -> dict[str, Any]:
    return build_status(turn, conditions_of(turn, now), previous or {}, now)


def test_status() -> None:
    status = status_of(replace(GOOD, last_scale_time="2026-11-22T11:00:00Z"))

    assert [condition["type"] for condition in status.pop("conditions")] == list(conditions_of(GOOD, NOW))
    assert status == {
        "observedGeneration": 3,
        "replicas": 2,
        "readyReplicas": 2,
        "desiredReplicas": 2,
        "selector": "djangotasks.dev/worker=emails",
        "pendingTasks": 12,
        "runningTasks": 3,
        "oldestPendingSeconds": 4,
        "lastScaleTime": "2026-11-22T11:00:00Z",
        "lastSampleTime": "2026-11-22T12:00:00Z",
    }


def test_what_is_not_known_stays_as_it_was() -> None:
    before = status_of(replace(GOOD, last_scale_time="2026-11-22T11:00:00Z"))
    after = status_of(unsampled(DOWN), before)

    for name in ("pendingTasks", "runningTasks", "oldestPendingSeconds", "lastSampleTime", "lastScaleTime"):
        assert after[name] == before[name]


def test_a_first_status_leaves_out_what_is_not_known() -> None:
    assert status_of(Turn(KEY, 1)).keys() == {
        "observedGeneration",
        "replicas",
        "readyReplicas",
        "selector",
        "conditions",
    }


def test_a_condition_keeps_the_time_of_its_last_change() -> None:
    later, latest = NOW + timedelta(minutes=1), NOW + timedelta(minutes=2)
    good = status_of(GOOD)
    still = status_of(replace(GOOD, generation=4, decision=decided(2, Reason.AT_MAXIMUM)), good, later)
    down = status_of(unsampled(DOWN), still, latest)

    def of(status: dict[str, Any], kind: str) -> dict[str, Any]:
        return next(condition for condition in status["conditions"] if condition["type"] == kind)

    assert of(still, "ScalingActive")["lastTransitionTime"] == timestamp(NOW)
    assert of(still, "ScalingActive")["reason"] == "AtMaximum"
    assert of(still, "ScalingActive")["observedGeneration"] == 4
    assert of(down, "ScalingActive")["lastTransitionTime"] == timestamp(latest)
    assert of(down, "Stalled")["lastTransitionTime"] == timestamp(NOW)


def test_nothing_new_is_nothing_new() -> None:
    status = status_of(GOOD)

    assert not differs(status_of(GOOD, status, NOW + timedelta(hours=1)), status)


@pytest.mark.parametrize(
    ("change", "is_different", "is_steady"),
    [
        ({"sampled_at": NOW + timedelta(seconds=9)}, False, True),
        ({"demand": Demand(12, 3, 99)}, False, True),
        ({"demand": Demand(13, 3)}, True, True),
        ({"demand": Demand(12, 4)}, True, True),
        ({"decision": decided(2, message="another number of tasks")}, True, True),
        ({"decision": decided(2, Reason.STABILIZING)}, True, False),
        ({"decision": decided(3)}, True, False),
        ({"deployment": deployed(2, ready=1)}, True, False),
        ({"generation": 4}, True, False),
        ({"paused": True}, True, False),
        ({"database_error": DOWN}, True, False),
        ({"last_scale_time": "2026-11-22T12:00:00Z"}, True, False),
    ],
)
def test_what_is_worth_a_write(change: dict[str, Any], is_different: bool, is_steady: bool) -> None:
    before = status_of(GOOD)
    after = status_of(replace(GOOD, **change), before)

    assert differs(after, before) == is_different
    assert (steady_part(after) == steady_part(before)) == is_steady


def test_the_definition_has_every_field() -> None:
    fields = DEFINITION["status"]["properties"]
    counted = replace(GOOD, last_scale_time="2026-11-22T12:00:00Z", orphaned_tasks=0, stuck_tasks=0)
    status = status_of(replace(counted, runtime="worker:1", pending_runtime="worker:2"))

    assert status.keys() == fields.keys()
    for condition in status["conditions"]:
        assert condition.keys() == fields["conditions"]["items"]["properties"].keys()


def test_the_status_is_part_of_a_worker() -> None:
    manifest = worker_manifest(status=status_of(GOOD))

    assert not differs(status_of(GOOD, manifest["status"]), manifest["status"])


@pytest.mark.parametrize(
    ("now", "then"),
    [("worker:3", "worker:3"), ("", None), (None, "worker:2")],
    ids=["new", "none", "unknown"],
)
def test_a_runtime_that_is_no_longer_pending_is_no_longer_there(now: str | None, then: str | None) -> None:
    before = status_of(replace(GOOD, runtime="worker:1", pending_runtime="worker:2"))
    after = status_of(replace(GOOD, pending_runtime=now), before)

    assert (after["runtime"], after.get("pendingRuntime")) == ("worker:1", then)


@pytest.mark.parametrize(("now", "then"), [(3, 3), (0, 0), (None, 2)])
def test_orphaned_and_stuck_tasks_stay_what_they_were_while_they_are_not_known(now: Any, then: int) -> None:
    before = status_of(replace(GOOD, orphaned_tasks=2, stuck_tasks=2))
    after = status_of(replace(GOOD, orphaned_tasks=now, stuck_tasks=now), before)

    assert (after["orphanedTasks"], after["stuckTasks"]) == (then, then)
