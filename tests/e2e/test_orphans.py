"""Tasks whose pod is killed while they run: each is settled once, and no other row is changed."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from tests.e2e.harness import always, eventually
from tests.e2e.postgres import chores
from tests.e2e.release import in_node

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.tasks import TaskResult
    from tests.conftest import Kubectl
    from tests.e2e.harness import TaskWorker
    from tests.e2e.postgres import Database
    from tests.e2e.release import Release

type MakeWorker = Callable[..., TaskWorker]

GRACE = 5
# The promise is 5 (benchmarks/orphans.py); a node that also runs everything else reports slowly.
SLACK = 60


def running(database: Database, worker: TaskWorker) -> tuple[TaskResult[..., Any], str]:
    """A task that runs until gate 1 is opened, and its pod."""
    database.close_gate(1)
    (result,) = database.enqueue(chores.wait_at, 1)
    eventually(lambda: database.statuses([result]) == ["RUNNING"], "the task runs")
    # In the second of its start, Kubernetes' times do not tell it from one of the container before.
    started = result.started_at
    assert started
    eventually(lambda: time.time() - started.timestamp() > 2, "it has run for a while")
    return result, result.worker_ids[0].partition("/")[0]


def remove(here: Kubectl, pod: str) -> None:
    """Remove a pod at once, as if its node had been lost."""
    here("delete", "pod", pod, "--force", "--grace-period=0")


def kill_container(worker: TaskWorker, pod: str, node: str) -> None:
    """Send SIGKILL to every process in the worker's container."""
    (manifest,) = (each for each in worker.pods if each["metadata"]["name"] == pod)
    container = manifest["status"]["containerStatuses"][0]["containerID"].removeprefix("containerd://")
    in_node(node, "ctr", "--namespace=k8s.io", "tasks", "kill", "-s", "SIGKILL", container)


def settled(database: Database, result: TaskResult[..., Any], since: float) -> float:
    """Wait for the end of a task; return how long that took."""
    database.finish([result])
    return time.monotonic() - since


@pytest.mark.alone
def test_a_task_whose_pod_is_gone_fails_and_says_why(
    make_worker: MakeWorker, database: Database, here: Kubectl
) -> None:
    worker = make_worker(orphans={"graceSeconds": GRACE})
    result, pod = running(database, worker)
    removed = time.monotonic()
    remove(here, pod)
    took = settled(database, result, removed)

    assert GRACE - 1 <= took <= GRACE + SLACK
    assert result.status == "FAILED"
    (error,) = result.errors
    assert error.exception_class is ChildProcessError
    assert f"The pod {pod} that ran this task is gone" in error.traceback
    note = worker.warns("TaskFailed")
    assert str(result.id) in note
    assert "tests.e2e.project.chores.wait_at" in note
    # A dead row keeps no pod.
    worker.scales_to(0)
    eventually(lambda: worker.status["orphanedTasks"] == 0, "no orphan is counted any more")


@pytest.fixture
def silence_node(kind_node: str) -> Iterator[Callable[[], str]]:
    """Stop the node's kubelet until the end of the test: containers continue, but nothing is reported."""
    yield partial(in_node, kind_node, "systemctl", "stop", "kubelet")
    in_node(kind_node, "systemctl", "start", "kubelet")


@pytest.mark.alone
def test_a_task_on_a_node_that_does_not_answer_waits_until_its_pod_is_removed(
    make_worker: MakeWorker, database: Database, here: Kubectl, silence_node: Callable[[], str]
) -> None:
    worker = make_worker(orphans={"graceSeconds": GRACE})
    result, pod = running(database, worker)
    silence_node()
    # As Kubernetes does itself when a node has been silent for some minutes.
    here("delete", "pod", pod, "--wait=false")
    always(lambda: database.statuses([result]) == ["RUNNING"], "nobody knows better", seconds=GRACE + 5)

    # As it does when the node is deleted, or said to be out of service.
    remove(here, pod)
    settled(database, result, time.monotonic())
    assert result.status == "FAILED"

    def succeeded() -> bool:
        return database.statuses([result]) == ["SUCCESSFUL"]

    database.open_gate(1)
    eventually(succeeded, "what ended on the silent node all the same is stored")


