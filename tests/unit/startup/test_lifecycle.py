"""The whole operator, wired as in a cluster, from its first watch to its exit code."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from tests.unit.bench import URL, encoded
from tests.unit.elections import LeaseServer, Line
from tests.unit.fakes import FakeDatabases, FakeKube, Permit, refusal, worker_manifest
from tests.unit.simulation import simulated

from django_task_operator import telemetry
from django_task_operator.cluster.election import Elector, LeasePermit, held
from django_task_operator.spec import Key
from django_task_operator.startup.lifecycle import RETRY_SECONDS
from django_task_operator.startup.options import Options
from django_task_operator.startup.wiring import Outside, assemble

if TYPE_CHECKING:
    from collections.abc import Callable

    from django_task_operator.startup.lifecycle import Observe, WatchWorkers

LEASE = Key(namespace="ops", name="operator")
A_WHILE = 0.5


class Life:
    """An operator that runs, between a fake API server and fake databases."""

    def __init__(self, server: LeaseServer | None = None, watch_workers: WatchWorkers | None = None) -> None:
        self.kube, self.databases = FakeKube(), FakeDatabases()
        self.kube.create(
            "secrets", {"metadata": {"name": "shop-db", "namespace": "shop"}, "data": encoded(URL)}
        )
        self.line = elector = None
        if server:
            self.line, elector = candidate(server, "operator-1")
        self.operator = assemble(
            Options(instance="operator-1"),
            Outside(
                kube=self.kube,  # type: ignore[arg-type]
                permit=self.line.permit if self.line else Permit(),
                elector=elector,
                databases=self.databases,  # type: ignore[arg-type]
                watch_workers=watch_workers or self.kube.watch_workers,
                clock=asyncio.get_running_loop().time,
            ),
        )
        self.stopping = asyncio.Event()
        self.running: asyncio.Task[int] | None = None

    def start(self) -> asyncio.Task[int]:
        self.running = asyncio.create_task(self.operator.run(self.stopping))
        return self.running

    async def stop(self) -> int:
        assert self.running
        self.stopping.set()
        return await self.running


def candidate(server: LeaseServer, name: str) -> tuple[Line, Elector]:
    server.pods.setdefault(name, {})
    line = Line(server)
    line.permit = permit = LeasePermit(asyncio.get_running_loop().time)
    return line, Elector(line, LEASE, name, permit)  # type: ignore[arg-type]


@simulated
async def test_a_worker_is_served_until_the_operator_is_told_to_stop() -> None:
    life = Life()
    life.kube.create("worker", worker_manifest("emails"))
    assert life.operator.is_alive
    assert not life.operator.is_ready

    life.start()
    await asyncio.sleep(A_WHILE)
    assert life.operator.is_ready
    life.databases.sample(42)
    await asyncio.sleep(A_WHILE)
    deployment = life.kube.read("deployments", "shop", "emails")
    assert deployment
    assert deployment["spec"]["replicas"] == 5

    # The watches wake it up: changes by others are undone.
    life.kube.edit("deployments", "shop", "emails", {"spec": {"replicas": 1}})
    await asyncio.sleep(A_WHILE)
    deployment = life.kube.read("deployments", "shop", "emails")
    assert deployment
    assert deployment["spec"]["replicas"] == 5

    life.kube.requests.clear()
    assert await life.stop() == 0
    assert life.databases.is_closed
    assert life.databases.subscriptions == []
    assert life.kube.requests == [], "everything that runs is left alone"


@simulated
async def test_without_an_election_the_operator_leads() -> None:
    """The alert about an operator without a leader is for it, too."""
    telemetry.LEADER.set(0)
    life = Life()
    life.start()
    await asyncio.sleep(A_WHILE)

    assert telemetry.LEADER._value.get() == 1
    assert await life.stop() == 0


@simulated
async def test_a_worker_that_comes_later_and_goes() -> None:
    life = Life()
    life.start()
    await asyncio.sleep(A_WHILE)
    life.kube.create("worker", worker_manifest("emails"))
    await asyncio.sleep(A_WHILE)
    assert len(life.operator.fleet) == 1

    life.kube.delete("worker", "shop", "emails")
    await asyncio.sleep(A_WHILE)
    assert len(life.operator.fleet) == 0
    assert await life.stop() == 0


@pytest.mark.parametrize(
    "kind",
    [
        "deployments",
        "replicasets",
        "pods",
        "jobs",
        "horizontalpodautoscalers",
        "poddisruptionbudgets",
        "cronjobs",
    ],
)
@simulated
async def test_nothing_is_done_before_every_watch_has_told_what_there_is(kind: str) -> None:
    life = Life()
    life.kube.create("worker", worker_manifest("emails"))
    life.kube.silent = {kind}
    life.start()
    await asyncio.sleep(3600)

    assert life.operator.is_alive
    assert not life.operator.is_ready
    assert len(life.operator.fleet) == 0
    assert await life.stop() == 0


@simulated
async def test_an_api_server_that_comes_later() -> None:
    life = Life()
    life.kube.down = ConnectionRefusedError("nobody there")
    life.start()
    await asyncio.sleep(60)
    assert not life.operator.is_ready

    life.kube.down = None
    await asyncio.sleep(10)
    assert life.operator.is_ready
    assert await life.stop() == 0


@simulated
async def test_a_definition_that_is_installed_later(caplog: pytest.LogCaptureFixture) -> None:
    life = Life()
    life.kube.refuse["list workers"] = [refusal(404), refusal(404)]
    life.start()
    await asyncio.sleep(2 * RETRY_SECONDS - 0.1)
    assert not life.operator.is_ready

    await asyncio.sleep(A_WHILE)
    assert life.operator.is_ready
    assert caplog.messages.count("workers not listed") == 2
    assert await life.stop() == 0


@simulated
async def test_one_that_does_not_lead_stands_by_and_writes_nothing() -> None:
    server = LeaseServer()
    _, leader = candidate(server, "operator-0")
    leading = asyncio.create_task(leader.run())
    await leader.leading.wait()
    life = Life(server)
    life.kube.create("worker", worker_manifest("emails"))
    life.start()
    await asyncio.sleep(60)

    assert life.operator.is_ready
    assert len(life.operator.fleet) == 0
    assert {request.partition(" ")[0] for request in life.kube.requests} == {"watch", "list"}

    leading.cancel()
    await asyncio.wait([leading])
    await leader.resign()
    await asyncio.sleep(1 + A_WHILE)
    assert server.holder == "operator-1"
    assert len(life.operator.fleet) == 1
    assert life.operator.is_ready
    assert await life.stop() == 0
    assert server.holder == "", "another may lead at once"


@simulated
async def test_one_that_stands_by_can_be_stopped() -> None:
    server = LeaseServer()
    _, leader = candidate(server, "operator-0")
    leading = asyncio.create_task(leader.run())
    await leader.leading.wait()
    life = Life(server)
    life.start()
    await asyncio.sleep(10)

    assert await life.stop() == 0
    assert server.holder == "operator-0"
    leading.cancel()


@simulated
async def test_nobody_stands_for_election_before_it_could_serve() -> None:
    server = LeaseServer()
    life = Life(server)
    life.kube.silent = {"pods"}
    life.start()
    await asyncio.sleep(60)

    assert server.lease is None
    assert not life.operator.is_ready
    assert await life.stop() == 0


@simulated
async def test_one_that_loses_the_lease_ends() -> None:
    server = LeaseServer()
    life = Life(server)
    life.kube.create("worker", worker_manifest("emails"))
    running = life.start()
    await asyncio.sleep(A_WHILE)
    assert len(life.operator.fleet) == 1
    assert server.lease
    server.put(held(server.lease, LEASE, "thief", datetime.now(UTC)))

    assert await asyncio.wait_for(running, 5) == 1
    assert life.line
    assert life.line.is_cut
    assert len(life.operator.fleet) == 0
    assert life.databases.is_closed
    assert server.holder == "thief"


@simulated
async def test_one_whose_watch_of_the_workers_ends_is_not_alive() -> None:
    ended = asyncio.Event()

    async def watch(observe: Observe, ready: Callable[[], None]) -> None:
        ready()
        await ended.wait()

    life = Life(watch_workers=watch)
    running = life.start()
    await asyncio.sleep(A_WHILE)
    assert life.operator.is_ready
    assert life.operator.is_alive

    ended.set()
    assert await asyncio.wait_for(running, 5) == 1
    assert not life.operator.is_alive
    assert life.databases.is_closed


@simulated
async def test_a_bug_in_a_part_is_not_hidden() -> None:
    async def watch(observe: Observe, ready: Callable[[], None]) -> None:
        raise ZeroDivisionError

    life = Life(watch_workers=watch)
    with pytest.raises(ExceptionGroup) as raised:
        await asyncio.wait_for(life.start(), 5)

    assert raised.group_contains(ZeroDivisionError)
    assert life.databases.is_closed
