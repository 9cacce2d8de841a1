"""Several nodes: pods spread over them, and move when one is drained or lost."""

from __future__ import annotations

import fcntl
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.e2e.conftest import SPARE, SPEC, is_spare
from tests.e2e.harness import eventually
from tests.e2e.postgres import chores
from tests.e2e.release import in_node, is_kind
from tests.waiting import PATIENTLY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Kubectl
    from tests.e2e.harness import Api, Manifest, TaskWorker
    from tests.e2e.postgres import Database

type MakeWorker = Callable[..., TaskWorker]

GRACE = 5
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"


def takes_pods(node: Manifest) -> bool:
    """Whether pods that tolerate the one taint can start there."""
    conditions = {each["type"]: each["status"] for each in node["status"]["conditions"]}
    # A node that was cordoned keeps a taint for a moment after it no longer is.
    taints = [taint["key"] for taint in node["spec"].get("taints", ())]
    return conditions["Ready"] == "True" and taints == [SPARE]


def spare_nodes(api: Api) -> list[Manifest]:
    return [node for node in api.items("/api/v1/nodes") if is_spare(node)]


@pytest.fixture
def nodes(api: Api, kubectl: Kubectl) -> Iterator[list[str]]:
    """The nodes that are there to be drained and killed, for one test at a time, in whichever process."""
    found = [node["metadata"]["name"] for node in spare_nodes(api)]
    if len(found) != 2 or not all(map(is_kind, found)):
        pytest.skip("only the cluster that `make cluster` makes has nodes to spare")
    with (Path(tempfile.gettempdir()) / "django-task-operator-spare-nodes.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Whatever another test has left of them.
        kubectl("uncordon", *found)
        kubectl.run("taint", "node", *found, f"{OUT_OF_SERVICE}-")
        eventually(lambda: all(map(takes_pods, spare_nodes(api))), "pods can start on every node")
        yield found


@pytest.fixture
def elsewhere(make_worker: MakeWorker, nodes: list[str]) -> MakeWorker:
    """Makes a worker whose pods run on those nodes, and are given up soon after their node is lost."""
    lost = [
        {
            "key": f"node.kubernetes.io/{key}",
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": 2,
        }
        for key in ("not-ready", "unreachable")
    ]
    here = {"key": "kubernetes.io/hostname", "operator": "In", "values": nodes}
    pod = {
        **SPEC["podTemplate"]["spec"],
        "tolerations": [{"key": SPARE, "operator": "Exists"}, *lost],
        "affinity": {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [{"matchExpressions": [here]}]
                }
            }
        },
    }

    def make(**spec: Any) -> TaskWorker:
        return make_worker(**spec, podTemplate={"spec": pod}, terminationGracePeriodSeconds=120)

    return make


def places(worker: TaskWorker) -> dict[str, str]:
    """The node of each pod."""
    return {pod["metadata"]["name"]: pod["spec"].get("nodeName", "") for pod in worker.pods}


def start_tasks(database: Database, number: int) -> dict[str, tuple[int, Any]]:
    """Tasks that each wait at a gate of their own, once all run: gate and task, by pod."""
    for gate in range(1, number + 1):
        database.close_gate(gate)
    results = [database.enqueue(chores.wait_at, gate)[0] for gate in range(1, number + 1)]
    eventually(lambda: database.statuses(results) == ["RUNNING"] * number, "every task runs")
    return {result.worker_ids[-1]: (gate, result) for gate, result in enumerate(results, start=1)}


def test_pods_are_on_both_nodes_and_the_idle_ones_go_although_they_share_one(
    elsewhere: MakeWorker, database: Database, nodes: list[str]
) -> None:
    worker = elsewhere(scaling={"minReplicas": 1, "maxReplicas": 4, "tasksPerReplica": 1})
    worker.scales_to(1)
    tasks = start_tasks(database, 4)
    where = places(worker)
    assert where.keys() == tasks.keys()
    # And in both zones: the scheduler spreads the pods of a Deployment by itself.
    assert set(where.values()) == set(nodes)

    # By itself, Kubernetes would leave a pod on each node.
    idle = {pod for pod, node in where.items() if node == nodes[1]}
    for pod in idle:
        database.open_gate(tasks[pod][0])
    database.finish([tasks[pod][1] for pod in idle])
    worker.scales_to(4 - len(idle))
    assert worker.pod_names == where.keys() - idle
    for pod in where.keys() - idle:
        database.open_gate(tasks[pod][0])
    worker.scales_to(1)
    assert database.statuses([result for _, result in tasks.values()]) == ["SUCCESSFUL"] * 4
    assert all(result.worker_ids == [pod] for pod, (_, result) in tasks.items())


