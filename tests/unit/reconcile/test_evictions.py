"""A VerticalPodAutoscaler for a worker's Deployment, against a fake API server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.unit.bench import Bench
from tests.unit.fakes import refusal

from django_task_operator.observed.pods import Pod
from django_task_operator.reconcile.evictions import EXPECTED_SECONDS, LOOK_AGAIN_SECONDS

if TYPE_CHECKING:
    from django_task_operator.reconcile.reconciler import Reconciler

EVICTION = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
# What its admission controller writes, as pods in the documentation of several distributions have it.
UPDATED = (
    "Pod resources updated by shop-vpa: container 0: cpu request, memory request, cpu limit, memory limit"
)
TOLD = (
    "VerticalPodAutoscaler shop-vpa evicts pods to change their resources, also while they run tasks. Set its"
    " spec.updatePolicy.updateMode to Initial, so that only new pods get its values; or delete it, and set"
    " spec.resources."
)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def pods(bench: Bench) -> list[str]:
    return [name for kind, _, name in bench.kube._objects if kind == "pods"]


def resize(bench: Bench, *names: str) -> None:
    """Do what the VerticalPodAutoscaler's admission controller does to new pods."""
    for name in names:
        bench.kube.edit("pods", "shop", name, {"metadata": {"annotations": {"vpaUpdates": UPDATED}}})


def evict(bench: Bench, name: str) -> None:
    change = {"metadata": {"deletionTimestamp": "2026-01-01T00:00:09Z"}, "status": {"conditions": [EVICTION]}}
    bench.kube.edit("pods", "shop", name, change)


async def post_eviction(bench: Bench, pod: str) -> None:
    """Post what the VerticalPodAutoscaler's updater posts after an eviction."""
    await bench.kube.create_event(
        "shop",
        {
            "metadata": {"namespace": "shop"},
            "reason": "EvictedByVPA",
            "note": "Pod was evicted by VPA Updater to apply resource recommendation.",
            "regarding": {"kind": "Pod", "name": pod, "namespace": "shop"},
        },
    )


async def with_pods(bench: Bench, *, resized: bool = True) -> Reconciler:
    """A worker with five pods, which the operator has looked at for a while."""
    reconciler = await bench.running(42)
    bench.kube.run_pods("shop", "emails", 5)
    if resized:
        resize(bench, *pods(bench))
    await bench.turn(reconciler)
    bench.clock.advance(EXPECTED_SECONDS)
    bench.kube.requests.clear()
    return reconciler


async def test_one_that_evicts_pods_is_named_until_it_no_longer_does(bench: Bench) -> None:
    """The first pod that it evicts has no annotation yet, the one that replaces it has."""
    reconciler = await with_pods(bench, resized=False)
    gone, *others = pods(bench)
    evict(bench, gone)
    await bench.turn(reconciler)
    await post_eviction(bench, gone)
    bench.kube.delete("pods", "shop", gone)
    resize(bench, others[0])
    bench.clock.advance(LOOK_AGAIN_SECONDS)
    bench.databases.sample(60)
    await bench.turn(reconciler)

    assert bench.condition("ScalingActive") == "True ScalingConflict"
    assert f"ScalingConflict: {TOLD}" in bench.told()
    assert bench.replicas() == 6, "it is no conflict about the replicas"

    # Events expire.
    bench.kube.events.clear()
    bench.clock.advance(LOOK_AGAIN_SECONDS)
    await bench.turn(reconciler)
    assert bench.condition("ScalingActive").startswith("True ")
    assert "ScalingConflict" not in bench.condition("ScalingActive")
    bench.clock.advance(EXPECTED_SECONDS)
    bench.kube.requests.clear()
    for _ in range(3):
        await bench.turn(reconciler)
        bench.clock.advance(LOOK_AGAIN_SECONDS)
    assert "list events" not in bench.kube.requests


async def test_one_that_only_resizes_new_pods_is_no_conflict_and_costs_nothing(bench: Bench) -> None:
    reconciler = await with_pods(bench)
    for _ in range(10):
        await bench.turn(reconciler)
        bench.clock.advance(LOOK_AGAIN_SECONDS)
    assert bench.condition("ScalingActive") == "True DemandMet"
    assert "list events" not in bench.kube.requests


async def test_a_drain_is_nobodys_fault(bench: Bench) -> None:
    reconciler = await with_pods(bench)
    for name in pods(bench):
        evict(bench, name)
        await bench.turn(reconciler)
        bench.clock.advance(1.0)
    await post_eviction(bench, "emails-big-5d9f-podax")
    bench.clock.advance(LOOK_AGAIN_SECONDS)
    await bench.turn(reconciler)
    assert "ScalingConflict" not in bench.condition("ScalingActive")
    assert bench.kube.requests.count("list events") == 2, "and not one for each pod"


async def test_without_one_no_event_is_listed(bench: Bench) -> None:
    reconciler = await with_pods(bench, resized=False)
    evict(bench, pods(bench)[0])
    await bench.turn(reconciler)
    assert "list events" not in bench.kube.requests


async def test_an_operator_that_starts_anew_finds_it(bench: Bench) -> None:
    await with_pods(bench)
    await post_eviction(bench, pods(bench)[0])
    bench.restart(bench.clock)
    reconciler = bench.reconciler()
    await bench.turn(reconciler)
    bench.databases.sample(42)
    await bench.turn(reconciler)
    assert bench.condition("ScalingActive") == "True ScalingConflict"


@pytest.mark.parametrize("answer", [refusal(403), refusal(500), TimeoutError()])
async def test_what_cannot_be_found_out_is_as_it_was(bench: Bench, answer: BaseException) -> None:
    reconciler = await with_pods(bench)
    evict(bench, pods(bench)[0])
    bench.kube.refuse["list events"] = [answer]
    await bench.turn(reconciler)
    assert "ScalingConflict" not in bench.condition("ScalingActive")
    await post_eviction(bench, pods(bench)[0])
    for _ in range(2):
        bench.clock.advance(LOOK_AGAIN_SECONDS)
        await bench.turn(reconciler)
        assert bench.condition("ScalingActive") == "True ScalingConflict"
        bench.kube.refuse["list events"] = [answer]


@pytest.mark.parametrize(
    ("annotation", "name"),
    [
        (UPDATED, "shop-vpa"),
        ("Pod resources updated by shop.vpa-2: container 0: ", "shop.vpa-2"),
        ("Pod resources updated by <b>x</b>: container 0: ", ""),
        ("Pod resources updated by shop vpa: ", ""),
        ("", ""),
    ],
)
def test_its_name_is_read_from_the_pod(annotation: str, name: str) -> None:
    manifest: dict[str, Any] = {"metadata": {"name": "a", "annotations": {"vpaUpdates": annotation}}}
    assert Pod.of(manifest).resized_by == name
