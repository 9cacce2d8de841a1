"""An election on a real API server: how it treats our Lease, labels, and late writes."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from kubernetes.aio.client.exceptions import ApiException

from django_task_operator.cluster.election import LEADER_LABEL, LOOK_SECONDS, Elector, LeasePermit
from django_task_operator.cluster.kube import Kube
from django_task_operator.cluster.transport import CONNECT_SECONDS
from django_task_operator.spec import Key

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.conftest import Kubectl

# A machine under load is slow: no test here is about seconds.
PATIENCE = 60


@pytest.fixture
def permits() -> list[LeasePermit]:
    return [LeasePermit(), LeasePermit()]


@pytest_asyncio.fixture
async def kubes(kubeconfig: Path, permits: list[LeasePermit]) -> AsyncIterator[list[Kube]]:
    made = [await Kube.connect(str(kubeconfig), permit) for permit in permits]
    yield made
    for kube in made:
        await kube.close()


def pod(name: str) -> dict[str, Any]:
    # No node takes it: nothing has to run.
    spec = {"schedulingGates": [{"name": "example.org/never"}], "containers": [{"name": "a", "image": "a"}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def labelled(here: Kubectl) -> list[str]:
    return here("get", "pods", f"--selector={LEADER_LABEL}=operator", "--output=name").split()


async def becomes_labelled(here: Kubectl, alone: str) -> None:
    # In a thread: the electors share this event loop.
    for _ in itertools.count():
        if await asyncio.to_thread(labelled, here) == [alone]:
            return
        await asyncio.sleep(LOOK_SECONDS)


async def test_one_leads_and_hands_over(
    kubes: list[Kube], permits: list[LeasePermit], kubectl: Kubectl, namespace: str
) -> None:
    here = kubectl.within(namespace)
    for name in ("a", "b"):
        here("create", "-f", "-", manifest=pod(name))
    key = Key(namespace=namespace, name="operator")
    a, b = (
        Elector(kube, key, name, permit)
        for kube, name, permit in zip(kubes, ("a", "b"), permits, strict=True)
    )

    async with asyncio.timeout(PATIENCE):
        leading = asyncio.create_task(a.run())
        await a.leading.wait()
        following = asyncio.create_task(b.run())
        await b.standing_by.wait()
        await becomes_labelled(here, "pod/a")
        assert permits[1].seconds() == 0
        leading.cancel()
        await asyncio.wait([leading])
        await a.resign()
        await b.leading.wait()
        await becomes_labelled(here, "pod/b")
        following.cancel()
        await asyncio.wait([following])

    spec = json.loads(here("get", "lease", "operator", "--output=json"))["spec"]
    assert spec["holderIdentity"] == "b"
    assert spec["leaseDurationSeconds"] == 5
    assert spec["leaseTransitions"] >= 1
    assert spec["acquireTime"] <= spec["renewTime"]


async def test_the_api_server_gives_a_write_up_that_comes_too_late(
    kubeconfig: Path, kubectl: Kubectl, namespace: str
) -> None:
    class Permit:
        granted = CONNECT_SECONDS + 0.000001

        def seconds(self) -> float:
            return self.granted

    permit, here = Permit(), kubectl.within(namespace)
    kube = await Kube.connect(str(kubeconfig), permit)
    here("create", "-f", "-", manifest=pod("a"))

    with pytest.raises(ApiException) as refused:
        await kube.label_pod(Key(namespace=namespace, name="a"), LEADER_LABEL, "operator")

    assert refused.value.status == 504
    assert labelled(here) == []
    permit.granted = CONNECT_SECONDS + 60
    await kube.label_pod(Key(namespace=namespace, name="a"), LEADER_LABEL, "operator")
    assert labelled(here) == ["pod/a"]
    await kube.close()
