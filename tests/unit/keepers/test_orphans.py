"""Rows whose pod is gone: when they are listed, when they are settled, and when they never are."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.bench import Bench
from tests.unit.fakes import EPOCH, running_status, worker_manifest

from django_task_operator import telemetry
from django_task_operator.keepers.evidence import Fate, Trace
from django_task_operator.keepers.orphans import (
    DENIED_SECONDS,
    EXCEPTION,
    LEFT_OVER_SECONDS,
    LISTING_SECONDS,
    MOST_AT_ONCE,
    MOST_EVENTS,
    settlement_of,
)
from django_task_operator.reconcile.reconciler import TROUBLE_SECONDS
from django_task_operator.spec import Worker
from django_task_operator.tasktable import Failed, PermissionDenied, Requeued, RunningRow
from django_task_operator.tasktable.errors import ConnectionRefused

if TYPE_CHECKING:
    from django_task_operator.reconcile.reconciler import Reconciler

GRACE = 60


@pytest.fixture
def bench() -> Bench:
    return Bench()


class Shop:
    """A worker whose pods run."""

    def __init__(self, bench: Bench, reconciler: Reconciler, pods: list[str]) -> None:
        self.bench, self.reconciler, self.pods = bench, reconciler, pods

    async def turn(self, *, running: int | None = None, after: float = 0) -> float:
        self.bench.clock.advance(after)
        count = len(self.bench.databases.rows) if running is None else running
        self.bench.databases.sample(0, count)
        return await self.bench.turn(self.reconciler)

    def remove(self, pod: str) -> None:
        self.bench.kube.delete("pods", "shop", pod)

    @property
    def status(self) -> dict[str, Any]:
        manifest = self.bench.kube.read("worker", "shop", "emails")
        assert manifest
        status: dict[str, Any] = manifest["status"]
        return status

    def settled(self) -> list[str]:
        return [type(settlement).__name__ for _, settlement in self.bench.databases.settled]


async def shop(bench: Bench, **orphans: Any) -> Shop:
    scaling = {"minReplicas": 2, "tasksPerReplica": 1000}
    reconciler = await bench.running(0, scaling=scaling, orphans=orphans)
    pods = bench.kube.run_pods("shop", "emails", 2)
    await bench.turn(reconciler)
    bench.clock.advance(20)
    bench.kube.requests.clear()
    return Shop(bench, reconciler, pods)


async def test_a_row_whose_pod_is_gone_fails_after_the_grace(bench: Bench) -> None:
    here = await shop(bench)
    gone, alive = here.pods
    row = bench.databases.run(f"{gone}/1.1")
    bench.databases.run(f"{alive}/1.1")
    here.remove(gone)
    assert await here.turn(after=1) <= LISTING_SECONDS
    assert await here.turn(after=GRACE - 1) <= 1
    assert here.settled() == []

    await here.turn(after=1)
    words = f"The pod {gone} that ran this task is gone, and the task had not finished."
    assert bench.databases.settled == [(row, Failed(EXCEPTION, f"ChildProcessError: {words}\n"))]
    assert bench.told() == [
        f"TaskFailed: orders.tasks.send ({row.id}) is FAILED: the pod {gone} that ran it is gone."
    ]
    await here.turn(after=100)
    assert here.settled() == ["Failed"]
    assert here.status["orphanedTasks"] == 0


async def test_it_is_settled_in_time_when_turns_are_taken_as_they_are_due(bench: Bench) -> None:
    here = await shop(bench, graceSeconds=30)
    bench.databases.run(here.pods[0])
    await here.turn(after=4)
    here.remove(here.pods[0])
    passed, wait = 0.0, 0.0
    while not here.settled():
        wait = await here.turn(after=wait)
        passed += wait
    assert passed - wait <= 30 + 1


async def test_a_restarted_container_is_a_pod_that_is_gone(bench: Bench) -> None:
    here = await shop(bench)
    before = bench.databases.run(here.pods[0], started_at=EPOCH + timedelta(seconds=10))
    bench.databases.run(f"{here.pods[0]}/1.1", started_at=EPOCH + timedelta(seconds=30))
    again = running_status(
        since=EPOCH + timedelta(seconds=20), restarts=1, ended=EPOCH + timedelta(seconds=15)
    )
    await here.turn(after=5)
    bench.kube.edit("pods", "shop", here.pods[0], {"status": again})
    await here.turn(after=1)
    await here.turn(after=GRACE)
    ((settled, failed),) = bench.databases.settled

    assert settled == before
    assert isinstance(failed, Failed)
    assert "had its container restarted" in failed.traceback


async def test_requeued_while_it_may_be(bench: Bench) -> None:
    here = await shop(bench, policy="Requeue", maxRequeues=2)
    for attempts in (1, 2, 3, 4):
        bench.databases.run(here.pods[0], attempts=attempts)
    here.remove(here.pods[0])
    await here.turn()
    await here.turn(after=GRACE)

    assert here.settled() == ["Requeued", "Requeued", "Failed", "Failed"]
    assert [told.partition(":")[0] for told in bench.told()] == ["TaskFailed"] * 2 + ["TaskRequeued"] * 2
    last = bench.databases.settled[-1][1]
    assert isinstance(last, Failed)
    assert "It was started 4 times" in last.traceback
    assert "spec.orphans.maxRequeues is 2" in last.traceback


async def test_the_attempt_of_an_innocent_bystander_does_not_count(bench: Bench) -> None:
    """The attempts of the task that used the memory do count: in the end it fails."""
    here = await shop(bench, policy="Requeue", maxRequeues=2)
    pod = here.pods[0]
    greedy, failing = (bench.databases.run(f"{pod}/1.{thread}", attempts=2 + thread) for thread in (0, 1))
    bystander = bench.databases.run(f"{pod}/2.1", attempts=9)
    took = f"Short of memory (9 of 10 MiB): process 1 takes 8 MiB for tasks {greedy.id}, {failing.id}."
    again = running_status(since=EPOCH + timedelta(days=9), restarts=1, ended=EPOCH + timedelta(days=8))
    again["containerStatuses"][0]["lastState"]["terminated"] |= {
        "startedAt": "2000-01-01T00:00:00Z",
        "reason": "OOMKilled",
        "message": took,
    }
    bench.kube.edit("pods", "shop", pod, {"status": again})
    await here.turn()
    await here.turn(after=GRACE)

    settled = {row.id: settlement for row, settlement in bench.databases.settled}
    assert settled[greedy.id] == Requeued()
    assert isinstance(settled[failing.id], Failed)
    assert settled[bystander.id] == Requeued(counted=False)
    why = f"another task ({', '.join(sorted([greedy.id, failing.id]))}) had taken the memory of its container"
    assert f"This attempt does not count, because {why}." in bench.told()[-1]
    assert bystander.id in bench.told()[-1]


async def test_the_attempts_of_an_evicted_pod_do_not_count(bench: Bench) -> None:
    here = await shop(bench, policy="Requeue", maxRequeues=0)
    evicted, deleted = here.pods
    rows = [bench.databases.run(pod, attempts=5) for pod in here.pods]
    conditions = [{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}]
    bench.kube.edit("pods", "shop", evicted, {"status": {"conditions": conditions}})
    here.remove(evicted)
    here.remove(deleted)
    await here.turn()
    await here.turn(after=GRACE)

    assert here.settled() == ["Requeued", "Failed"]
    assert bench.databases.settled[0] == (rows[0], Requeued(counted=False))
    assert bench.told()[-1] == (
        f"TaskRequeued: orders.tasks.send ({rows[0].id}) is READY again: the pod {evicted} that ran it is "
        "gone. This attempt does not count, because the pod was evicted through the API."
    )


@given(st.integers(0, 6), st.integers(1, 9))
def test_no_task_is_started_more_often_than_it_may_be(most: int, attempts: int) -> None:
    manifest = worker_manifest(orphans={"policy": "Requeue", "maxRequeues": most})
    row = RunningRow("0" * 32, "a.b", "default", "x", attempts, EPOCH)
    settlement = settlement_of(Trace(row, "x", Fate.GONE), Worker.parse(manifest).spec.orphans)

    assert isinstance(settlement, Requeued) == (attempts <= most)


async def test_ignored_is_counted_and_told(bench: Bench) -> None:
    here = await shop(bench, policy="Ignore")
    bench.databases.run(here.pods[0])
    here.remove(here.pods[0])
    await here.turn()
    assert here.status["orphanedTasks"] == 0
    bench.kube.requests.clear()
    for _ in range(5):
        await here.turn(after=GRACE)

    assert here.settled() == []
    assert here.status["orphanedTasks"] == 1
    assert bench.told() == [
        "TasksOrphaned: 1 of the tasks that are RUNNING in the table ran on pods that are gone."
    ]
    assert bench.kube.requests.count("list pods") == 1
    counted = telemetry.ORPHANS.labels("shop", "emails", "Ignored")
    assert counted._value.get() >= 1


@pytest.mark.parametrize(
    "worker_id",
    ["", "laptop", "emails-5d9f", "emails-77aa-abcde", "emails-5d9f-abcdef", "reports-5d9f-abcde"],
)
async def test_a_foreign_row_is_never_touched(bench: Bench, worker_id: str) -> None:
    here = await shop(bench, graceSeconds=0)
    bench.databases.run(worker_id, age=100_000)
    for _ in range(5):
        await here.turn(after=GRACE)

    assert here.settled() == []
    assert here.status["orphanedTasks"] == 0
    assert "list pods" not in bench.kube.requests


async def test_a_pod_that_the_watch_has_not_told_of_is_no_orphans(bench: Bench) -> None:
    here = await shop(bench, graceSeconds=0)
    bench.databases.run(here.pods[0])
    # The cache says that it is gone, and the API server that it is there.
    bench.world.caches.pods.drop(
        {**(bench.kube.read("pods", "shop", here.pods[0]) or {}), "kind": "Pod"},
    )
    await here.turn()
    assert "list pods" in bench.kube.requests
    assert here.settled() == []


async def test_while_the_watch_is_broken_nothing_is_settled(bench: Bench) -> None:
    here = await shop(bench)
    bench.databases.run(here.pods[0])
    await here.turn()
    here.remove(here.pods[0])
    await here.turn(after=1)
    bench.world.caches.pods._broken.add(None)
    listings = bench.databases.listings
    await here.turn(after=10 * GRACE)
    assert bench.databases.listings == listings
    assert here.settled() == []

    bench.world.caches.pods._broken.clear()
    await here.turn()
    assert here.settled() == ["Failed"]


async def test_the_grace_begins_when_the_pod_is_seen_to_go(bench: Bench) -> None:
    here = await shop(bench)
    bench.databases.run(here.pods[0])
    await here.turn()
    here.remove(here.pods[0])
    bench.databases.trouble = ConnectionRefused()
    await here.turn(after=1)
    bench.databases.trouble = None
    await here.turn(after=GRACE - 2)
    assert here.settled() == []
    await here.turn(after=2)
    assert here.settled() == ["Failed"]


async def test_while_the_api_server_is_away_nothing_is_settled(bench: Bench) -> None:
    here = await shop(bench)
    bench.databases.run(here.pods[0])
    here.remove(here.pods[0])
    await here.turn()
    bench.kube.refuse["list pods"] = [TimeoutError(), TimeoutError()]
    await here.turn(after=GRACE)
    await here.turn(after=GRACE)
    assert here.settled() == []
    await here.turn(after=GRACE)
    assert here.settled() == ["Failed"]


async def test_an_operator_that_leads_no_more_settles_nothing(bench: Bench) -> None:
    here = await shop(bench)
    bench.databases.run(here.pods[0])
    here.remove(here.pods[0])
    bench.permit.granted = 0.0
    await here.turn(after=1)
    await here.turn(after=GRACE)
    assert here.settled() == []

    bench.permit.granted = 2.0
    await here.turn(after=LEFT_OVER_SECONDS)
    assert here.settled() == ["Failed"]


async def test_while_the_database_is_away_nothing_is_settled(bench: Bench) -> None:
    here = await shop(bench)
    bench.databases.run(here.pods[0])
    here.remove(here.pods[0])
    await here.turn()
    bench.databases.trouble = ConnectionRefused()
    await here.turn(after=GRACE)
    await here.turn(after=GRACE)
    assert here.settled() == []
    bench.databases.trouble = None
    await here.turn(after=GRACE)
    assert here.settled() == ["Failed"]


async def test_a_restarted_operator_waits_for_the_whole_grace_and_knows_its_pods_still(bench: Bench) -> None:
    here = await shop(bench)
    bench.databases.run(here.pods[0])
    here.remove(here.pods[0])
    await here.turn()
    await here.turn(after=GRACE - 1)
    here.reconciler.close()
    bench.restart(bench.clock)
    here.reconciler = bench.reconciler()
    await here.turn()
    await here.turn()
    await here.turn(after=GRACE - 1)
    assert here.settled() == []
    await here.turn(after=1)
    assert here.settled() == ["Failed"]


async def test_a_row_that_finishes_meanwhile_stays_finished(bench: Bench) -> None:
    here = await shop(bench, graceSeconds=0)
    row = bench.databases.run(here.pods[0])
    here.remove(here.pods[0])
    listed = bench.kube.list_pods

    async def list_pods(*args: str) -> Any:
        bench.databases.rows.remove(row)
        return await listed(*args)

    bench.kube.list_pods = list_pods  # type: ignore[assignment,method-assign]
    await here.turn()

    assert here.settled() == []
    assert bench.told() == []
    assert here.status["orphanedTasks"] == 0


async def test_a_user_that_may_not_update_is_told_so_and_asked_again(bench: Bench) -> None:
    here = await shop(bench)
    bench.databases.run(here.pods[0])
    here.remove(here.pods[0])
    await here.turn()
    bench.databases.refused = PermissionDenied()
    await here.turn(after=GRACE)
    assert [told.partition(":")[0] for told in bench.told()] == ["OrphansNotSettled", "TasksOrphaned"]
    assert here.status["orphanedTasks"] == 1
    bench.kube.events.clear()
    await here.turn(after=1)
    assert bench.told() == []

    bench.databases.refused = None
    await here.turn(after=DENIED_SECONDS)
    assert here.settled() == ["Failed"]
    assert here.status["orphanedTasks"] == 0


async def test_many_are_told_of_in_few_words(bench: Bench) -> None:
    here = await shop(bench)
    for _ in range(50):
        bench.databases.run(here.pods[0])
    here.remove(here.pods[0])
    await here.turn()
    await here.turn(after=GRACE)

    assert here.settled() == ["Failed"] * 50
    assert len(bench.told()) == MOST_EVENTS + 1
    assert bench.told()[-1] == (
        "TaskFailed: 47 more tasks are FAILED because their pods are gone: orders.tasks.send"
    )


async def test_more_than_a_turn_can_settle_are_settled_in_the_next(bench: Bench) -> None:
    here = await shop(bench, graceSeconds=0)
    for _ in range(MOST_AT_ONCE + 1):
        bench.databases.run(here.pods[0])
    here.remove(here.pods[0])
    assert await here.turn() <= LEFT_OVER_SECONDS
    assert len(here.settled()) == MOST_AT_ONCE
    assert here.status["orphanedTasks"] == 1
    await here.turn(after=LEFT_OVER_SECONDS)
    assert len(here.settled()) == MOST_AT_ONCE + 1
    assert here.status["orphanedTasks"] == 0


async def test_paused_orphans_go_on(bench: Bench) -> None:
    here = await shop(bench)
    bench.kube.edit("worker", "shop", "emails", {"spec": {"paused": True}})
    bench.databases.run(here.pods[0])
    here.remove(here.pods[0])
    await here.turn()
    await here.turn(after=GRACE)

    assert here.settled() == ["Failed"]


async def test_stuck_tasks_are_counted_and_left_alone(bench: Bench) -> None:
    here = await shop(bench)
    bench.kube.edit("worker", "shop", "emails", {"spec": {"stuckAfterSeconds": 100}})
    for age in (99, 100, 5000):
        bench.databases.run(here.pods[0], age=age)
    bench.databases.run("laptop", age=5000)
    bench.kube.events.clear()
    await here.turn(after=LISTING_SECONDS)

    assert here.status["stuckTasks"] == 2
    assert here.settled() == []
    assert bench.told() == [
        "TasksStuck: 2 of the tasks have run for longer than spec.stuckAfterSeconds on live pods."
    ]
    gauge = telemetry.STUCK_TASKS.labels("shop", "emails")
    assert gauge._value.get() == 2
    bench.databases.rows.clear()
    await here.turn(after=LISTING_SECONDS)
    assert here.status["stuckTasks"] == 0


async def test_without_running_tasks_the_rows_are_never_listed_again(bench: Bench) -> None:
    here = await shop(bench)
    before = bench.databases.listings
    for _ in range(50):
        await here.turn(after=10)

    assert bench.databases.listings == before == 1


async def test_with_running_tasks_and_all_pods_alive_they_are_listed_seldom(bench: Bench) -> None:
    here = await shop(bench)
    bench.databases.run(here.pods[0])
    bench.databases.listings = 0
    for _ in range(100):
        await here.turn(after=1)
    assert 9 <= bench.databases.listings <= 11

    bench.databases.listing_seconds = 1.5
    bench.databases.listings = 0
    for _ in range(300):
        await here.turn(after=1)
    assert 4 <= bench.databases.listings <= 6


async def test_a_settled_turn_with_running_tasks_makes_no_request_to_the_api(bench: Bench) -> None:
    here = await shop(bench)
    bench.databases.run(here.pods[0])
    await here.turn()
    await here.turn(after=20)
    bench.kube.requests.clear()
    for _ in range(30):
        await here.turn(after=1)

    assert set(bench.kube.requests) <= {"get secret"}


async def test_a_spec_that_became_invalid_is_not_looked_at_as_often_as_rows_are(bench: Bench) -> None:
    """The next listing is due soon, but no rows are listed while the spec is invalid."""
    here = await shop(bench)
    bench.databases.run(here.pods[0])
    wait = await here.turn(after=1)
    assert await here.turn(after=wait - 0.01) == pytest.approx(0.01)
    bench.kube.edit("worker", "shop", "emails", {"spec": {"image": ""}})

    for _ in range(3):
        assert await bench.turn(here.reconciler) == TROUBLE_SECONDS
