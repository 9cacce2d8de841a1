"""Two operators: one is the leader, and the other takes over, whatever happens to the first."""

from __future__ import annotations

import json
import logging
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from tests.conftest import ROOT
from tests.e2e.harness import deployment_writes, eventually
from tests.e2e.postgres import chores
from tests.e2e.release import LEADER_LABEL, NAME, NAMESPACE, Release, in_node, is_kind
from tests.waiting import PATIENTLY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Kubectl
    from tests.e2e.harness import TaskWorker
    from tests.e2e.postgres import Database

pytestmark = pytest.mark.alone

log = logging.getLogger(__name__)

type MakeWorker = Callable[..., TaskWorker]
type Pod = dict[str, Any]


@dataclass(frozen=True)
class Takeover:
    """When another operator took over, and how slow the API server was at that time."""

    since: datetime
    slowest: float

    def took(self, after: datetime) -> float:
        """The seconds that it took, minus the time that a busy API server took to answer."""
        took = (self.since - after).total_seconds()
        log.info("%.1f s until another leads; the API server took up to %.1f s", took, self.slowest)
        return took - self.slowest


@dataclass(frozen=True)
class Pair:
    """The release with two replicas."""

    release: Release

    @property
    def lease(self) -> dict[str, Any]:
        found = self.release.api.get(f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/{NAME}")
        assert found
        spec: dict[str, Any] = found["spec"]
        return spec

    def settled(self) -> tuple[Pod, Pod]:
        """The leader and the other operator, once both are ready."""

        def both() -> tuple[Pod, Pod] | None:
            pods, leader = self.release.ready_pods, self.release.pod
            others = [pod for pod in pods if leader and pod["metadata"]["uid"] != leader["metadata"]["uid"]]
            holds = leader and self.lease["holderIdentity"] == leader["metadata"]["name"]
            return (leader, others[0]) if leader and holds and len(others) == 1 else None

        found = eventually(both, "one leads and one stands by")
        assert found
        return found

    def leads(self, pod: Pod) -> Takeover:
        """Wait until this pod is the leader, and the metrics are read from it."""
        name, address = pod["metadata"]["name"], pod["status"]["podIP"]
        slowest = 0.0

        def holds() -> bool:
            nonlocal slowest
            asked_at = time.monotonic()
            holder = self.lease["holderIdentity"]
            slowest = max(slowest, time.monotonic() - asked_at)
            return bool(holder == name)

        eventually(holds, f"{name} leads")
        takeover = Takeover(datetime.fromisoformat(self.lease["acquireTime"]), slowest)
        eventually(lambda: self.scraped == {address}, f"the metrics Service points at {name} alone")
        labelled = [each for each in self.release.pods if LEADER_LABEL in each["metadata"]["labels"]]
        assert [each["metadata"]["name"] for each in labelled] == [name]
        eventually(lambda: self.gauge(pod) == 1, f"the gauge of {name}")
        return takeover

    def restarted(self, pod: Pod) -> Pod:
        """Wait until the container of a pod has been started again."""
        uid, before = pod["metadata"]["uid"], pod["status"]["containerStatuses"][0]["restartCount"]

        def again() -> Pod | None:
            mine = (each for each in self.release.ready_pods if each["metadata"]["uid"] == uid)
            return next(
                (p for p in mine if p["status"]["containerStatuses"][0]["restartCount"] > before), None
            )

        found = eventually(again, f"{pod['metadata']['name']} runs again")
        assert found
        return found

    @property
    def scraped(self) -> set[str]:
        """The pod to which the metrics Service leads."""
        slices = f"/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices"
        found = self.release.api.items(f"{slices}?labelSelector=kubernetes.io/service-name={NAME}-metrics")
        return {
            address
            for piece in found
            for endpoint in piece["endpoints"] or ()
            if endpoint["conditions"].get("ready")
            for address in endpoint["addresses"]
        }

    def gauge(self, pod: Pod) -> float | None:
        path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod['metadata']['name']}:8080/proxy/metrics"
        answer = self.release.kubectl.run("get", "--raw", path)
        lines = dict(line.rsplit(" ", 1) for line in answer.stdout.splitlines() if not line.startswith("#"))
        return float(lines["django_task_operator_leader"]) if lines else None

    def told(self, pod: Pod, message: str, *more: str) -> dict[str, Any]:
        """Wait for a line in a pod's log."""
        lines = self.release.kubectl("logs", pod["metadata"]["name"], *more).splitlines()
        (found,) = (line for line in map(json.loads, lines) if line["msg"] == message)
        return dict(found)

    def signal(self, pod: Pod, name: str) -> datetime:
        """Send a signal to the operator in a pod; return the time at which it was sent."""
        container = pod["status"]["containerStatuses"][0]["containerID"].removeprefix("containerd://")
        kill = f"ctr --namespace=k8s.io tasks kill -s {name} {container} && date +%s.%N"
        return datetime.fromtimestamp(float(in_node(pod["spec"]["nodeName"], "sh", "-c", kill)), UTC)

    @contextmanager
    def cut_off(self, pod: Pod) -> Iterator[None]:
        """Drop every packet between a pod and the API server, also those of existing connections."""
        address = pod["status"]["podIP"]
        rules = [
            f"INPUT --source {address} --protocol tcp --dport 6443 --jump DROP",
            f"OUTPUT --destination {address} --protocol tcp --sport 6443 --jump DROP",
        ]
        node = pod["spec"]["nodeName"]
        try:
            for rule in rules:
                in_node(node, "iptables", "--wait", "--insert", *rule.split())
            yield
        finally:
            for rule in rules:
                in_node(node, "iptables", "--wait", "--delete", *rule.split())


