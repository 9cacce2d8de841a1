"""Turns of a worker whose replicas others decide, against a fake API server."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from tests.unit.bench import Bench
from tests.unit.fakes import refusal

from django_task_operator.errors import WorkerGone
from django_task_operator.metrics_api.availability import Availability, State
from django_task_operator.reconcile.reconciler import LONGEST_WAIT_SECONDS
from django_task_operator.tasktable.errors import ConnectionRefused

if TYPE_CHECKING:
    from django_task_operator.reconcile.reconciler import Reconciler

EXTERNAL = {"driver": "External"}
HPA = {"driver": "HPA"}
AUTOSCALERS = "horizontalpodautoscalers"


class Metrics:
    availability = Availability(State.SERVING)


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.world = replace(bench.world, metrics_api=Metrics())
    return bench


def asked(bench: Bench, name: str = "emails") -> int | None:
    manifest = bench.kube.read("worker", "shop", name)
    assert manifest
    replicas: int | None = manifest["spec"].get("replicas")
    return replicas


def scale(bench: Bench, replicas: int) -> None:
    """Do what `kubectl scale` and the HorizontalPodAutoscaler do."""
    bench.kube.edit("worker", "shop", "emails", {"spec": {"replicas": replicas}})


def drive(bench: Bench, driver: str) -> None:
    bench.kube.edit("worker", "shop", "emails", {"spec": {"scaling": {"driver": driver}}})


def autoscaler(bench: Bench) -> dict[str, Any] | None:
    return bench.kube.read(AUTOSCALERS, "shop", "emails")


def says(bench: Bench, *conditions: tuple[str, str, str]) -> None:
    """Write what the HorizontalPodAutoscaler's controller writes."""
    written = [{"type": t, "status": s, "reason": r, "message": f"about {r}."} for t, s, r in conditions]
    bench.kube.edit(AUTOSCALERS, "shop", "emails", {"status": {"conditions": written}})


async def awake(bench: Bench, ready: int = 42) -> Reconciler:
    """A worker of driver HPA that runs, and whose autoscaler has its metric."""
    reconciler = await bench.running(ready, scaling=HPA)
    says(bench, ("AbleToScale", "True", "ReadyForNewScale"), ("ScalingActive", "True", "ValidMetricFound"))
    await bench.turn(reconciler)
    bench.kube.requests.clear()
    return reconciler


# External


async def test_external_needs_no_sample_and_begins_with_one(bench: Bench) -> None:
    bench.worker(scaling=EXTERNAL)
    await bench.turn(bench.reconciler())

    assert (bench.replicas(), asked(bench)) == (1, 1)
    assert bench.condition("ScalingActive") == "True ReplicasAsked"


async def test_external_is_followed_up_and_down_at_once(bench: Bench) -> None:
    reconciler = await bench.running(42, replicas=3, scaling=EXTERNAL)
    assert bench.replicas() == 3
    for replicas in (15, 2, 0, 1):
        scale(bench, replicas)
        await bench.turn(reconciler)
        assert (bench.replicas(), asked(bench)) == (replicas, replicas)

    assert "write replicas" not in bench.kube.requests
    assert bench.told() == [
        "ScaledUp: spec.replicas asks for 15: 3 -> 15",
        "ScaledDown: spec.replicas asks for 2: 15 -> 2",
        "ScaledDown: spec.replicas asks for 0: 2 -> 0",
        "ScaledUp: spec.replicas asks for 1: 0 -> 1",
    ]


async def test_external_scales_while_the_database_is_away(bench: Bench) -> None:
    reconciler = await bench.running(42, replicas=3, scaling=EXTERNAL)
    bench.databases.fail(ConnectionRefused())
    scale(bench, 5)
    await bench.turn(reconciler)

    assert bench.replicas() == 5
    assert bench.condition("ScalingActive") == "True ReplicasAsked"
    assert bench.condition("DatabaseReachable") == "False ConnectionRefused"
    assert bench.condition("Ready") == "False ConnectionRefused"


async def test_external_at_zero_says_why_tasks_wait(bench: Bench) -> None:
    reconciler = await bench.running(42, replicas=0, scaling=EXTERNAL)
    assert bench.condition("Ready") == "False NoReplicasAsked"

    scale(bench, 2)
    await bench.turn(reconciler)
    assert bench.replicas() == 2


