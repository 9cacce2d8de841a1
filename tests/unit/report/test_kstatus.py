"""How kstatus reads the statuses that the operator writes: what Flux and `kubectl` plugins wait for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.unit.bench import Bench

from django_task_operator.tasktable.errors import ConnectionRefused

if TYPE_CHECKING:
    from collections.abc import Callable


def kstatus(manifest: dict[str, Any]) -> str:
    """Do what kstatus does for a kind that it does not know (kubernetes-sigs/cli-utils, pkg/kstatus)."""
    status = manifest.get("status", {})
    generation = manifest["metadata"]["generation"]
    if status.get("observedGeneration", generation) != generation:
        return "InProgress"
    # In the order of the list, the first one that is True counts.
    for condition in status.get("conditions", ()):
        if (condition["type"], condition["status"]) == ("Reconciling", "True"):
            return "InProgress"
        if (condition["type"], condition["status"]) == ("Stalled", "True"):
            return "Failed"
    ready = [each["status"] for each in status.get("conditions", ()) if each["type"] == "Ready"]
    return "Current" if ready in ([], ["True"]) else "InProgress"


def of(bench: Bench) -> str:
    manifest = bench.kube.read("worker", "shop", "emails")
    assert manifest
    return kstatus(manifest)


async def test_it_is_in_progress_until_it_is_settled() -> None:
    bench = Bench()
    bench.worker()
    reconciler = bench.reconciler()
    await bench.turn(reconciler)
    assert of(bench) == "InProgress", "before the first sample"
    bench.databases.sample(42)
    await bench.turn(reconciler)
    assert of(bench) == "InProgress", "before its pods are ready"
    bench.kube.run_deployment("shop", "emails")
    await bench.turn(reconciler)
    assert of(bench) == "Current"
    bench.kube.edit("worker", "shop", "emails", {"spec": {"image": "shop:2"}})
    assert of(bench) == "InProgress", "before the operator has seen the change"


def break_spec(bench: Bench) -> None:
    wrong = {"podTemplate": {"spec": {"containers": [{"name": "worker", "unknownField": 1}]}}}
    bench.kube.edit("worker", "shop", "emails", {"spec": wrong})


def refuse_pods(bench: Bench) -> None:
    condition = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"}
    bench.kube.edit("deployments", "shop", "emails", {"status": {"replicas": 0, "conditions": [condition]}})


def lose_secret(bench: Bench) -> None:
    bench.kube.delete("secrets", "shop", "shop-db")
    bench.clock.advance(60)


def lose_database(bench: Bench) -> None:
    bench.databases.fail(ConnectionRefused())


@pytest.mark.parametrize(
    ("happens", "status"),
    [
        (break_spec, "Failed"),
        # Pods are missing as well, so it is also Reconciling.
        (refuse_pods, "Failed"),
        (lose_secret, "Failed"),
        (lose_database, "InProgress"),
    ],
)
async def test_only_what_somebody_has_to_change_has_failed(
    happens: Callable[[Bench], None], status: str
) -> None:
    bench = Bench()
    reconciler = await bench.running(42)
    happens(bench)
    await bench.turn(reconciler)
    assert of(bench) == status
