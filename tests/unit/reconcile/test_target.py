"""A worker with a latency target is scaled by the pace of its tasks."""

from __future__ import annotations

import pytest
from tests.unit.bench import Bench

from django_task_operator.tasktable import Durations


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def served(bench: Bench, scaling: dict[str, object]) -> int | None:
    """The replicas for 200 tasks, after others that took 0.1 s each."""
    bench.worker(scaling={"tasksPerReplica": 10, "maxReplicas": 20, **scaling})
    reconciler = bench.reconciler()
    await bench.turn(reconciler)
    bench.databases.sample(0, 1)
    await bench.turn(reconciler)
    bench.kube.run_deployment("shop", "emails")
    (_, subscription), *_ = bench.databases.subscriptions
    assert subscription.measures is ("targetLatencySeconds" in scaling)
    subscription.measure(Durations(50.0, 5.0))
    bench.databases.sample(200, 1)
    await bench.turn(reconciler)
    return bench.replicas()


async def test_short_tasks_need_few_replicas(bench: Bench) -> None:
    assert await served(bench, {"targetLatencySeconds": 30}) == 1


async def test_a_short_target_needs_more(bench: Bench) -> None:
    replicas = await served(bench, {"targetLatencySeconds": 2})

    assert replicas
    assert 8 <= replicas < 20
    assert any("10.0 tasks/s per replica, target 2 s: 1 -> " in note for note in bench.told())


async def test_without_a_target_they_are_counted(bench: Bench) -> None:
    assert await served(bench, {}) == 20


async def test_with_a_target_more_tasks_are_counted(bench: Bench) -> None:
    """The default for the limit is what depth alone would need, 100 here: a pod runs more in the time."""
    bench.worker(scaling={"targetLatencySeconds": 30})
    await bench.turn(bench.reconciler())

    ((_, subscription),) = bench.databases.subscriptions
    assert subscription.limit == 10_000