def logged_at(line: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(line["ts"])


@pytest.fixture(scope="module")
def pair(installed: Release) -> Iterator[Pair]:
    """The release with two replicas; afterwards it is as `make install` makes it."""
    node = installed.api.items("/api/v1/nodes")[0]["metadata"]["name"]
    if not is_kind(node):
        pytest.skip("only a kind cluster lets us into its node")
    try:
        installed.helm(
            *("upgrade", NAME, str(ROOT / "charts" / NAME), "--reuse-values", "--set=replicas=2"),
            *("--wait", PATIENTLY),
        )
        yield Pair(installed)
    finally:
        installed.install()
        eventually(lambda: len(installed.pods) == 1 and installed.pod, "one operator again")


def test_a_killed_leader_is_replaced_while_tasks_run(
    pair: Pair, make_worker: MakeWorker, database: Database, here: Kubectl
) -> None:
    leader, other = pair.settled()
    eventually(lambda: (pair.gauge(leader), pair.gauge(other)) == (1, 0), "the gauges")
    assert pair.scraped == {leader["status"]["podIP"]}
    worker = make_worker()
    worker.scales_to(0)
    database.close_gate(1)
    with deployment_writes(here) as writes:
        eventually(writes, "the watch has begun")
        results = database.enqueue(chores.wait_at, 1, times=2)
        eventually(lambda: "RUNNING" in database.statuses(results), "a task runs")
        killed_at = pair.signal(leader, "SIGKILL")
        # Or the container would be started again, and lead before the other may.
        pair.release.kubectl("delete", "pod", leader["metadata"]["name"], "--force", "--grace-period=0")
        results += database.enqueue(chores.wait_at, 1, times=3)
        takeover = pair.leads(other)
        worker.scales_to(3)
        database.open_gate(1)
        database.finish(results)
        worker.scales_to(0)
        replicas = [number for _, number in writes()]

    assert takeover.took(killed_at) <= 7
    assert database.statuses(results) == ["SUCCESSFUL"] * 5
    top = replicas.index(3)
    assert replicas[: top + 1] == sorted(replicas[: top + 1])
    assert replicas[top:] == sorted(replicas[top:], reverse=True)


def test_an_orderly_stop_hands_over_within_two_seconds(pair: Pair) -> None:
    leader, other = pair.settled()
    stopped_at = pair.signal(leader, "SIGTERM")
    takeover = pair.leads(other)

    assert takeover.took(stopped_at) <= 2
    assert pair.told(pair.restarted(leader), "released", "--previous")


def test_a_leader_cut_off_steps_down_before_another_leads(
    pair: Pair, make_worker: MakeWorker, database: Database, here: Kubectl
) -> None:
    leader, other = pair.settled()
    worker = make_worker()
    worker.scales_to(0)
    database.close_gate(1)
    with deployment_writes(here) as writes:
        eventually(writes, "the watch has begun")
        with pair.cut_off(leader):
            # The old leader sees it, and tries to write.
            results = database.enqueue(chores.wait_at, 1)
            takeover = pair.leads(other)
            eventually(lambda: worker.replicas == 1, "one replica is asked for")
            results += database.enqueue(chores.wait_at, 1, times=4)
            worker.scales_to(3)
        # What was on its way from the old leader would arrive now.
        again = pair.restarted(leader)
        database.open_gate(1)
        database.finish(results)
        worker.scales_to(0)
        replicas = [number for _, number in writes()]

    stepped_down = pair.told(again, "stepped down", "--previous")
    assert logged_at(stepped_down) < takeover.since
    ended = again["status"]["containerStatuses"][0]["lastState"]["terminated"]
    assert ended["exitCode"] == 1
    assert pair.told(again, "standing by")["leader"] == other["metadata"]["name"]
    assert replicas[:3] == [0, 1, 3]
    assert replicas[2:] == sorted(replicas[2:], reverse=True)
    (event, *more) = worker.tells("ScaledUp")
    assert {e["reportingController"] for e in (event, *more)} == {"djangotasks.dev/django-task-operator"}
    assert {e["reportingInstance"] for e in (event, *more)} == {other["metadata"]["name"]}
    assert database.statuses(results) == ["SUCCESSFUL"] * 5
