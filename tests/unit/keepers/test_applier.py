"""Every kind of object that a worker owns is applied in the same way, against a fake API server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.unit.bench import Bench
from tests.unit.fakes import refusal

from django_task_operator.errors import (
    ApiUnavailable,
    ObjectLeftOver,
    ObjectNameTaken,
    ObjectRejected,
    WorkerGone,
)
from django_task_operator.keepers.applier import Applier
from django_task_operator.keepers.refusals import REFUSED_SECONDS
from django_task_operator.keepers.restorations import DELAY_SECONDS
from django_task_operator.resources import build_children, build_deployment, build_migration
from django_task_operator.resources.hpa import build_autoscaler
from django_task_operator.spec import Worker

if TYPE_CHECKING:
    from tests.unit.fakes import Manifest

KINDS = {
    "Deployment": "deployments",
    "HorizontalPodAutoscaler": "horizontalpodautoscalers",
    "PodDisruptionBudget": "poddisruptionbudgets",
    "CronJob": "cronjobs",
    "Job": "jobs",
}
OTHER_OWNER = {"apiVersion": "v1", "kind": "App", "name": "a", "uid": "a-1", "controller": True}
FORERUNNER = {**OTHER_OWNER, "kind": "DjangoTaskWorker", "uid": "uid-of-its-forerunner"}


class Owned:
    """One kind of object of worker emails, its manifest and its applier."""

    def __init__(self, kind: str) -> None:
        self.bench, self.kind = Bench(), kind
        stored = self.bench.worker(
            scaling={"driver": "HPA"}, cleanup={"schedule": "@daily"}, migrations={"policy": "BeforeRollout"}
        )
        worker, world = Worker.parse(stored), self.bench.world
        manifests = [
            build_deployment(worker, 5, world.runtime, None),
            build_migration(worker, world.runtime),
            *build_children(worker, world.runtime),
            build_autoscaler(worker),
        ]
        (self.manifest,) = (each for each in manifests if each["kind"] == kind)
        caches: dict[str, Any] = {
            "Deployment": world.caches.deployments,
            "Job": world.caches.migrations,
            **world.caches.children,
        }
        self.applier: Applier[Any] = Applier(world, kind, caches[kind], worker.key, worker.uid)
        self.name = self.manifest["metadata"]["name"]

    @property
    def stored(self) -> Manifest | None:
        return self.bench.kube.read(KINDS[self.kind], "shop", self.name)

    def exists(self, **metadata: Any) -> Manifest:
        """Create the object beforehand, as anybody."""
        kept = {key: self.manifest["metadata"][key] for key in ("name", "namespace")}
        return self.bench.kube.create(KINDS[self.kind], {**self.manifest, "metadata": {**kept, **metadata}})

    def edit(self, change: Manifest) -> None:
        self.bench.kube.edit(KINDS[self.kind], "shop", self.name, change)

    def requests(self) -> list[str]:
        made = list(self.bench.kube.requests)
        self.bench.kube.requests.clear()
        return made

    @property
    def labels(self) -> dict[str, str]:
        labels: dict[str, str] = self.manifest["metadata"]["labels"]
        return labels


@pytest.fixture(params=KINDS)
def owned(request: pytest.FixtureRequest) -> Owned:
    return Owned(request.param)


def test_there_is_one_of_every_kind_that_a_worker_has_children_of() -> None:
    assert KINDS.keys() == {"Deployment", "Job", *Bench().world.caches.children}


async def test_it_is_created_once(owned: Owned) -> None:
    first = await owned.applier.apply(owned.manifest)
    assert (first.error, first.created, first.restored) == (None, True, None)
    assert owned.applier.seen(owned.name) == first.state
    assert owned.applier.owned() == [first.state]
    owned.requests()

    again = await owned.applier.apply(owned.manifest)
    assert (again.state, again.created) == (first.state, False)
    assert owned.requests() == []


@pytest.mark.parametrize("how", ["deleted", "another", "going"])
async def test_nothing_is_created_for_a_deleted_worker(owned: Owned, how: str) -> None:
    end_worker(owned.bench, how)
    with pytest.raises(WorkerGone):
        await owned.applier.apply(owned.manifest)
    assert owned.stored is None


@pytest.mark.parametrize("how", ["deleted", "another", "going"])
async def test_nothing_is_put_back_for_a_deleted_worker(owned: Owned, how: str) -> None:
    await owned.applier.apply(owned.manifest)
    end_worker(owned.bench, how)
    owned.bench.kube.delete(KINDS[owned.kind], "shop", owned.name)
    with pytest.raises(WorkerGone):
        await owned.applier.apply(owned.manifest)
    assert owned.stored is None


async def test_what_an_orphaning_deletion_leaves_is_not_given_to_the_deleted_worker(owned: Owned) -> None:
    await owned.applier.apply(owned.manifest)
    end_worker(owned.bench, "deleted")
    owned.edit({"metadata": {"ownerReferences": None}})
    with pytest.raises(WorkerGone):
        await owned.applier.apply(owned.manifest)
    assert owned.stored
    assert "ownerReferences" not in owned.stored["metadata"]


def end_worker(bench: Bench, how: str) -> None:
    """Delete the worker without a watch that reports it."""
    worker = bench.kube.read("worker", "shop", "emails")
    assert worker
    if how == "going":
        going = {"metadata": {"deletionTimestamp": "2026-11-22T12:00:00Z"}}
        bench.kube.edit("worker", "shop", "emails", going)
        return
    bench.kube.delete("worker", "shop", "emails")
    if how == "another":
        bench.kube.create("worker", {**worker, "metadata": {**worker["metadata"], "uid": "another"}})


async def test_one_that_a_worker_of_the_name_left_behind_is_taken_over(owned: Owned) -> None:
    left = owned.exists(labels=owned.labels)
    taken = await owned.applier.apply(owned.manifest)

    assert (taken.error, taken.created, taken.restored) == (None, False, None)
    assert owned.stored
    assert owned.stored["metadata"]["uid"] == left["metadata"]["uid"]
    assert owned.stored["metadata"]["ownerReferences"] == owned.manifest["metadata"]["ownerReferences"]


async def test_one_of_its_own_that_lost_its_labels_is_found_and_mended(owned: Owned) -> None:
    await owned.applier.apply(owned.manifest)
    owned.edit({"metadata": {"labels": None}})
    found = await owned.applier.apply(owned.manifest)

    assert (found.error, found.created) == (None, False)
    assert owned.stored
    assert owned.stored["metadata"]["labels"] == owned.labels


@pytest.mark.parametrize(
    ("labelled", "owner", "error"),
    [
        (True, OTHER_OWNER, ObjectNameTaken),
        (False, OTHER_OWNER, ObjectNameTaken),
        (True, FORERUNNER, ObjectLeftOver),
        (False, FORERUNNER, ObjectLeftOver),
        (False, None, ObjectNameTaken),
    ],
)
async def test_somebody_elses_is_left_alone(
    owned: Owned, labelled: bool, owner: Manifest | None, error: type[ObjectNameTaken | ObjectLeftOver]
) -> None:
    metadata = {"labels": owned.labels if labelled else {}, "ownerReferences": [owner] if owner else []}
    theirs = owned.exists(**metadata)
    refused = await owned.applier.apply(owned.manifest)

    assert refused.error == error(kind=owned.kind, name=owned.name)
    assert refused.state is None
    assert owned.stored == theirs
    assert not any(made.startswith("apply") for made in owned.requests())


# What they say otherwise: where two say the same, the API server sees no conflict.
THEIRS: dict[str, Manifest] = {
    "Deployment": {"replicas": 99},
    "HorizontalPodAutoscaler": {"maxReplicas": 99},
    "PodDisruptionBudget": {"maxUnavailable": 99},
    "CronJob": {"schedule": "@yearly"},
    "Job": {"backoffLimit": 99},
}


async def test_one_that_somebody_makes_at_the_same_moment_is_left_alone(owned: Owned) -> None:
    really = owned.bench.kube.get_worker

    async def get_worker(key: Any) -> Any:
        owned.exists(labels={"app": "theirs"})
        owned.edit({"spec": THEIRS[owned.kind]})
        return await really(key)

    owned.bench.kube.get_worker = get_worker  # type: ignore[method-assign]
    refused = await owned.applier.apply(owned.manifest)
    assert refused.error == ObjectNameTaken(kind=owned.kind, name=owned.name)


async def test_a_refusal_is_remembered_for_what_was_asked(owned: Owned) -> None:
    request = f"apply {KINDS[owned.kind][:-1]}"
    owned.bench.kube.refuse[request] = [refusal(403, "no right to it")]
    refused = await owned.applier.apply(owned.manifest, asked="this")
    assert refused.error == ObjectRejected(kind=owned.kind, problem="no right to it")
    owned.requests()

    assert (await owned.applier.apply(owned.manifest, asked="this")).error == refused.error
    assert owned.applier.refused(owned.name, "this") == refused.error
    assert owned.requests() == []
    assert owned.applier.refused(owned.name, "that") is None

    owned.bench.clock.advance(REFUSED_SECONDS)
    assert (await owned.applier.apply(owned.manifest, asked="this")).created
    assert owned.applier.refused(owned.name, "this") is None


@pytest.mark.parametrize("request_", ["get worker", "get", "apply"])
async def test_an_api_server_that_is_away_is_asked_again_at_once(owned: Owned, request_: str) -> None:
    request_ = request_ if " " in request_ else f"{request_} {KINDS[owned.kind][:-1]}"
    owned.bench.kube.refuse[request_] = [refusal(503, "away")]
    refused = await owned.applier.apply(owned.manifest)

    assert refused.error == ApiUnavailable(action=owned.kind, problem="away")
    assert (await owned.applier.apply(owned.manifest)).created


async def test_it_says_what_somebody_had_done(owned: Owned) -> None:
    await owned.applier.apply(owned.manifest)
    owned.edit({"spec": {next(iter(owned.manifest["spec"])): None}})
    assert (await owned.applier.apply(owned.manifest)).restored == "changed"

    owned.bench.kube.delete(KINDS[owned.kind], "shop", owned.name)
    owned.requests()
    postponed = await owned.applier.apply(owned.manifest)
    assert (postponed.postponed, postponed.restored, owned.requests()) == (True, None, [])
    assert owned.applier.due
    assert owned.applier.due.seconds == DELAY_SECONDS[0]
    owned.bench.clock.advance(DELAY_SECONDS[0])
    assert (await owned.applier.apply(owned.manifest)).restored == "deleted"
    assert owned.applier.due is None


async def test_what_is_newly_asked_for_does_not_wait_for_a_restoration(owned: Owned) -> None:
    await owned.applier.apply(owned.manifest)
    for _ in range(2):
        owned.edit({"spec": {next(iter(owned.manifest["spec"])): None}})
        await owned.applier.apply(owned.manifest)
    asked = {**owned.manifest, "metadata": {**owned.manifest["metadata"], "annotations": {"new": "1"}}}
    assert not (await owned.applier.apply(asked)).postponed
    assert owned.stored
    assert owned.stored["spec"] == owned.manifest["spec"]


async def test_what_somebody_adds_stays_and_is_no_change(owned: Owned) -> None:
    await owned.applier.apply(owned.manifest)
    owned.edit({"spec": {"theirs": 1}})
    assert (await owned.applier.apply(owned.manifest)).restored is None
    assert owned.stored
    assert owned.stored["spec"]["theirs"] == 1
    owned.requests()
    await owned.applier.apply(owned.manifest)
    assert owned.requests() == []


async def test_what_the_operator_changed_otherwise_was_nobody_else(owned: Owned) -> None:
    await owned.applier.apply(owned.manifest)
    owned.edit({"spec": {"replicas": 8}})
    owned.applier.forget(owned.name)
    assert (await owned.applier.apply(owned.manifest)).restored is None


async def test_a_status_alone_is_no_change(owned: Owned) -> None:
    await owned.applier.apply(owned.manifest)
    condition = {"type": "AbleToScale", "status": "False", "reason": "FailedUpdateScale", "message": "no"}
    owned.edit({"status": {"conditions": [condition]}})
    owned.requests()
    await owned.applier.apply(owned.manifest)
    assert owned.requests() == []


async def test_a_deleted_one_is_made_anew(owned: Owned) -> None:
    made = (await owned.applier.apply(owned.manifest)).state
    assert await owned.applier.delete(made) is None
    assert owned.stored is None
    again = await owned.applier.apply(owned.manifest)
    assert (again.created, again.restored) == (True, None)


async def test_a_deletion_that_is_refused(owned: Owned) -> None:
    made = (await owned.applier.apply(owned.manifest)).state
    owned.bench.kube.refuse[f"delete {KINDS[owned.kind][:-1]}"] = [refusal(403, "no right")]
    error = await owned.applier.delete(made)
    assert error == ApiUnavailable(action=f"deletion of the {owned.kind}", problem="no right")
    assert owned.stored
