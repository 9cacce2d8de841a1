"""The loops of many workers, in an event loop in which hours take no time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from prometheus_client import generate_latest
from tests.unit.bench import Bench
from tests.unit.fakes import refusal
from tests.unit.simulation import simulated

from django_task_operator import telemetry
from django_task_operator.reconcile.fleet import UNFORESEEN_SECONDS
from django_task_operator.spec import Key
from django_task_operator.tasktable.errors import ConnectionRefused

EMAILS = Key(namespace="shop", name="emails")


def now() -> float:
    return asyncio.get_running_loop().time()


@pytest.fixture
def bench() -> Bench:
    return Bench(now)


def turns(outcome: str = "done") -> float:
    count: float = telemetry.TURNS.labels(outcome)._value.get()
    return count


def value(metric: str, **labels: str) -> float | None:
    return telemetry.REGISTRY.get_sample_value(metric, {"namespace": "shop", "worker": "emails", **labels})


async def settle(bench: Bench, ready: int = 42) -> None:
    """Let every loop take its first sample, and its pods start."""
    await asyncio.sleep(0.1)
    bench.databases.sample(ready)
    await asyncio.sleep(0.1)
    for kind, namespace, name in list(bench.kube._objects):
        if kind == "deployments":
            bench.kube.run_deployment(namespace, name)
    await asyncio.sleep(0.1)
    bench.kube.requests.clear()
    bench.kube.events.clear()


@simulated
async def test_a_sample_wakes_the_worker_at_once(bench: Bench) -> None:
    bench.worker()
    bench.observe()
    await settle(bench)
    assert bench.replicas() == 5

    bench.databases.sample(100)
    await asyncio.sleep(0.001)
    assert bench.replicas() == 10


@simulated
async def test_up_and_down_without_anybody_doing_anything(bench: Bench) -> None:
    bench.worker(scaling={"scaleDownDelaySeconds": 30})
    bench.observe()
    await settle(bench)
    bench.databases.sample(0)

    await asyncio.sleep(29)
    assert bench.replicas() == 5
    await asyncio.sleep(1.2)
    assert bench.replicas() == 0


@simulated
async def test_fifty_settled_workers_ask_for_one_secret_a_minute(bench: Bench) -> None:
    for number in range(50):
        bench.worker(f"w-{number}", queues=[f"q-{number}"])
        bench.observe(f"w-{number}")
    await settle(bench)

    await asyncio.sleep(600)

    assert set(bench.kube.requests) == {"get secret"}
    assert 9 <= len(bench.kube.requests) <= 11


@simulated
async def test_a_bug_in_one_turn_ends_neither_its_loop_nor_another(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.worker()
    bench.worker("mails", queues=["mails"])
    really, broken = bench.databases.subscribe, True

    def subscribe(url: Any, selection: Any, **how: Any) -> Any:
        if broken and selection.queues == ("default",):
            raise ZeroDivisionError
        return really(url, selection, **how)

    monkeypatch.setattr(bench.databases, "subscribe", subscribe)
    failed = turns("failed")
    bench.observe()
    bench.observe("mails")
    await settle(bench)

    assert bench.replicas("mails") == 5
    assert bench.replicas() is None
    assert turns("failed") == failed + 1
    assert "turn failed" in caplog.messages

    broken = False
    await asyncio.sleep(UNFORESEEN_SECONDS)
    await settle(bench)
    assert bench.replicas() == 5


@simulated
async def test_a_worker_that_turns_out_to_be_gone_ends_its_loop(bench: Bench) -> None:
    bench.worker()
    bench.observe()
    await settle(bench)
    assert len(bench.fleet) == 1
    bench.kube.delete("worker", "shop", "emails")

    bench.databases.fail(ConnectionRefused())
    await asyncio.sleep(0.1)

    assert len(bench.fleet) == 0
    assert bench.databases.subscriptions == []


@pytest.mark.parametrize("how", ["deleted", "deletionTimestamp"])
@simulated
async def test_a_deletion_ends_its_loop(bench: Bench, how: str) -> None:
    manifest = bench.worker()
    bench.observe()
    await settle(bench)
    assert b'worker="emails"' in generate_latest(telemetry.REGISTRY)
    assert value("django_task_queue_pending_tasks", queue="default") == 42
    assert value("django_task_worker_max_replicas") == 10
    assert (value("django_task_worker_decisions_total", reason="ScaledUp") or 0) >= 1

    if how == "deletionTimestamp":
        manifest["metadata"]["deletionTimestamp"] = "2026-11-22T12:00:00Z"
    bench.fleet.observe(manifest, deleted=how == "deleted")
    bench.fleet.wake_ups.wake(EMAILS)
    await asyncio.sleep(0.1)

    assert len(bench.fleet) == 0
    assert bench.databases.subscriptions == []
    assert b'worker="emails"' not in generate_latest(telemetry.REGISTRY)
    assert bench.replicas() == 5, "the garbage collector's work, not ours"
    bench.fleet.observe(manifest, deleted=True)


@simulated
async def test_the_same_name_again_is_another_worker(bench: Bench) -> None:
    first = bench.worker()
    bench.observe()
    await settle(bench)
    bench.kube.delete("worker", "shop", "emails")
    bench.kube.create("worker", {**first, "metadata": {**first["metadata"], "uid": "second"}})
    bench.observe()
    await asyncio.sleep(0.1)
    assert len(bench.fleet) == 1
    assert len(bench.databases.subscriptions) == 1

    bench.databases.sample(42)
    await asyncio.sleep(0.1)
    assert bench.condition("Reconciling") == "True DeploymentLeftOver"
    bench.kube.delete("deployments", "shop", "emails")
    await asyncio.sleep(0.1)
    new = bench.kube.read("deployments", "shop", "emails")
    assert new
    assert new["metadata"]["ownerReferences"][0]["uid"] == "second"


@simulated
async def test_the_echo_of_its_own_status_wakes_nobody(bench: Bench) -> None:
    bench.worker()
    bench.observe()
    await settle(bench)
    before = turns()

    for _ in range(5):
        bench.observe()
        await asyncio.sleep(0.1)
    assert turns() == before

    bench.kube.edit("worker", "shop", "emails", {"spec": {"image": "shop:2"}})
    bench.observe()
    await asyncio.sleep(0.1)
    assert turns() > before
    deployment = bench.kube.read("deployments", "shop", "emails")
    assert deployment
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == "shop:2"


@simulated
async def test_a_minute_without_the_api_server(bench: Bench) -> None:
    bench.worker()
    bench.observe()
    await settle(bench)
    bench.kube.down = refusal(503)
    bench.databases.sample(80)
    await asyncio.sleep(60)
    assert bench.replicas() == 5
    assert len(bench.kube.requests) < 25, "ever more seldom"

    bench.kube.down = None
    await asyncio.sleep(31)
    assert bench.replicas() == 8
    assert bench.told() == ["ScaledUp: 80 ready and 0 running, 10 per replica: 5 -> 8"]


@simulated
async def test_latency_does_not_spin(bench: Bench) -> None:
    bench.worker(scaling={"targetLatencySeconds": 30, "pollIntervalSeconds": 300})
    bench.observe()
    await settle(bench)
    bench.databases.sample(42, oldest=29.9999)
    before = turns()
    await asyncio.sleep(60)

    assert turns() - before < 70


@simulated
async def test_stop_ends_every_loop_and_touches_nothing(bench: Bench) -> None:
    for name in ("emails", "mails"):
        bench.worker(name)
        bench.observe(name)
    await settle(bench)

    await bench.fleet.stop()

    assert len(bench.fleet) == 0
    assert bench.databases.subscriptions == []
    assert bench.kube.requests == []


@simulated
async def test_a_stranger_is_not_woken(bench: Bench) -> None:
    bench.fleet.wake_ups.wake(EMAILS)

    assert len(bench.fleet) == 0