@pytest.mark.parametrize("scaling", [EXTERNAL, HPA])
async def test_paused_holds_whoever_asks(bench: Bench, scaling: dict[str, str]) -> None:
    reconciler = await bench.running(42, replicas=3, scaling=scaling)
    bench.kube.edit("worker", "shop", "emails", {"spec": {"paused": True}})
    scale(bench, 7)
    bench.databases.sample(0)
    for _ in range(3):
        await bench.turn(reconciler)
        bench.clock.advance(100)

    assert (bench.replicas(), asked(bench)) == (3, 7)
    assert bench.condition("ScalingActive") == "False Paused"
    bench.databases.sample(42)
    bench.kube.edit("worker", "shop", "emails", {"spec": {"paused": False}})
    await bench.turn(reconciler)
    assert bench.replicas() == 7


# HPA


async def test_hpa_wakes_with_all_that_are_needed_in_one_write(bench: Bench) -> None:
    bench.worker(scaling=HPA)
    reconciler = bench.reconciler()
    await bench.turn(reconciler)
    bench.databases.sample(0)
    await bench.turn(reconciler)
    assert (bench.replicas(), asked(bench)) == (0, 0)
    assert autoscaler(bench)
    bench.kube.requests.clear()

    bench.databases.sample(200)
    await bench.turn(reconciler)
    assert (bench.replicas(), asked(bench)) == (10, 10)
    assert bench.kube.requests.count("write replicas") == 1
    assert bench.kube.requests.count("apply deployment") == 1
    note = "ScaledUp: 100 or more ready and 0 running, 10 per replica: 0 -> 10"
    assert bench.told() == [note, note]
    about = [event["regarding"]["kind"] for event in bench.kube.events]
    assert about == ["DjangoTaskWorker", "HorizontalPodAutoscaler"]


async def test_hpa_wakes_once_while_the_watch_lags(bench: Bench) -> None:
    """More tasks arrive before the watch reports our own write: now the autoscaler decides."""
    bench.worker(scaling=HPA)
    reconciler = bench.reconciler()
    await bench.turn(reconciler)
    bench.databases.sample(0)
    await bench.turn(reconciler)
    stale = bench.kube.read("worker", "shop", "emails")
    assert stale
    bench.databases.sample(20)
    await reconciler.turn(stale)
    bench.databases.sample(80)
    await reconciler.turn(stale)

    assert (bench.replicas(), asked(bench)) == (2, 2)
    assert bench.kube.requests.count("write replicas") == 2, "one for the 0 of the beginning"


async def test_hpa_above_zero_its_number_is_law(bench: Bench) -> None:
    reconciler = await awake(bench)
    for replicas in (8, 3, 10, 1):
        scale(bench, replicas)
        await bench.turn(reconciler)
        assert (bench.replicas(), asked(bench)) == (replicas, replicas)

    assert "write replicas" not in bench.kube.requests
    assert bench.condition("ScalingActive") == "True ReplicasAsked"
    # The autoscaler itself reports its own steps.
    assert {event["regarding"]["kind"] for event in bench.kube.events} == {"DjangoTaskWorker"}


async def test_hpa_returns_to_zero_after_the_delay(bench: Bench) -> None:
    reconciler = await awake(bench)
    bench.databases.sample(0)
    assert await bench.turn(reconciler) <= 60.01
    scale(bench, 1)
    bench.clock.advance(59)
    await bench.turn(reconciler)
    assert (bench.replicas(), asked(bench)) == (1, 1)
    bench.clock.advance(1.1)
    await bench.turn(reconciler)

    assert (bench.replicas(), asked(bench)) == (0, 0)
    assert bench.kube.requests.count("write replicas") == 1
    assert bench.told()[-1] == "ScaledDown: no tasks: 1 -> 0"
    says(bench, ("AbleToScale", "True", "SucceededGetScale"), ("ScalingActive", "False", "ScalingDisabled"))
    await bench.turn(reconciler)
    assert bench.condition("ScalingActive") == "True DemandMet"
    bench.kube.requests.clear()
    assert await bench.turn(reconciler) == LONGEST_WAIT_SECONDS
    assert bench.kube.requests == []


