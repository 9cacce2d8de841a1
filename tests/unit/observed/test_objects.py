"""Objects as they are in a cluster, and what the operator reads from them."""

from __future__ import annotations

from typing import Any

import pytest

from django_task_operator.observed.objects import (
    Autoscaler,
    Deployment,
    Edit,
    ReplicaSet,
    outdated,
    owner_of,
)
from django_task_operator.spec import Key


def deployment(**status: object) -> dict[str, Any]:
    return {
        "metadata": {
            "name": "emails",
            "namespace": "shop",
            "uid": "d-1",
            "generation": 4,
            "labels": {"djangotasks.dev/worker": "emails"},
            "ownerReferences": [
                {"kind": "Other", "uid": "o-1"},
                {"kind": "DjangoTaskWorker", "uid": "w-1", "controller": True},
            ],
        },
        "spec": {"replicas": 3},
        "status": status,
    }


SETTLED = {"observedGeneration": 4, "replicas": 3, "updatedReplicas": 3, "readyReplicas": 2}


def test_deployment() -> None:
    state = Deployment.of(deployment(**SETTLED))

    assert (state.name, state.uid, state.revision) == ("emails", "d-1", "4")
    assert (state.wanted_replicas, state.replicas, state.ready_replicas) == (3, 3, 2)
    assert state.labels == {("djangotasks.dev/worker", "emails")}
    assert state.rolled_out
    assert state.failure is None
    assert state.belongs_to("w-1")
    assert not state.belongs_to("w-2")
    assert not state.belongs_to("o-1"), "an owner that does not control"
    assert state.is_left_over


@pytest.mark.parametrize(
    "change",
    [
        {"observedGeneration": 3},
        {"updatedReplicas": 2},
        {"replicas": 4},
    ],
)
def test_rolling_out(change: dict[str, int]) -> None:
    assert not Deployment.of(deployment(**SETTLED | change)).rolled_out


def test_a_new_deployment_has_no_status() -> None:
    state = Deployment.of(deployment())

    assert (state.replicas, state.ready_replicas, state.rolled_out) == (0, 0, False)


def test_a_rollout_that_takes_too_long() -> None:
    def progressing(status: str, reason: str) -> Deployment:
        condition = {"type": "Progressing", "status": status, "reason": reason}
        return Deployment.of(deployment(conditions=[condition]))

    assert progressing("False", "ProgressDeadlineExceeded").overdue
    assert not progressing("True", "ReplicaSetUpdated").overdue


def replica_set(name: str, template: dict[str, Any], deployment: str = "d-1") -> ReplicaSet:
    owner = {"kind": "Deployment", "name": "emails", "uid": deployment, "controller": True}
    return ReplicaSet.of(
        {"metadata": {"name": name, "ownerReferences": [owner]}, "spec": {"template": template}}
    )


def test_which_replica_sets_are_being_replaced() -> None:
    manifest = deployment()
    manifest["spec"]["template"] = {
        "metadata": {"labels": {"app": "emails"}},
        "spec": {"containers": [{"name": "worker", "image": "shop:2"}]},
    }

    def of(image: str, name: str, **labels: str) -> dict[str, Any]:
        return {
            "metadata": {"labels": {"app": "emails", "pod-template-hash": name, **labels}},
            "spec": {"containers": [{"image": image, "name": "worker"}]},
        }

    replica_sets = [
        replica_set("emails-now", of("shop:2", "now")),
        replica_set("emails-image", of("shop:1", "image")),
        replica_set("emails-label", of("shop:2", "label", team="a")),
        replica_set("emails-other", of("shop:1", "other"), deployment="d-2"),
    ]

    assert outdated(Deployment.of(manifest), replica_sets) == {"emails-image", "emails-label"}
    assert outdated(None, replica_sets) == frozenset()


def test_what_was_migrated_for_its_pods() -> None:
    manifest = deployment()
    assert Deployment.of(manifest).migrated is None
    manifest["metadata"]["annotations"] = {"djangotasks.dev/migrated": "abc"}
    assert Deployment.of(manifest).migrated == "abc"


OURS = {"manager": "django-task-operator", "operation": "Apply", "time": "2026-11-27T22:57:15Z"}
THEIRS = {"operation": "Update", "time": "2026-11-27T22:57:17Z"}
REPLICAS: dict[str, Any] = {"f:spec": {"f:replicas": {}}}
TEMPLATE: dict[str, Any] = {"f:spec": {"f:template": {}}}
CONTROLLER = {
    **THEIRS,
    "manager": "kube-controller-manager",
    "subresource": "status",
    "fieldsV1": {"f:metadata": {"f:annotations": {}}, "f:status": {"f:replicas": {}}},
}


SCALED = {"operation": "Update", "manager": "kubectl", "subresource": "scale", "fieldsV1": REPLICAS}


