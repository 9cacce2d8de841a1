"""Objects as a cluster shows them, and what the operator makes of them."""

from __future__ import annotations

from typing import Any

import pytest

from django_task_operator.observed.objects import Autoscaler, Deployment, owner_of
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


def test_what_was_migrated_for_its_pods() -> None:
    manifest = deployment()
    assert Deployment.of(manifest).migrated is None
    manifest["metadata"]["annotations"] = {"djangotasks.dev/migrated": "abc"}
    assert Deployment.of(manifest).migrated == "abc"


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