async def test_hpa_settled_turns_make_no_request(bench: Bench) -> None:
    reconciler = await awake(bench)
    for _ in range(20):
        bench.databases.sample(42)
        await bench.turn(reconciler)
        bench.clock.advance(1)

    assert bench.kube.requests == []


async def test_hpa_a_number_that_it_has_just_written_is_not_overwritten(bench: Bench) -> None:
    reconciler = await awake(bench)
    bench.databases.sample(0)
    await bench.turn(reconciler)
    bench.clock.advance(61)
    stale = bench.kube.read("worker", "shop", "emails")
    assert stale
    scale(bench, 7)

    assert (await reconciler.turn(stale)).seconds == 0, "another turn at once"
    assert (bench.replicas(), asked(bench)) == (5, 7), "neither was changed"
    bench.databases.sample(70)
    await reconciler.turn(stale)
    assert (bench.replicas(), asked(bench)) == (7, 7)


async def test_hpa_a_number_written_in_the_same_moment_is_not_overwritten(bench: Bench) -> None:
    reconciler = await awake(bench)
    bench.databases.sample(0)
    await bench.turn(reconciler)
    bench.clock.advance(61)
    really = bench.kube.write_worker_replicas

    async def write(*args: Any) -> Any:
        scale(bench, 7)
        return await really(*args)

    bench.kube.write_worker_replicas = write  # type: ignore[assignment,method-assign]
    assert await bench.turn(reconciler) == 0
    assert (bench.replicas(), asked(bench)) == (5, 7)


async def test_hpa_a_number_that_cannot_be_written_delays_no_pod(bench: Bench) -> None:
    bench.worker(scaling=HPA)
    reconciler = bench.reconciler()
    await bench.turn(reconciler)
    bench.databases.sample(42)
    bench.kube.refuse["write replicas"] = [refusal(503), aiohttp.ClientError("away")]

    assert await bench.turn(reconciler) == 1
    assert (bench.replicas(), asked(bench)) == (5, None)
    assert bench.condition("Reconciling") == "True ApiUnavailable"
    assert autoscaler(bench) is None, "it would begin with another number"
    assert await bench.turn(reconciler) == 2
    await bench.turn(reconciler)
    assert asked(bench) == 5
    assert autoscaler(bench)


@pytest.mark.parametrize("gone", ["deleted", "another"])
async def test_hpa_nothing_is_written_to_a_worker_that_is_gone(bench: Bench, gone: str) -> None:
    reconciler = await awake(bench)
    bench.databases.sample(0)
    await bench.turn(reconciler)
    manifest = bench.kube.read("worker", "shop", "emails")
    assert manifest
    bench.kube.delete("worker", "shop", "emails")
    if gone == "another":
        bench.kube.create("worker", {**manifest, "metadata": {**manifest["metadata"], "uid": "another"}})
    bench.kube.requests.clear()
    bench.clock.advance(61)
    with pytest.raises(WorkerGone):
        await reconciler.turn(manifest)
    assert "write replicas" not in bench.kube.requests


async def test_hpa_database_trouble_stops_nobody_else(bench: Bench) -> None:
    reconciler = await awake(bench)
    bench.databases.fail(ConnectionRefused())
    for _ in range(10):
        bench.clock.advance(100)
        await bench.turn(reconciler)
    assert (bench.replicas(), asked(bench)) == (5, 5)
    assert bench.condition("ScalingActive") == "False ConnectionRefused"

    scale(bench, 6)
    await bench.turn(reconciler)
    assert (bench.replicas(), asked(bench)) == (6, 6)


async def test_hpa_a_restart_changes_nothing(bench: Bench) -> None:
    await awake(bench)
    scale(bench, 8)
    bench.restart(bench.clock)
    reconciler = bench.reconciler()
    await bench.turn(reconciler)
    assert bench.replicas() == 5
    bench.databases.sample(0)
    await bench.turn(reconciler)
    assert (bench.replicas(), asked(bench)) == (8, 8)
    bench.clock.advance(61)
    await bench.turn(reconciler)
    assert (bench.replicas(), asked(bench)) == (0, 0)


