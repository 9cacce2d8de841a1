"""What happens to pods from outside: evictions, drains, and the kernel when memory runs out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.e2e.conftest import SPEC
from tests.e2e.harness import eventually
from tests.e2e.postgres import chores
from tests.waiting import PATIENTLY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Kubectl
    from tests.e2e.harness import TaskWorker
    from tests.e2e.postgres import Database

type MakeWorker = Callable[..., TaskWorker]

MEMORY = "160Mi"


def running(worker: TaskWorker, database: Database, gate: int) -> tuple[str, Any]:
    """The only pod, and a task that it runs until the gate opens."""
    worker.scales_to(1)
    (pod,) = worker.pod_names
    database.close_gate(gate)
    (result,) = database.enqueue(chores.wait_at, gate)
    eventually(lambda: database.statuses([result]) == ["RUNNING"], "the task runs")
    return pod, result


def ends(worker: TaskWorker, pod: str) -> bool:
    manifest = worker.api.get(f"/api/v1/namespaces/{worker.namespace}/pods/{pod}")
    return bool(manifest and "deletionTimestamp" in manifest["metadata"])


def test_an_evicted_pod_finishes_its_task(make_worker: MakeWorker, database: Database) -> None:
    worker = make_worker(scaling={"minReplicas": 1, "maxReplicas": 1}, terminationGracePeriodSeconds=120)
    pod, result = running(worker, database, 1)
    eventually(lambda: worker.evict(pod), "the budget allows the eviction of the only pod")
    eventually(lambda: ends(worker, pod), "the pod ends")
    (later,) = database.finish(database.enqueue(chores.add, 1, 2))
    assert database.statuses([result]) == ["RUNNING"]
    database.open_gate(1)
    database.finish([result])

    assert (result.status, result.worker_ids) == ("SUCCESSFUL", [pod])
    assert pod not in later.worker_ids


@pytest.fixture
def node(only_node: str, kubectl: Kubectl) -> Iterator[str]:
    """The only node; afterwards it accepts pods again."""
    yield only_node
    kubectl("uncordon", only_node)


@pytest.mark.alone
def test_a_drained_node_lets_tasks_finish(
    make_worker: MakeWorker, database: Database, kubectl: Kubectl, node: str
) -> None:
    worker = make_worker(
        "drained", scaling={"minReplicas": 1, "maxReplicas": 1}, terminationGracePeriodSeconds=120
    )
    pod, result = running(worker, database, 1)
    # It waits until the pods have ended, so the test must not wait for it.
    kubectl("cordon", node)
    drain = ("drain", node, "--pod-selector=djangotasks.dev/worker=drained", "--delete-emptydir-data")
    kubectl.run(*drain, "--ignore-daemonsets", "--timeout=3s")
    eventually(lambda: ends(worker, pod), "the pod ends")
    assert database.statuses([result]) == ["RUNNING"]
    database.open_gate(1)
    database.finish([result])
    assert (result.status, result.worker_ids) == ("SUCCESSFUL", [pod])
    assert "drained" in kubectl(*drain, "--ignore-daemonsets", PATIENTLY)

    # There is no other node: its successor waits, which is said, until this one is back.
    worker.becomes("Reconciling", "True", "PodUnschedulable")
    kubectl("uncordon", node)
    worker.scales_to(1)
    (later,) = database.finish(database.enqueue(chores.add, 1, 2))
    assert set(later.worker_ids) <= worker.pod_names


def test_a_task_that_eats_all_memory_fails_alone(make_worker: MakeWorker, database: Database) -> None:
    worker = make_worker(
        scaling={"minReplicas": 1, "maxReplicas": 1},
        resources={**SPEC["resources"], "limits": {"memory": MEMORY}},
        processes=2,
    )
    pod, neighbour = running(worker, database, 1)
    (greedy,) = database.finish(database.enqueue(chores.eat, 500))

    assert greedy.status == "FAILED"
    # The kernel killed its process alone, or, with newer control groups, its container.
    restarts = sum(
        status["restartCount"] for each in worker.pods for status in each["status"]["containerStatuses"]
    )
    if not restarts:
        assert greedy.errors[0].exception_class is ChildProcessError
        assert database.statuses([neighbour]) == ["RUNNING"]
        database.open_gate(1)
        database.finish([neighbour])
        assert neighbour.worker_ids[0].startswith(pod)
    (later,) = database.finish(database.enqueue(chores.add, 1, 2))
    assert later.worker_ids[0].startswith(pod)
