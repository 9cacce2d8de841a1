"""Objects as a cluster shows them, and what the operator makes of them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from django_task_operator.observed.objects import (
    AutoscalerState,
    DeploymentState,
    PodState,
    PodTrouble,
    owner_of,
)
from django_task_operator.observed.pods import PodLife
from django_task_operator.spec import Key

NOW = datetime(2026, 11, 22, 12, 0, 30, tzinfo=UTC)

PODS = yaml.safe_load(Path(__file__).with_name("pods.yaml").read_text())
IMAGE, CONFIG, CRASH, FULL = PodTrouble


@pytest.mark.parametrize(
    ("pod", "trouble"),
    [
        ("waits-for-its-node", None),
        ("starts", None),
        ("runs", None),
        (
            "image-refused",
            (IMAGE, 'registry.example/shop:1.5: failed to resolve reference "shop:1.5": not found'),
        ),
        ("image-backs-off", (IMAGE, "registry.example/shop:1.5: ImagePullBackOff")),
        ("name-of-image-invalid", (IMAGE, 'SHOP: couldn\'t parse image name "SHOP"')),
        ("secret-missing", (CONFIG, 'secret "shop-db" not found')),
        ("command-not-found", (CONFIG, 'exec: "python": executable file not found in $PATH')),
        ("crash-loop", (CRASH, "exit code 1, last words: ModuleNotFoundError: No module named 'shop'")),
        ("silent-crash-loop", (CRASH, "exit code 2")),
        ("recycled-after-max-tasks", None),
        ("recycled-and-running", None),
        ("out-of-memory", (CRASH, "killed for using too much memory")),
        ("restarted-after-a-crash", (CRASH, "killed for using too much memory")),
        ("sidecar-crashes", (CRASH, "container proxy exit code 3, last words: no route")),
        ("init-container-fails", (CRASH, "container wait exit code 1")),
        ("no-room", (FULL, "0/3 nodes are available: 3 Insufficient memory.")),
    ],
)
def test_trouble_of_a_pod(pod: str, trouble: object) -> None:
    state = PodState.of({"metadata": {"name": pod}, "status": PODS[pod]})

    assert state.name == pod
    assert state.trouble_at(NOW) == trouble


def test_a_restarted_container_is_believed_after_a_minute() -> None:
    state = PodState.of({"metadata": {"name": "p"}, "status": PODS["restarted-after-a-crash"]})
    finished = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)

    assert state.trouble_at(finished + timedelta(seconds=59))
    assert state.trouble_at(finished + timedelta(seconds=60)) is None


def test_a_pod_without_a_status_is_new() -> None:
    state = PodState.of({"metadata": {"name": "p"}})
    assert replace(state, life=None) == PodState("p")
    assert state.life == PodLife("p", scheduled=False, phase="Pending", ready=False)


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
    state = DeploymentState.of(deployment(**SETTLED))

    assert (state.name, state.uid, state.generation) == ("emails", "d-1", 4)
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
    assert not DeploymentState.of(deployment(**SETTLED | change)).rolled_out


def test_a_new_deployment_has_no_status() -> None:
    state = DeploymentState.of(deployment())

    assert (state.replicas, state.ready_replicas, state.rolled_out) == (0, 0, False)


def test_a_rollout_that_takes_too_long() -> None:
    def progressing(status: str, reason: str) -> DeploymentState:
        condition = {"type": "Progressing", "status": status, "reason": reason}
        return DeploymentState.of(deployment(conditions=[condition]))

    assert progressing("False", "ProgressDeadlineExceeded").overdue
    assert not progressing("True", "ReplicaSetUpdated").overdue


def test_what_was_migrated_for_its_pods() -> None:
    manifest = deployment()
    assert DeploymentState.of(manifest).migrated is None
    manifest["metadata"]["annotations"] = {"djangotasks.dev/migrated": "abc"}
    assert DeploymentState.of(manifest).migrated == "abc"


def test_pods_that_cannot_be_created() -> None:
    failure = {
        "type": "ReplicaFailure",
        "status": "True",
        "reason": "FailedCreate",
        "message": 'pods "emails-5d4-" is forbidden: exceeded quota: pods',
    }
    progressing = {"type": "Progressing", "status": "True", "message": "is progressing"}

    assert DeploymentState.of(deployment(conditions=[progressing, failure])).failure == failure["message"]
    over = {**failure, "status": "False"}
    assert DeploymentState.of(deployment(conditions=[progressing, over])).failure is None


def test_somebody_elses_deployment() -> None:
    manifest = deployment()
    del manifest["metadata"]["ownerReferences"], manifest["metadata"]["labels"]
    state = DeploymentState.of(manifest)

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
    state = AutoscalerState.of({"metadata": metadata, "status": {"conditions": conditions}})

    assert state == AutoscalerState("d-1", "w-1", counts, trouble)
    assert AutoscalerState.of({"metadata": metadata}) == AutoscalerState("d-1", "w-1", None, None)


def test_the_owner_is_told_by_a_label() -> None:
    assert owner_of(deployment()) == Key(namespace="shop", name="emails")
