"""Pods and ReplicaSets as a cluster shows them, and what is read of them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from django_task_operator.observed.pods import PodLife, ReplicaSetState

PODS = yaml.safe_load(Path(__file__).with_name("pods.yaml").read_text())


def life(status: dict[str, Any], *, node: str = "node-1", **metadata: Any) -> PodLife:
    return PodLife.of(
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
    found = life(PODS[pod])

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
    found = life({"phase": "Running", "containerStatuses": [{"name": "proxy"}, container]})

    assert (found.restarts, found.running_since, found.ended_at) == (
        2,
        datetime(2026, 11, 22, 12, 0, 5, tzinfo=UTC),
        datetime(2026, 11, 22, 12, 0, 3, tzinfo=UTC),
    )


READY = {"conditions": [{"type": "Ready", "status": "True"}]}


def test_ranks_are_in_the_order_in_which_kubernetes_takes_pods() -> None:
    order = [
        life({"phase": "Pending"}, node=""),
        life({"phase": "Pending"}),
        life({"phase": "Unknown"}),
        life({"phase": "Unknown", **READY}),
        life({"phase": "Running"}),
        life({"phase": "Running", **READY}),
    ]
    ranks = [pod.rank for pod in order]

    assert ranks == sorted(set(ranks))


@pytest.mark.parametrize(
    ("annotations", "cost"),
    [(None, 0), ({}, 0), ({"controller.kubernetes.io/pod-deletion-cost": "-7"}, -7), ({"a": "1"}, 0)],
)
def test_its_deletion_cost(annotations: Any, cost: int) -> None:
    assert life({"phase": "Running"}, annotations=annotations).cost == cost


def test_who_is_a_replica() -> None:
    assert life({"phase": "Running"}).is_replica
    assert not life({"phase": "Running"}, deletionTimestamp="2026-11-22T12:00:00Z").is_replica
    assert not life({"phase": "Failed"}).is_replica


def test_only_a_controller_owns() -> None:
    owners = [{"kind": "App", "name": "a"}, {"kind": "ReplicaSet", "name": "emails-5d9f", "controller": True}]
    assert life({}, ownerReferences=owners).replica_set == "emails-5d9f"
    assert life({}, ownerReferences=owners[:1]).replica_set == ""
    assert life({}, ownerReferences=[{"kind": "Job", "name": "j", "controller": True}]).replica_set == ""


def test_a_replica_set_says_whose_template_it_has() -> None:
    manifest = {
        "metadata": {"name": "emails-5d9f", "ownerReferences": [{"uid": "d", "controller": True}]},
        "spec": {"template": {"metadata": {"annotations": {"djangotasks.dev/worker-uid": "w"}}}},
    }
    assert ReplicaSetState.of(manifest) == ReplicaSetState("emails-5d9f", "d", "w")
    assert ReplicaSetState.of({"metadata": {"name": "a"}, "spec": {}}) == ReplicaSetState("a", None, None)