def test_a_cordoned_node_keeps_its_pods_and_a_drained_one_lets_them_finish(
    elsewhere: MakeWorker, database: Database, kubectl: Kubectl, nodes: list[str]
) -> None:
    worker = elsewhere(scaling={"minReplicas": 1, "maxReplicas": 2})
    tasks = start_tasks(database, 1)
    ((pod, (gate, result)),) = tasks.items()
    node = places(worker)[pod]
    (other,) = set(nodes) - {node}
    try:
        kubectl("cordon", node)
        worker.patch(scaling={"minReplicas": 2})
        worker.scales_to(2)
        assert set(places(worker).values()) == {node, other}
        assert pod in worker.pod_names

        selector = f"--pod-selector=djangotasks.dev/worker={worker.name}"
        drain = ("drain", node, selector, "--delete-emptydir-data", "--ignore-daemonsets")
        # It waits for the pod to end, so it must not be waited for.
        kubectl.run(*drain, "--timeout=3s")
        eventually(lambda: set(places(worker).values()) == {other}, "its successor is on the other node")
        worker.scales_to(2)
        (later,) = database.finish(database.enqueue(chores.add, 1, 2))
        assert later.worker_ids[0] in worker.pod_names
        assert database.statuses([result]) == ["RUNNING"]
        database.open_gate(gate)
        database.finish([result])
        assert (result.status, result.worker_ids) == ("SUCCESSFUL", [pod])
        assert "drained" in kubectl(*drain, PATIENTLY)
    finally:
        kubectl("uncordon", node)


class Machine:
    """A node as a machine that loses its power, and gets it back."""

    def __init__(self, kubectl: Kubectl, api: Api, node: str) -> None:
        self.node = node
        self._kubectl = kubectl
        self._api = api

    def die(self) -> None:
        in_node(self.node, "systemctl", "stop", "kubelet")
        kill = "ctr -n k8s.io tasks ls -q | xargs -rn 1 ctr -n k8s.io tasks kill -s SIGKILL || true"
        in_node(self.node, "sh", "-c", kill)

    def is_ready(self) -> bool:
        found = self._api.get(f"/api/v1/nodes/{self.node}")
        conditions = found["status"]["conditions"] if found else ()
        return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)

    def written_off(self) -> None:
        """Say what an administrator says, or a cloud: that nothing runs there any more."""
        self._kubectl("taint", "node", self.node, f"{OUT_OF_SERVICE}=nodeshutdown:NoExecute")

    def come_back(self) -> None:
        self._kubectl.run("taint", "node", self.node, f"{OUT_OF_SERVICE}-")
        in_node(self.node, "systemctl", "start", "kubelet")
        eventually(self.is_ready, "the node is back")


@pytest.fixture
def machines(kubectl: Kubectl, api: Api, nodes: list[str]) -> Iterator[dict[str, Machine]]:
    machines = {node: Machine(kubectl, api, node) for node in nodes}
    yield machines
    for machine in machines.values():
        machine.come_back()


def test_the_tasks_of_a_node_that_is_lost_are_given_back_and_run_on_another(
    elsewhere: MakeWorker, database: Database, here: Kubectl, machines: dict[str, Machine]
) -> None:
    worker = elsewhere(
        scaling={"minReplicas": 2, "maxReplicas": 2}, orphans={"policy": "Requeue", "graceSeconds": GRACE}
    )
    tasks = start_tasks(database, 2)
    where = places(worker)
    # The spread is soft, so it may be both.
    node = min(where.values())
    lost = {pod for pod in where if where[pod] == node}
    machine = machines[node]
    machine.die()

    # Kubernetes gives a node 50 s.
    eventually(lambda: not lost & worker.pod_names, "its pods are given up")
    worker.scales_to(2)
    assert node not in places(worker).values()
    # As long as nobody says that the node is off, the tasks may run there.
    results = [tasks[pod][1] for pod in lost]
    assert database.statuses(results) == ["RUNNING"] * len(lost)
    assert {result.worker_ids[-1] for result in results} == lost
    machine.written_off()

    def run_elsewhere() -> bool:
        database.refresh(results)
        return all(each.status == "RUNNING" and each.worker_ids[-1] not in where for each in results)

    eventually(run_elsewhere, "the tasks run on the other node")
    for gate, _ in tasks.values():
        database.open_gate(gate)
    database.finish([task for _, task in tasks.values()])
    assert database.statuses([task for _, task in tasks.values()]) == ["SUCCESSFUL"] * 2
    assert all(tasks[pod][1].worker_ids == [pod] for pod in where.keys() - lost)
    assert {result.worker_ids[-1] for result in results} <= worker.pod_names
    eventually(lambda: len(worker.events("TaskRequeued")) == len(lost), "an event for each")
    machine.come_back()
    for pod in lost:
        eventually(partial(is_gone, here, pod), "nothing of it is left")


def is_gone(here: Kubectl, pod: str) -> bool:
    return "NotFound" in here.run("get", "pod", pod).stderr