@pytest.mark.parametrize(
    ("replicas", "managed", "edit", "is_scaled"),
    [
        (1, [], None, False),
        (
            1,
            [{**OURS, "fieldsV1": {"f:spec": REPLICAS["f:spec"] | TEMPLATE["f:spec"]}}, CONTROLLER],
            None,
            False,
        ),
        # As Kubernetes 1.34 shows them after `kubectl scale`, to two and to zero, and `kubectl set image`.
        (
            2,
            [
                {**OURS, "fieldsV1": TEMPLATE},
                CONTROLLER,
                SCALED,
            ],
            Edit("kubectl", "", scaled=True),
            True,
        ),
        # Whatever was added before, with a time.
        (
            2,
            [
                {**OURS, "fieldsV1": TEMPLATE},
                {**THEIRS, "manager": "kubectl-rollout", "fieldsV1": TEMPLATE},
                SCALED,
            ],
            Edit("kubectl", "", scaled=True),
            True,
        ),
        (0, [{**OURS, "fieldsV1": TEMPLATE}, CONTROLLER], Edit("", "", scaled=True), True),
        (
            1,
            [
                {**OURS, "fieldsV1": REPLICAS},
                {**THEIRS, "manager": "kubectl-set", "fieldsV1": TEMPLATE},
                CONTROLLER,
            ],
            Edit("kubectl-set", "2026-11-27T22:57:17Z"),
            False,
        ),
        # At zero by the operator itself: as it applies it, and as it scales what it may not apply.
        (0, [{**OURS, "fieldsV1": REPLICAS}], None, False),
        (
            0,
            [
                {**OURS, "fieldsV1": TEMPLATE},
                {**THEIRS, "manager": "django-task-operator", "fieldsV1": REPLICAS},
            ],
            None,
            False,
        ),
        # The last one counts.
        (
            1,
            [
                {**OURS, "fieldsV1": REPLICAS},
                {**THEIRS, "manager": "kubectl-edit", "time": "2026-11-27T22:59:00Z", "fieldsV1": TEMPLATE},
                {**THEIRS, "manager": "kubectl-rollout", "fieldsV1": TEMPLATE},
            ],
            Edit("kubectl-edit", "2026-11-27T22:59:00Z"),
            False,
        ),
        (
            1,
            [{**OURS, "manager": "argocd-controller", "fieldsV1": TEMPLATE}],
            Edit("argocd-controller", "2026-11-27T22:57:15Z", updated=False),
            False,
        ),
    ],
)
def test_who_else_has_changed_a_deployment(
    replicas: int, managed: list[dict[str, Any]], edit: Edit | None, is_scaled: bool
) -> None:
    manifest = {
        "metadata": {"name": "emails", "uid": "d-1", "generation": 1, "managedFields": managed},
        "spec": {"replicas": replicas},
    }
    deployment = Deployment.of(manifest)
    assert deployment.edit == edit
    assert deployment.scaled == (edit if is_scaled else None)


def test_a_scaling_that_the_operator_has_taken_over_is_known_and_is_no_edit_to_undo() -> None:
    both = {"f:spec": REPLICAS["f:spec"] | TEMPLATE["f:spec"]}
    restarted = {**THEIRS, "manager": "kubectl-rollout", "fieldsV1": TEMPLATE}
    manifest = {
        "metadata": {
            "name": "emails",
            "uid": "d-1",
            "generation": 1,
            "managedFields": [{**OURS, "fieldsV1": both}, SCALED, restarted],
        },
        "spec": {"replicas": 2},
    }
    deployment = Deployment.of(manifest)
    assert deployment.scaled == Edit("kubectl", "", scaled=True)
    assert deployment.edit == Edit("kubectl-rollout", "2026-11-27T22:57:17Z")


def test_pods_that_cannot_be_created() -> None:
    failure = {
        "type": "ReplicaFailure",
        "status": "True",
        "reason": "FailedCreate",
        "message": 'pods "emails-5d4-" is forbidden: exceeded quota: pods',
    }
    progressing = {"type": "Progressing", "status": "True", "message": "is progressing"}

    assert Deployment.of(deployment(conditions=[progressing, failure])).failure == failure["message"]
    over = {**failure, "status": "False"}
    assert Deployment.of(deployment(conditions=[progressing, over])).failure is None


def test_somebody_elses_deployment() -> None:
    manifest = deployment()
    del manifest["metadata"]["ownerReferences"], manifest["metadata"]["labels"]
    state = Deployment.of(manifest)

    assert (state.controller_uid, state.is_left_over, state.labels) == (None, False, frozenset())


ABLE = {"type": "AbleToScale", "status": "True", "reason": "ReadyForNewScale", "message": "m"}
UNABLE = {"type": "AbleToScale", "status": "False", "reason": "FailedUpdateScale", "message": "no right"}
ACTIVE = {"type": "ScalingActive", "status": "True", "reason": "ValidMetricFound", "message": "m"}
BLIND = {"type": "ScalingActive", "status": "False", "reason": "FailedGetExternalMetric", "message": "none"}
ASLEEP = {"type": "ScalingActive", "status": "False", "reason": "ScalingDisabled", "message": "zero"}


@pytest.mark.parametrize(
    ("conditions", "counts", "trouble"),
    [
        (None, None, None),
        ([ABLE], None, None),
        ([ABLE, ACTIVE], True, None),
        ([ABLE, ASLEEP], None, None),
        ([ABLE, BLIND], False, ("FailedGetExternalMetric", "none")),
        ([UNABLE, ACTIVE], True, ("FailedUpdateScale", "no right")),
        ([UNABLE, BLIND], False, ("FailedUpdateScale", "no right")),
    ],
)
def test_autoscaler(
    conditions: list[dict[str, str]] | None, counts: bool | None, trouble: tuple[str, str] | None
) -> None:
    metadata = deployment()["metadata"]
    state = Autoscaler.of({"metadata": metadata, "status": {"conditions": conditions}})

    assert (state.uid, state.controller_uid, state.counts, state.trouble) == ("d-1", "w-1", counts, trouble)
    new = Autoscaler.of({"metadata": metadata})
    assert (new.uid, new.controller_uid, new.counts, new.trouble) == ("d-1", "w-1", None, None)


def test_the_owner_is_told_by_a_label() -> None:
    assert owner_of(deployment()) == Key(namespace="shop", name="emails")