async def test_hpa_an_edit_reaches_the_autoscaler(bench: Bench) -> None:
    reconciler = await awake(bench)
    change = {"maxReplicas": 20, "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}}}
    bench.kube.edit("worker", "shop", "emails", {"spec": {"scaling": change}})
    await bench.turn(reconciler)
    bench.databases.sample(42)
    await bench.turn(reconciler)

    made = autoscaler(bench)
    assert made
    assert (made["spec"]["maxReplicas"], made["spec"]["behavior"]) == (20, change["behavior"])


@pytest.mark.parametrize(
    ("availability", "conditions", "condition"),
    [
        (Availability(State.SERVING), [("ScalingActive", "True", "ValidMetricFound")], "True ReplicasAsked"),
        (
            Availability(State.SERVING),
            [("ScalingActive", "False", "FailedGetExternalMetric")],
            "False AutoscalerFailing",
        ),
        (
            Availability(State.SERVING),
            [("AbleToScale", "False", "FailedUpdateScale"), ("ScalingActive", "True", "ValidMetricFound")],
            "False AutoscalerFailing",
        ),
        (Availability(State.SERVING), [("AbleToScale", "True", "SucceededGetScale")], "True ReplicasAsked"),
        (Availability(State.STARTING), [], "True ReplicasAsked"),
        (Availability(State.OFF), [], "Unknown MetricsApiOff"),
        (
            Availability(State.OFF),
            [("ScalingActive", "False", "FailedGetExternalMetric")],
            "False MetricsApiOff",
        ),
        (
            Availability(State.FOREIGN, "keda/metrics"),
            [("ScalingActive", "False", "ScalingDisabled")],
            "Unknown MetricsApiForeign",
        ),
        (
            Availability(State.FOREIGN, "keda/metrics"),
            [("ScalingActive", "False", "FailedGetExternalMetric")],
            "False MetricsApiForeign",
        ),
        # The other adapter knows the metric.
        (
            Availability(State.FOREIGN, "keda/metrics"),
            [("ScalingActive", "True", "ValidMetricFound")],
            "True ReplicasAsked",
        ),
        (Availability(State.UNREACHABLE, detail="no route"), [], "False MetricsApiUnreachable"),
    ],
)
async def test_hpa_says_what_keeps_it_from_scaling(
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
    availability: Availability,
    conditions: list[tuple[str, str, str]],
    condition: str,
) -> None:
    reconciler = await awake(bench)
    monkeypatch.setattr(bench.world.metrics_api, "availability", availability)
    says(bench, *conditions)
    await bench.turn(reconciler)

    assert bench.condition("ScalingActive") == condition
    reason = condition.split()[1]
    warned = [told for told in bench.told() if told.startswith(f"{reason}:")]
    assert len(warned) == (0 if condition.startswith("True") else 1)
    assert bench.replicas() == 5


# From one driver to another


@pytest.mark.parametrize("first", ["Operator", "HPA", "External"])
@pytest.mark.parametrize("second", ["Operator", "HPA", "External"])
async def test_a_change_of_the_driver_ends_no_pod(bench: Bench, first: str, second: str) -> None:
    reconciler = await bench.running(42)
    for driver in (first, second, first, second):
        drive(bench, driver)
        bench.databases.sample(12)
        for _ in range(2):
            await bench.turn(reconciler)
            assert bench.replicas() == 5
            bench.clock.advance(5)
        assert asked(bench) == (None if driver == "Operator" else 5)
        assert (autoscaler(bench) is not None) == (driver == "HPA")

    bench.kube.requests.clear()
    await bench.turn(reconciler)
    assert bench.kube.requests == []


async def test_what_others_left_is_not_what_an_autoscaler_begins_with(bench: Bench) -> None:
    reconciler = await bench.running(42, replicas=2, scaling=EXTERNAL)
    drive(bench, "Operator")
    await bench.turn(reconciler)
    assert (bench.replicas(), asked(bench)) == (5, None)
    drive(bench, "HPA")
    await bench.turn(reconciler)
    assert (bench.replicas(), asked(bench)) == (5, 5)