def test_a_task_whose_container_is_killed_is_requeued_and_runs_in_the_next(
    make_worker: MakeWorker, database: Database, kind_node: str
) -> None:
    worker = make_worker(orphans={"policy": "Requeue", "graceSeconds": GRACE})
    result, pod = running(database, worker)
    first = result.started_at
    killed = time.monotonic()
    kill_container(worker, pod, kind_node)

    def runs_again() -> bool:
        database.refresh([result])
        return result.status == "RUNNING" and result.started_at != first

    eventually(runs_again, "it runs again")
    assert time.monotonic() - killed >= GRACE - 1
    database.open_gate(1)
    database.finish([result])

    assert result.status == "SUCCESSFUL"
    # The same pod, whose container was started again.
    assert [worker_id.partition("/")[0] for worker_id in result.worker_ids] == [pod, pod]
    worker.tells("TaskRequeued")


def test_requeued_no_more_often_than_it_may_be(
    make_worker: MakeWorker, database: Database, here: Kubectl
) -> None:
    worker = make_worker(orphans={"policy": "Requeue", "graceSeconds": 1, "maxRequeues": 1})
    result, pod = running(database, worker)
    remove(here, pod)

    def runs_elsewhere() -> bool:
        database.refresh([result])
        return result.status == "RUNNING" and result.worker_ids[-1] != pod

    eventually(runs_elsewhere, "it runs in another pod")
    remove(here, result.worker_ids[-1])
    database.finish([result])

    assert result.status == "FAILED"
    assert "It was started 2 times" in result.errors[0].traceback
    assert len(result.worker_ids) == 2


def test_an_attempt_that_an_eviction_ended_does_not_count(
    make_worker: MakeWorker, database: Database
) -> None:
    orphans = {"policy": "Requeue", "graceSeconds": 1, "maxRequeues": 0}
    worker = make_worker(orphans=orphans, terminationGracePeriodSeconds=1)
    result, pod = running(database, worker)
    eventually(lambda: worker.evict(pod), "the budget allows the eviction of the only pod")

    def runs_elsewhere() -> bool:
        database.refresh([result])
        return result.status == "RUNNING" and pod not in result.worker_ids

    eventually(runs_elsewhere, "it runs in another pod, and says nothing of the first")
    assert len(result.worker_ids) == 1
    (event,) = worker.tells("TaskRequeued")
    assert "This attempt does not count, because the pod was evicted through the API." in event["note"]
    database.open_gate(1)
    database.finish([result])
    assert result.status == "SUCCESSFUL"


@pytest.mark.alone
def test_an_operator_that_starts_later_settles_what_it_did_not_see(
    make_worker: MakeWorker, database: Database, here: Kubectl, operator: Release
) -> None:
    worker = make_worker(orphans={"graceSeconds": GRACE})
    result, pod = running(database, worker)
    operator.stop()
    remove(here, pod)
    operator.start()
    settled(database, result, time.monotonic())

    assert result.status == "FAILED"
    assert pod in result.errors[0].traceback


def test_rows_of_others_are_never_touched_and_ignored_ones_are_counted(
    make_worker: MakeWorker, database: Database, here: Kubectl
) -> None:
    worker = make_worker(orphans={"policy": "Ignore", "graceSeconds": 1}, stuckAfterSeconds=1)
    result, pod = running(database, worker)
    eventually(lambda: worker.status.get("stuckTasks") == 1, "a task that runs for long is counted")
    replica_set, _, _ = pod.rpartition("-")
    foreign = database.enqueue(chores.wait_at, 2, queue="elsewhere", times=3)
    claim = "UPDATE django_tasks_database_dbtaskresult SET status = 'RUNNING', worker_ids = %s, "
    claim += "started_at = now() - interval '1 day' WHERE id = %s"
    # A machine of somebody, a worker of another cluster, and one whose name begins as ours does.
    others = ["laptop", "worker-6d5f7c9b8d-x2k4q", f"{replica_set}9-x2k4q"]
    with database.server.connect(database.name) as connection:
        for row, worker_id in zip(foreign, others, strict=True):
            connection.execute(claim, [f'["{worker_id}"]', row.id])
    remove(here, pod)
    eventually(lambda: worker.status.get("orphanedTasks") == 1, "one orphan is counted")
    assert "1 of the tasks that are RUNNING" in worker.warns("TasksOrphaned")
    worker.patch(orphans={"policy": "Fail"})
    settled(database, result, time.monotonic())

    assert result.status == "FAILED"
    always(
        lambda: database.statuses(foreign) == ["RUNNING"] * 3, "nobody touches the rows of others", seconds=5
    )
