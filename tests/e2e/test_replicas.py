"""Replicas follow the tasks, from zero to what they need and back."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from tests.e2e.conftest import SPEC
from tests.e2e.harness import STEP_SECONDS, deployment_writes, eventually
from tests.e2e.postgres import chores

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Kubectl
    from tests.e2e.harness import TaskWorker
    from tests.e2e.postgres import Database

type MakeWorker = Callable[..., TaskWorker]


def test_a_burst_goes_from_zero_to_n_in_one_write_and_back(
    make_worker: MakeWorker, database: Database, here: Kubectl
) -> None:
    worker = make_worker(scaling={"tasksPerReplica": 4, "maxReplicas": 10})
    worker.becomes("Ready", "True", "ScaledToZero")
    worker.scales_to(0)
    with deployment_writes(here) as writes:
        eventually(writes, "the watch has begun")
        results = database.enqueue(chores.add, 1, 2, times=11) + database.enqueue(chores.fail)
        database.finish(results)
        worker.scales_to(0)
        (first, none), (second, n), *rest = writes()

    assert (none, n) == (0, 3)
    assert second == first + 1
    assert [replicas for _, replicas in rest][-1] == 0
    assert database.statuses(results) == ["FAILED"] + ["SUCCESSFUL"] * 11
    assert results[0].return_value == 3
    assert results[-1].errors[0].exception_class is ValueError
    assert all(result.worker_ids[0].startswith("worker-") for result in results)
    (up,) = worker.tells("ScaledUp")
    assert up["note"] == "12 ready and 0 running, 4 per replica: 0 -> 3"
    worker.tells("ScaledDown", "-> 0")
    worker.becomes("Ready", "True", "ScaledToZero")
    header, line = eventually(
        lambda: [row.split() for row in here("get", "djtw").splitlines()], "kubectl get djtw"
    )
    assert header == ["NAME", "QUEUES", "READY", "PENDING", "RUNNING", "REPLICAS", "DESIRED", "AGE"]
    assert line[:-1] == ["worker", '["default"]', "True", "0", "0", "0", "0"]


def test_the_row_of_a_running_task_names_its_pod(make_worker: MakeWorker, database: Database) -> None:
    worker = make_worker()
    database.close_gate(1)
    (result,) = database.enqueue(chores.wait_at, 1)
    eventually(lambda: database.statuses([result]) == ["RUNNING"], "the task runs")

    assert set(result.worker_ids) == worker.pod_names


def test_two_workers_each_follow_their_own_queue(make_worker: MakeWorker, database: Database) -> None:
    emails = make_worker("emails", queues=["emails"])
    reports = make_worker("reports", queues=["*"], excludeQueues=["emails"])
    database.close_gate(1)
    sent = database.enqueue(chores.wait_at, 1, queue="emails")
    written = database.enqueue(chores.wait_at, 1, queue="reports", times=2)
    emails.scales_to(1)
    reports.scales_to(2)
    database.open_gate(1)
    database.finish(sent + written)

    assert {result.worker_ids[0].partition("-")[0] for result in sent} == {"emails"}
    assert {result.worker_ids[0].partition("-")[0] for result in written} == {"reports"}


def test_a_deferred_task_wakes_a_worker_at_its_time(make_worker: MakeWorker, database: Database) -> None:
    worker = make_worker()
    worker.becomes("DatabaseReachable", "True")
    due = datetime.now(UTC) + timedelta(seconds=5)
    results = database.enqueue(chores.add, 1, 2, run_after=due)

    def is_early_for_it() -> bool:
        # Read first, because what is seen after that may be seen late.
        replicas = worker.replicas
        return replicas != 0 and datetime.now(UTC) < due

    while datetime.now(UTC) < due:
        assert not is_early_for_it(), "a replica for a task that is not due"
        time.sleep(STEP_SECONDS)
    database.finish(results)

    assert results[0].started_at
    assert results[0].started_at >= due


def test_a_long_task_holds_its_replica(make_worker: MakeWorker, database: Database) -> None:
    worker = make_worker()
    database.close_gate(1)
    results = database.enqueue(chores.wait_at, 1)
    eventually(lambda: database.statuses(results) == ["RUNNING"], "the task runs")
    # Counts in the status may be ten seconds old: ten times the delay of a scale-down.
    eventually(lambda: worker.status["runningTasks"] == 1, "the running task is counted")
    assert worker.becomes("ScalingActive", "True") == "0 ready and 1 running, 1 per replica"
    assert worker.replicas == 1
    assert not worker.events("ScaledDown")
    database.open_gate(1)

    assert [result.return_value for result in database.finish(results)] == [1]
    worker.scales_to(0)


def test_paused_holds_the_replicas_and_resumes(make_worker: MakeWorker, database: Database) -> None:
    worker = make_worker(paused=True)
    results = database.enqueue(chores.add, 1, 2, times=2)
    worker.becomes("Paused", "True")
    worker.becomes("ScalingActive", "False", "Paused")
    eventually(lambda: worker.status.get("pendingTasks") == 2, "the tasks are counted")
    assert worker.replicas == 0
    worker.patch(paused=False)
    database.finish(results)

    worker.becomes("Paused", "False")
    assert [len(worker.tells(reason)) for reason in ("Paused", "Resumed")] == [1, 1]


def test_tasks_that_wait_too_long_add_replicas(make_worker: MakeWorker, database: Database) -> None:
    worker = make_worker(scaling={"tasksPerReplica": 100, "targetLatencySeconds": 3})
    database.close_gate(1)
    results = database.enqueue(chores.wait_at, 1, times=4)
    eventually(lambda: worker.replicas == 1, "by number, one is enough")
    eventually(lambda: worker.replicas == 3, "by latency, all that there may be: no task ends in time")

    worker.tells("ScaledUp", "target 3 s")
    database.open_gate(1)
    database.finish(results)


def test_edits_of_the_bounds_take_effect(make_worker: MakeWorker, database: Database) -> None:
    worker = make_worker(scaling={"minReplicas": 1})
    worker.scales_to(1)
    worker.patch(scaling={"minReplicas": 2})
    worker.scales_to(2)
    database.close_gate(1)
    results = database.enqueue(chores.wait_at, 1, times=5)
    worker.scales_to(3)
    worker.becomes("ScalingActive", "True", "AtMaximum")
    worker.patch(scaling={"maxReplicas": 4})
    worker.scales_to(4)
    database.open_gate(1)
    database.finish(results)
    worker.patch(scaling={"minReplicas": 0, "maxReplicas": 1})
    worker.scales_to(0)


def test_the_spec_reaches_the_pod_and_a_change_of_it_rolls(
    make_worker: MakeWorker, database: Database, here: Kubectl
) -> None:
    worker = make_worker(scaling={"minReplicas": 1, "maxReplicas": 1})
    worker.scales_to(1)
    before = worker.pod_names
    template = SPEC["podTemplate"]["spec"]
    worker.patch(
        # The same image by its full name.
        image="docker.io/library/shop:dev",
        env=[*SPEC["env"], {"name": "COLOUR", "value": "green"}],
        resources={"requests": {"cpu": "11m", "memory": "65Mi"}},
        podTemplate={"metadata": {"annotations": {"team": "shop"}}, "spec": {**template, "hostname": "box"}},
    )
    worker.becomes("Reconciling", "True")
    eventually(lambda: worker.pod_names and not worker.pod_names & before, "another pod")
    worker.becomes("Ready", "True")
    worker.becomes("Reconciling", "False")
    (pod,) = worker.pods
    (container,) = pod["spec"]["containers"]

    assert container["image"] == "docker.io/library/shop:dev"
    assert {"name": "COLOUR", "value": "green"} in container["env"]
    assert container["resources"] == {"requests": {"cpu": "11m", "memory": "65Mi"}}
    assert pod["metadata"]["annotations"]["team"] == "shop"
    assert pod["spec"]["hostname"] == "box"
    # Every test's namespace refuses pods that are not restricted.
    labels = here("get", "namespace", worker.namespace, "--output=jsonpath={.metadata.labels}")
    assert '"pod-security.kubernetes.io/enforce":"restricted"' in labels
    assert pod["spec"]["securityContext"]["runAsNonRoot"]
    (result,) = database.finish(database.enqueue(chores.add, 1, 2))
    assert result.worker_ids == [pod["metadata"]["name"]]
