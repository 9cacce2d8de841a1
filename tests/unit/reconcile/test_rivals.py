"""A foreign autoscaler for a worker's Deployment, against a fake API server."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.bench import Bench
from tests.unit.fakes import refusal

from django_task_operator.observed.objects import Rival
from django_task_operator.reconcile.rivals import LOOK_AGAIN_SECONDS
from django_task_operator.tasktable.errors import ConnectionRefused

AUTOSCALERS = "horizontalpodautoscalers"
# How often a HorizontalPodAutoscaler looks, and writes if it wants another number.
PERIOD = 15.0


@pytest.fixture
def bench() -> Bench:
    return Bench()


def autoscaler(
    name: str = "web",
    kind: str = "Deployment",
    target: str = "emails",
    group: str = "apps/v1",
    **metadata: Any,
) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "shop", **metadata},
        "spec": {"scaleTargetRef": {"apiVersion": group, "kind": kind, "name": target}},
    }


def scale(bench: Bench, replicas: int, *, by: str = "kube-controller-manager") -> None:
    """Write what its controller and kubectl write: an entry without a time."""
    bench.kube.edit(
        "deployments",
        "shop",
        "emails",
        {"spec": {"replicas": replicas}},
        by={"manager": by, "subresource": "scale"},
    )


async def test_the_two_do_not_fight(bench: Bench) -> None:
    """For ten minutes, tasks come and go, and the autoscaler always wants seven replicas."""
    reconciler = await bench.running(42, scaling={"scaleDownDelaySeconds": 0})
    bench.kube.create(AUTOSCALERS, autoscaler())
    numbers = []
    for period in range(40):
        if bench.replicas() != 7:
            scale(bench, 7)
        await bench.turn(reconciler)
        bench.clock.advance(PERIOD)
        bench.databases.sample(period * 10 % 80)
        await bench.turn(reconciler)
        numbers.append(bench.replicas())

    assert set(numbers) == {7}
    assert bench.condition("ScalingActive") == "False ScalingConflict"
    (told,) = bench.told()
    assert told == (
        "ScalingConflict: HorizontalPodAutoscaler web scales the Deployment too. While it does, its number"
        " counts (7), and only from zero the operator starts pods. Delete it; or point it at DjangoTaskWorker"
        " emails (djangotasks.dev/v1alpha1) and set spec.scaling.driver to External; or let driver HPA make"
        " one."
    )
    asked = bench.kube.requests.count("list autoscalers")
    assert asked <= 40 * PERIOD / LOOK_AGAIN_SECONDS + 1


async def test_without_one_nothing_is_asked_and_a_scaling_by_hand_is_put_back(bench: Bench) -> None:
    reconciler = await bench.running(42)
    bench.kube.create(AUTOSCALERS, autoscaler(kind="StatefulSet"))
    await bench.turn(reconciler)
    assert "list autoscalers" not in bench.kube.requests

    scale(bench, 9, by="kubectl")
    for _ in range(3):
        await bench.turn(reconciler)
        bench.clock.advance(PERIOD)
    assert bench.replicas() == 5
    assert bench.kube.requests.count("list autoscalers") == 1
    assert bench.condition("ScalingActive") == "True DemandMet"


async def test_when_it_is_gone_the_operator_scales_again(bench: Bench) -> None:
    reconciler = await bench.running(42)
    bench.kube.create(AUTOSCALERS, autoscaler())
    scale(bench, 1)
    await bench.turn(reconciler)
    assert bench.replicas() == 1
    bench.kube.delete(AUTOSCALERS, "shop", "web")

    assert await bench.turn(reconciler) <= LOOK_AGAIN_SECONDS
    bench.clock.advance(LOOK_AGAIN_SECONDS)
    await bench.turn(reconciler)
    assert bench.replicas() == 5
    assert bench.condition("ScalingActive") == "True ScaledUp"


async def test_another_one_that_comes_later_is_noticed(bench: Bench) -> None:
    """It leaves the same entry in managedFields as the one before."""
    reconciler = await bench.running(42)
    for name in ("web", "mails"):
        bench.kube.create(AUTOSCALERS, autoscaler(name))
        scale(bench, 1)
        await bench.turn(reconciler)
        assert bench.replicas() == 1
        assert bench.condition("ScalingActive") == "False ScalingConflict"
        bench.kube.delete(AUTOSCALERS, "shop", name)
        bench.clock.advance(LOOK_AGAIN_SECONDS)
        await bench.turn(reconciler)
        assert bench.replicas() == 5
        await bench.turn(reconciler)


async def test_at_zero_it_sleeps_and_the_operator_starts_the_pods(bench: Bench) -> None:
    reconciler = await bench.running(42, scaling={"scaleDownDelaySeconds": 0})
    bench.kube.create(AUTOSCALERS, autoscaler())
    scale(bench, 0)
    await bench.turn(reconciler)
    assert bench.replicas() == 5
    assert bench.condition("ScalingActive") == "False ScalingConflict"
    scale(bench, 2)
    await bench.turn(reconciler)
    assert bench.replicas() == 2
    # It never scales to zero by itself.
    bench.databases.sample(0)
    await bench.turn(reconciler)
    assert bench.replicas() == 2


@pytest.mark.parametrize("spec", [{"paused": True}, {"scaling": {"driver": "External"}, "replicas": 4}])
async def test_whoever_else_decides_gives_way_too(bench: Bench, spec: dict[str, Any]) -> None:
    reconciler = await bench.running(42)
    bench.kube.edit("worker", "shop", "emails", {"spec": spec})
    await bench.turn(reconciler)
    bench.kube.create(AUTOSCALERS, autoscaler())
    scale(bench, 7)
    await bench.turn(reconciler)
    assert bench.replicas() == 7
    assert bench.condition("ScalingActive") == "False ScalingConflict"


async def test_with_no_database_its_number_counts_too(bench: Bench) -> None:
    reconciler = await bench.running(42)
    bench.kube.create(AUTOSCALERS, autoscaler())
    bench.databases.fail(ConnectionRefused())
    scale(bench, 7)
    await bench.turn(reconciler)
    assert bench.replicas() == 7
    assert bench.condition("ScalingActive") == "False ConnectionRefused"


async def test_an_operator_that_starts_anew_knows_of_it(bench: Bench) -> None:
    reconciler = await bench.running(42)
    bench.kube.create(AUTOSCALERS, autoscaler())
    scale(bench, 7)
    await bench.turn(reconciler)
    bench.restart(bench.clock)
    again = bench.reconciler()
    await bench.turn(again)
    bench.databases.sample(80)
    await bench.turn(again)
    assert bench.replicas() == 7


async def test_while_they_cannot_be_listed_it_is_as_it_was(bench: Bench) -> None:
    reconciler = await bench.running(42)
    bench.kube.create(AUTOSCALERS, autoscaler())
    scale(bench, 7)
    await bench.turn(reconciler)
    bench.clock.advance(LOOK_AGAIN_SECONDS)
    bench.kube.refuse["list autoscalers"] = [refusal(503, "away")]
    await bench.turn(reconciler)
    assert bench.replicas() == 7
    await bench.turn(reconciler)
    assert bench.kube.requests.count("list autoscalers") == 2


KEDA = {"kind": "ScaledObject", "name": "mails", "uid": "1", "controller": True}


@pytest.mark.parametrize(
    ("autoscalers", "words"),
    [
        ([], None),
        ([autoscaler(target="other")], None),
        ([autoscaler(kind="DjangoTaskWorker", group="djangotasks.dev/v1alpha1")], None),
        ([autoscaler(group="example.org/v1")], None),
        ([autoscaler("b"), autoscaler("a")], "HorizontalPodAutoscaler a"),
        (
            [autoscaler("keda-hpa-mails", ownerReferences=[KEDA])],
            "ScaledObject mails (HorizontalPodAutoscaler keda-hpa-mails)",
        ),
    ],
)
def test_which_is_one(autoscalers: list[dict[str, Any]], words: str | None) -> None:
    assert Rival.among(autoscalers, "emails") == (Rival(words) if words else None)
