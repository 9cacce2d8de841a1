"""However an API server refuses requests, or someone undoes them, the whole operator sends few of them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from tests.unit.fakes import refusal, worker_manifest
from tests.unit.simulation import simulated
from tests.unit.startup.test_lifecycle import Life

if TYPE_CHECKING:
    from collections.abc import Callable

    from django_task_operator.spec import Manifest

MINUTES = 10
# Of one worker. In an ordinary minute it is 7, most of them for the counts in its status.
MOST_IN_A_MINUTE = 30

TERMINATING = refusal(
    403,
    'deployments.apps "emails" is forbidden: unable to create new content in namespace shop because it is'
    " being terminated",
)
TOO_MANY = refusal(429, "Too many requests, please try again later.")
TOO_LARGE = refusal(413, "Request entity too large: limit is 3145728")
TOO_LARGE_FOR_ETCD = refusal(500, "etcdserver: request is too large")
INVALID = refusal(422, "spec.template.spec.containers[0].image: Required value")


class Always(dict[str, list[BaseException]]):
    """Always refuses requests with one of these names."""

    def __init__(self, error: BaseException, *begins: str) -> None:
        super().__init__()
        self.error, self.begins = error, begins

    def get(self, name: str, _: Any = None) -> Any:
        return [self.error] if name.startswith(self.begins) else []


async def minutes(life: Life) -> list[int]:
    """Return the number of requests in each minute, while tasks come and go every second."""
    counts = []
    for _ in range(MINUTES):
        life.kube.requests.clear()
        for second in range(60):
            life.databases.sample(42 + second % 2)
            await asyncio.sleep(1)
        counts.append(len(life.kube.requests))
    return counts


def delete_deployment(life: Life) -> None:
    life.kube.delete("deployments", "shop", "emails")


def another_image(life: Life) -> None:
    life.kube.edit("worker", "shop", "emails", {"spec": {"image": "shop:2"}})


def of_a_newer_definition(life: Life) -> None:
    """A value that this version's CRD does not have."""
    life.kube.edit("worker", "shop", "emails", {"spec": {"scaling": {"driver": "Crystal"}}})


def driven_by_others(life: Life) -> None:
    life.kube.edit("worker", "shop", "emails", {"spec": {"scaling": {"driver": "External"}}})


def no_longer_driven_by_an_autoscaler(life: Life) -> None:
    """The operator's own autoscaler has to be deleted."""
    driven_by_others(life)
    manifest = {"metadata": {"name": "old", "namespace": "shop", "labels": {}}}
    deployment = life.kube.read("deployments", "shop", "emails")
    assert deployment
    kept = {name: deployment["metadata"][name] for name in ("labels", "ownerReferences")}
    manifest["metadata"] |= kept
    life.kube.create("horizontalpodautoscalers", {**manifest, "spec": {}})


def scaled_by_another(life: Life) -> None:
    by = {"manager": "kube-controller-manager", "subresource": "scale", "time": "2026-01-01T12:00:00Z"}
    life.kube.edit("deployments", "shop", "emails", {"spec": {"replicas": 2}}, by=by)


def fewer_pods(life: Life) -> None:
    """Some of the pods must be marked as the first to be removed."""
    life.kube.run_pods("shop", "emails", 5)
    scaling = {"maxReplicas": 2, "scaleDownDelaySeconds": 0}
    life.kube.edit("worker", "shop", "emails", {"spec": {"scaling": scaling}})


def migrates(life: Life) -> None:
    """The Job of the migration gets no pod."""
    migrations = {"policy": "BeforeRollout"}
    life.kube.edit("worker", "shop", "emails", {"spec": {"image": "shop:2", "migrations": migrations}})


def evicted(life: Life) -> None:
    """Pods whose resources a VerticalPodAutoscaler has set are evicted, nobody knows by whom."""
    eviction = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
    updated = {"vpaUpdates": "Pod resources updated by vpa: container 0: cpu request"}
    for name in life.kube.run_pods("shop", "emails", 5, conditions=[eviction]):
        life.kube.edit("pods", "shop", name, {"metadata": {"annotations": updated}})


def nothing(_: Life) -> None:
    pass


async def settled() -> Life:
    """An operator with one worker, whose Deployment is as it should be."""
    life = Life()
    life.kube.create("worker", worker_manifest("emails"))
    life.start()
    await asyncio.sleep(1)
    life.databases.sample(42)
    await asyncio.sleep(60)
    assert life.kube.read("deployments", "shop", "emails")
    return life


