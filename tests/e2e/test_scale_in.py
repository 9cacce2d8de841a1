"""Scale-in: idle pods are removed, and pods that run a task are kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.e2e.harness import always, eventually
from tests.e2e.postgres import chores

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.harness import TaskWorker
    from tests.e2e.postgres import Database

type MakeWorker = Callable[..., TaskWorker]

COST = "controller.kubernetes.io/pod-deletion-cost"
PODS = 6


def test_idle_pods_go_and_busy_ones_stay(make_worker: MakeWorker, database: Database) -> None:
    worker = make_worker(scaling={"maxReplicas": PODS, "tasksPerReplica": 1})
    for gate in (1, 2):
        database.close_gate(gate)
    # Long and short tasks alternate, so that busy and idle pods are of the same age.
    mixed = [database.enqueue(chores.wait_at, 1 + number % 2)[0] for number in range(PODS)]
    worker.scales_to(PODS)
    eventually(lambda: database.statuses(mixed) == ["RUNNING"] * PODS, "every pod has a task")
    long, short = mixed[::2], mixed[1::2]
    busy = {result.worker_ids[0] for result in long}
    database.open_gate(2)
    database.finish(short)
    worker.scales_to(len(long))

    assert worker.pod_names == busy
    assert database.statuses(long) == ["RUNNING"] * len(long)
    # The pods that have stayed have no marks, or no longer have any.
    eventually(lambda: not marked(worker), "no pod is marked any more")
    database.open_gate(1)
    database.finish(long)
    worker.scales_to(0)
    assert [len(result.worker_ids) for result in mixed] == [1] * PODS
    assert database.statuses(mixed) == ["SUCCESSFUL"] * PODS


def test_more_busy_pods_than_are_wanted_are_all_kept(make_worker: MakeWorker, database: Database) -> None:
    worker = make_worker(scaling={"maxReplicas": 3, "tasksPerReplica": 1})
    database.close_gate(1)
    results = database.enqueue(chores.wait_at, 1, times=3)
    eventually(lambda: database.statuses(results) == ["RUNNING"] * 3, "every pod has a task")
    pods = worker.pod_names
    worker.patch(scaling={"tasksPerReplica": 3})
    message = worker.becomes("ScalingActive", "True", "BusyPodsKept")

    assert message == "1 wanted; 2 more pods kept because they run tasks"
    always(lambda: worker.pod_names == pods and worker.replicas == 3, "all pods work on", seconds=5)
    database.open_gate(1)
    database.finish(results)
    worker.scales_to(0)
    assert database.statuses(results) == ["SUCCESSFUL"] * 3


def marked(worker: TaskWorker) -> list[str]:
    return [pod["metadata"]["name"] for pod in worker.pods if COST in pod["metadata"].get("annotations", {})]
