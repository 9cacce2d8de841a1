"""What must not affect workers: the operator is killed, or the API server does not answer."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from tests.conftest import new_namespace
from tests.e2e.harness import Unavailable, deployment_writes, eventually
from tests.e2e.postgres import chores
from tests.e2e.release import in_node
from tests.waiting import PATIENTLY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Kubectl
    from tests.e2e.harness import Api, TaskWorker
    from tests.e2e.postgres import Database
    from tests.e2e.release import Release

pytestmark = pytest.mark.alone

type MakeWorker = Callable[..., TaskWorker]

AWAY_SECONDS = 60


@pytest.mark.parametrize("moment", ["enqueued", "scaled", "running"])
def test_the_operator_killed_under_load_changes_nothing_that_runs(
    make_worker: MakeWorker, database: Database, here: Kubectl, operator: Release, moment: str
) -> None:
    worker = make_worker()
    worker.scales_to(0)
    database.close_gate(1)
    with deployment_writes(here) as writes:
        eventually(writes, "the watch has begun")
        results = database.enqueue(chores.wait_at, 1, times=5)
        if moment == "scaled":
            eventually(lambda: worker.replicas, "replicas")
        elif moment == "running":
            eventually(lambda: "RUNNING" in database.statuses(results), "a task runs")
        operator.kill()
        worker.scales_to(3)
        pods = worker.pod_names
        assert operator.incarnation
        eventually(lambda: database.statuses(results).count("RUNNING") == 3, "three tasks run")
        database.open_gate(1)
        database.finish(results)
        assert [replicas for _, replicas in writes()][:2] == [0, 3]
        worker.scales_to(0)
        down = [replicas for _, replicas in writes()][1:]

    assert {result.worker_ids[0] for result in results} <= pods
    assert down == sorted(down, reverse=True)
    assert database.statuses(results) == ["SUCCESSFUL"] * 5
    assert len(worker.events("ScaledUp")) <= 1


@pytest.fixture
def api_server(api: Api, kind_node: str, kubectl: Kubectl) -> Iterator[ApiServer]:
    server = ApiServer(api, kind_node)
    yield server
    server.come_back()
    _wait_for_the_controllers(kubectl)


def _wait_for_the_controllers(kubectl: Kubectl) -> None:
    """Leave the next test, or a second try of this one, a cluster that makes accounts and pods.

    The controllers and the scheduler each wait for up to a minute between their tries for the API server.
    """
    with new_namespace(kubectl) as name:
        within = kubectl.within(name)
        within("wait", "--for=create", "serviceaccount/default", PATIENTLY)
        within("create", "deployment", "probe", "--image=shop:dev", "--", "sleep", "infinity")
        within("rollout", "status", "deployment/probe", PATIENTLY)


class ApiServer:
    """The API server of a kind cluster, whose kubelet runs the manifests in a directory."""

    MANIFEST = "/etc/kubernetes/manifests/kube-apiserver.yaml"
    ASIDE = "/etc/kubernetes/kube-apiserver.yaml"

    def __init__(self, api: Api, node: str) -> None:
        self._api = api
        self._node = node

    def answers(self) -> bool:
        try:
            return self._api.get("/api/v1/namespaces/default") is not None
        except Unavailable:
            return False

    def go_away(self) -> None:
        in_node(self._node, "mv", self.MANIFEST, self.ASIDE)
        eventually(lambda: not self.answers(), "the API server is away")

    def come_back(self) -> None:
        in_node(self._node, "sh", "-c", f"if [ -e {self.ASIDE} ]; then mv {self.ASIDE} {self.MANIFEST}; fi")
        eventually(self.answers, "the API server is back")


def test_an_api_server_away_for_a_minute_costs_no_task(
    make_worker: MakeWorker, database: Database, operator: Release, api_server: ApiServer
) -> None:
    worker = make_worker()
    database.close_gate(1)
    running = database.enqueue(chores.wait_at, 1)
    worker.scales_to(1)
    pods = worker.pod_names
    eventually(lambda: database.statuses(running) == ["RUNNING"], "the task runs")
    api_server.go_away()
    away_since = time.monotonic()
    arrived = database.enqueue(chores.wait_at, 1, times=4)
    # Pods need no API server.
    database.open_gate(1)
    database.finish(running)
    database.close_gate(2)
    late = database.enqueue(chores.wait_at, 2, times=2)
    eventually(lambda: time.monotonic() - away_since >= AWAY_SECONDS, "a minute")
    api_server.come_back()

    # An API server that ends takes its address out of its Service, and kube-proxy puts it back only when
    # its own retry comes: pods reach the server up to half a minute after it answers us. The controllers
    # and the scheduler, which make the pods, wait for up to a minute between their tries.
    eventually(lambda: worker.replicas == 2, "two replicas are asked for")
    assert pods <= worker.pod_names
    database.open_gate(2)
    assert database.statuses(database.finish(arrived + late)) == ["SUCCESSFUL"] * 6
    eventually(lambda: worker.replicas == 0, "no replica is asked for")
    eventually(lambda: worker.status["desiredReplicas"] == 0, "the status says so")
    eventually(lambda: operator.pod, "the operator is ready")