@pytest.mark.parametrize(
    ("refused", "happens"),
    [
        (Always(TERMINATING, "apply deployment", "create event"), delete_deployment),
        (Always(TOO_MANY, ""), delete_deployment),
        (Always(TOO_MANY, "apply", "create", "annotate", "write"), another_image),
        (Always(TOO_LARGE, "apply deployment"), another_image),
        (Always(TOO_LARGE_FOR_ETCD, "apply deployment"), another_image),
        (Always(TOO_LARGE, "apply status"), another_image),
        (Always(INVALID, "apply"), delete_deployment),
        (Always(TERMINATING, ""), nothing),
        (Always(TOO_MANY, "annotate"), fewer_pods),
        (Always(TOO_MANY, "list autoscalers", "apply deployment"), scaled_by_another),
        (Always(TOO_MANY, "list events"), migrates),
        (Always(TOO_MANY, "list events"), evicted),
        ({}, migrates),
        ({}, evicted),
        (Always(TOO_MANY, "get worker"), driven_by_others),
        (Always(TOO_MANY, "write"), driven_by_others),
        (Always(TOO_MANY, "delete"), no_longer_driven_by_an_autoscaler),
        ({}, of_a_newer_definition),
        ({}, nothing),
    ],
)
@simulated
async def test_after_it_has_settled(
    refused: dict[str, list[BaseException]], happens: Callable[[Life], None]
) -> None:
    life = await settled()
    life.kube.refuse = refused
    happens(life)

    counts = await minutes(life)
    assert max(counts) <= MOST_IN_A_MINUTE, counts
    # It has not given up either.
    assert life.operator.is_alive
    assert await life.stop() == 0


@pytest.mark.parametrize("error", [TOO_MANY, TERMINATING, refusal(500), refusal(503)])
@simulated
async def test_from_the_start(error: BaseException) -> None:
    life = Life()
    life.kube.create("worker", worker_manifest("emails"))
    life.kube.refuse = Always(error, "")
    life.start()
    watches = len(life.operator.world.caches.all)

    counts = await minutes(life)
    # A watch is what everything waits for: it is tried every few seconds, where the server is not busy.
    most = watches * (15 if error.status in {500, 503} else 3)  # type: ignore[attr-defined]
    assert max(counts[1:]) <= most, counts
    life.kube.refuse = {}
    await asyncio.sleep(60)
    life.databases.sample(42)
    await asyncio.sleep(60)
    assert life.operator.is_ready
    assert life.kube.read("deployments", "shop", "emails")
    assert await life.stop() == 0


HERE = ("deployments", "shop", "emails")
KEEL = {"manager": "keel", "time": "2026-01-01T12:00:00Z"}


def is_changed(manifest: Manifest) -> bool:
    """Whether a Deployment is not as the worker asks for it."""
    spec = manifest["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    labels = manifest["metadata"]["labels"]
    return (spec["replicas"], container["image"], "djangotasks.dev/worker" in labels) != (5, "shop:1", True)


def another_pod(life: Life) -> None:
    change = {"spec": {"template": {"spec": {"containers": [{"name": "worker", "image": "shop:theirs"}]}}}}
    life.kube.edit(*HERE, change, by=KEEL)


def another_number(life: Life) -> None:
    life.kube.edit(*HERE, {"spec": {"replicas": 1}}, by=KEEL)


def without_label(life: Life) -> None:
    life.kube.edit(*HERE, {"metadata": {"labels": {"djangotasks.dev/worker": None}}}, by=KEEL)


@pytest.mark.parametrize("change", [another_pod, another_number, without_label, delete_deployment])
@simulated
async def test_whoever_changes_the_deployment_each_time_makes_it_no_hurry(
    change: Callable[[Life], None],
) -> None:
    life = await settled()
    assert not is_changed(life.kube.read(*HERE) or {})

    async def insist() -> None:
        while True:
            manifest = life.kube.read(*HERE)
            if manifest and not is_changed(manifest):
                change(life)
            await asyncio.sleep(0.1)

    insisting = asyncio.create_task(insist())
    first, *others = await minutes(life)
    # Until the delay has grown.
    assert first <= 2 * MOST_IN_A_MINUTE
    assert max(others) <= MOST_IN_A_MINUTE, others
    told = [event for event in life.kube.events if event["reason"] == "DeploymentRestored"]
    # A label that is put back is not worth an event.
    if told or change is not without_label:
        assert told[0]["type"] == "Normal"
        assert told[-1]["type"] == "Warning"
        assert "is not restored for the next 60 seconds. Find the program" in told[-1]["note"]

    insisting.cancel()
    await asyncio.sleep(61)
    manifest = life.kube.read(*HERE)
    assert manifest
    assert not is_changed(manifest), "it does not give up"
    # After some peace, the next change counts as the first.
    await asyncio.sleep(200)
    change(life)
    await asyncio.sleep(0.5)
    manifest = life.kube.read(*HERE)
    assert manifest
    assert not is_changed(manifest)
    assert await life.stop() == 0
