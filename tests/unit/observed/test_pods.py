"""Pods and ReplicaSets as they are in a cluster, and what the operator reads from them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from django_task_operator.observed.objects import ReplicaSet
from django_task_operator.observed.pods import Pod, PodTrouble

PODS = yaml.safe_load(Path(__file__).with_name("pods.yaml").read_text())
NOW = datetime(2026, 11, 22, 12, 0, 30, tzinfo=UTC)
IMAGE, CONFIG, CRASH, FULL = PodTrouble


@pytest.mark.parametrize(
    ("pod", "trouble"),
    [
        ("waits-for-its-node", None),
        ("starts", None),
        ("runs", None),
        (
            "image-refused",
            (
                IMAGE,
                'registry.example/shop:1.5 (spec.image): failed to resolve reference "shop:1.5": not found',
            ),
        ),
        ("image-backs-off", (IMAGE, "registry.example/shop:1.5 (spec.image): ImagePullBackOff")),
        (
            "image-of-the-runtime-refused",
            (IMAGE, "ours/worker:0.1 (workerImage in the operator's chart): not found"),
        ),
        (
            "image-of-a-sidecar-refused",
            (IMAGE, "proxy:2 (container sql-proxy of spec.podTemplate): not found"),
        ),
        ("name-of-image-invalid", (IMAGE, 'SHOP (spec.image): couldn\'t parse image name "SHOP"')),
        ("secret-missing", (CONFIG, 'secret "shop-db" not found')),
        ("command-not-found", (CONFIG, 'exec: "python": executable file not found in $PATH')),
        ("crash-loop", (CRASH, "exit code 1, last log line: ModuleNotFoundError: No module named 'shop'")),
        ("silent-crash-loop", (CRASH, "exit code 2")),
        ("recycled-after-max-tasks", None),
        ("recycled-and-running", None),
        ("out-of-memory", (CRASH, "killed for using too much memory")),
        ("restarted-after-a-crash", (CRASH, "killed for using too much memory")),
        ("sidecar-crashes", (CRASH, "container proxy exit code 3, last log line: no route")),
        ("init-container-fails", (CRASH, "container wait exit code 1")),
        ("no-room", (FULL, "0/3 nodes are available: 3 Insufficient memory.")),
    ],
)
def test_trouble_of_a_pod(pod: str, trouble: object) -> None:
    state = Pod.of({"metadata": {"name": pod}, "status": PODS[pod]})

    assert state.name == pod
    assert state.trouble_at(NOW) == trouble


def test_a_restarted_container_is_believed_after_a_minute() -> None:
    state = Pod.of({"metadata": {"name": "p"}, "status": PODS["restarted-after-a-crash"]})
    finished = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)

    assert state.trouble_at(finished + timedelta(seconds=59))
    assert state.trouble_at(finished + timedelta(seconds=60)) is None


def test_a_pod_without_a_status_is_new() -> None:
    state = Pod.of({"metadata": {"name": "p"}})
    assert state == Pod("p", scheduled=False, phase="Pending", ready=False)


def seen(status: dict[str, Any], *, node: str = "node-1", **metadata: Any) -> Pod:
    return Pod.of(
        {"metadata": {"name": "p", "uid": "u", **metadata}, "spec": {"nodeName": node}, "status": status}
    )


@pytest.mark.parametrize(
    ("pod", "restarts", "running", "ended"),
    [
        ("runs", 0, True, False),
        ("starts", 0, False, False),
        ("image-refused", 0, False, False),
        ("crash-loop", 3, False, True),
        ("restarted-after-a-crash", 1, True, True),
    ],
)
def test_the_container_that_runs_tasks(pod: str, restarts: int, running: bool, ended: bool) -> None:
    found = seen(PODS[pod])

    assert (found.running_since is not None) == running
    assert (found.ended_at is not None) == ended
    assert not found.has_ended


def test_times_of_a_restart() -> None:
    container = {
        "name": "worker",
        "restartCount": 2,
        "state": {"running": {"startedAt": "2026-11-22T12:00:05Z"}},
        "lastState": {"terminated": {"finishedAt": "2026-11-22T12:00:03Z", "exitCode": 0}},
    }
    found = seen({"phase": "Running", "containerStatuses": [{"name": "proxy"}, container]})

    assert (found.restarts, found.running_since, found.ended_at) == (
        2,
        datetime(2026, 11, 22, 12, 0, 5, tzinfo=UTC),
        datetime(2026, 11, 22, 12, 0, 3, tzinfo=UTC),
    )


READY = {"conditions": [{"type": "Ready", "status": "True"}]}


def test_ranks_are_in_the_order_in_which_kubernetes_takes_pods() -> None:
    order = [
        seen({"phase": "Pending"}, node=""),
        seen({"phase": "Pending"}),
        seen({"phase": "Unknown"}),
        seen({"phase": "Unknown", **READY}),
        seen({"phase": "Running"}),
        seen({"phase": "Running", **READY}),
    ]
    ranks = [pod.rank for pod in order]

    assert ranks == sorted(set(ranks))


@pytest.mark.parametrize(
    ("annotations", "cost"),
    [(None, 0), ({}, 0), ({"controller.kubernetes.io/pod-deletion-cost": "-7"}, -7), ({"a": "1"}, 0)],
)
def test_its_deletion_cost(annotations: Any, cost: int) -> None:
    assert seen({"phase": "Running"}, annotations=annotations).cost == cost


def test_who_is_a_replica() -> None:
    assert seen({"phase": "Running"}).is_replica
    assert not seen({"phase": "Running"}, deletionTimestamp="2026-11-22T12:00:00Z").is_replica
    assert not seen({"phase": "Failed"}).is_replica


def test_only_a_controller_owns() -> None:
    owners = [{"kind": "App", "name": "a"}, {"kind": "ReplicaSet", "name": "emails-5d9f", "controller": True}]
    assert seen({}, ownerReferences=owners).replica_set == "emails-5d9f"
    assert seen({}, ownerReferences=owners[:1]).replica_set == ""
    assert seen({}, ownerReferences=[{"kind": "Job", "name": "j", "controller": True}]).replica_set == ""


def test_a_replica_set_says_whose_template_it_has() -> None:
    manifest = {
        "metadata": {"name": "emails-5d9f", "ownerReferences": [{"uid": "d", "controller": True}]},
        "spec": {"template": {"metadata": {"annotations": {"djangotasks.dev/worker-uid": "w"}}}},
    }
    full, bare = ReplicaSet.of(manifest), ReplicaSet.of({"metadata": {"name": "a"}, "spec": {}})
    assert (full.name, full.controller_uid, full.worker_uid) == ("emails-5d9f", "d", "w")
    assert (bare.name, bare.controller_uid, bare.worker_uid) == ("a", None, None)
