"""Keeps a worker's Deployment as it should be, with no request while it is."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from django_task_operator.cluster.kube import (
    API_ERRORS,
    DEPLOYMENTS,
    describe,
    has_status,
    is_passing,
    require_worker,
)
from django_task_operator.contract import EventReason
from django_task_operator.errors import (
    ApiUnavailable,
    DeploymentLeftOver,
    DeploymentNameTaken,
    DeploymentRejected,
    WorkerError,
)
from django_task_operator.keepers.refusals import Refusals
from django_task_operator.observed.objects import Deployment
from django_task_operator.resources import build_deployment
from django_task_operator.resources.labels import object_labels
from django_task_operator.turn import Event

if TYPE_CHECKING:
    from django_task_operator.spec import Key, Manifest, Worker
    from django_task_operator.world import World

KIND = "Deployment"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an apply: whether the replicas are as decided, and what stands in the way."""

    scaled: bool
    error: WorkerError | None = None
    events: tuple[Event, ...] = ()


@dataclass(frozen=True, slots=True)
class _Applied:
    """What was applied last, to tell a settled Deployment without asking the API server."""

    digest: str
    uid: str
    generation: int


class DeploymentKeeper:
    """Applies the Deployment of one worker."""

    def __init__(self, world: World, key: Key, uid: str) -> None:
        """Work for the DjangoTaskWorker with that key and uid."""
        self._kube = world.kube
        self._deployments = world.caches.deployments
        self._runtime = world.runtime
        self._key = key
        self._uid = uid
        self._labels = frozenset(object_labels(key.name).items())
        self._applied: _Applied | None = None
        self._refusals = Refusals(world.clock)

    def current(self) -> Deployment | None:
        """The Deployment as the watch last told."""
        mine = (state for state in self._deployments.of(self._key) if state.name == self._key.name)
        return next(mine, None)

    async def apply(self, worker: Worker, replicas: int, migrated: str | None = None) -> Outcome:
        """Make the Deployment what the worker asks for, with that many replicas.

        ``migrated`` is what was migrated for it.

        Raises:
            WorkerGone: the DjangoTaskWorker is deleted, so that nothing may be created.
        """
        deployment = self.current()
        manifest = build_deployment(worker, replicas, self._runtime, migrated)
        digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
        if deployment and self._is_settled(digest, deployment):
            return Outcome(scaled=True)
        if refusal := self._refusals.standing(KIND, self._key.name, manifest["spec"]["template"]):
            return await self.hold(replicas, refusal)
        try:
            uid = await self._target(deployment)
            answer = await self._kube.apply_object(DEPLOYMENTS, manifest, uid=uid)
        except WorkerError as error:
            return Outcome(scaled=False, error=error)
        except API_ERRORS as error:
            return await self._refused(error, deployment, manifest)
        self._deployments.put(answer)
        self._refusals.forget(KIND, self._key.name)
        before = self._applied
        self._applied = _Applied(digest, answer["metadata"]["uid"], answer["metadata"]["generation"])
        if before and before.digest == digest and before != self._applied:
            return Outcome(scaled=True, events=(_restored(deleted=before.uid != self._applied.uid),))
        return Outcome(scaled=True)

    def _is_settled(self, digest: str, deployment: Deployment) -> bool:
        seen = _Applied(digest, deployment.uid, deployment.generation)
        return (
            self._applied == seen and deployment.labels >= self._labels and deployment.belongs_to(self._uid)
        )

    async def _target(self, deployment: Deployment | None) -> str | None:
        """Find the uid of the object to apply to; None where it is to be created."""
        if deployment is None:
            await require_worker(self._kube, self._key, self._uid)
            # One that lost its labels, or somebody else's, is not in the cache.
            found = await self._kube.get_object(DEPLOYMENTS, self._key)
            if found is None:
                return None
            deployment = Deployment.of(found)
        if deployment.may_be_applied_by(self._uid, self._labels):
            return deployment.uid
        error = DeploymentLeftOver if deployment.is_left_over else DeploymentNameTaken
        raise error(name=deployment.name)

    async def _refused(
        self, error: BaseException, deployment: Deployment | None, manifest: Manifest
    ) -> Outcome:
        problem = describe(error)
        if has_status(error, HTTPStatus.CONFLICT) and deployment is None:
            return Outcome(scaled=False, error=DeploymentNameTaken(name=self._key.name))
        if is_passing(error):
            return Outcome(scaled=False, error=ApiUnavailable(action=KIND, problem=problem))
        rejected = DeploymentRejected(problem=problem)
        # Not with the replicas, which change while nobody mends the template.
        self._refusals.add(KIND, self._key.name, manifest["spec"]["template"], rejected)
        return await self.hold(manifest["spec"]["replicas"], rejected)

    async def hold(self, replicas: int, error: WorkerError) -> Outcome:
        """Scale what runs, as it is: what keeps a new template back must not stop the good one."""
        deployment = self.current()
        if deployment is None or not deployment.belongs_to(self._uid):
            return Outcome(scaled=False, error=error)
        if deployment.wanted_replicas != replicas:
            try:
                self._deployments.put(await self._kube.scale_deployment(self._key, replicas))
            except API_ERRORS as again:
                return Outcome(
                    scaled=False, error=ApiUnavailable(action="number of replicas", problem=describe(again))
                )
        return Outcome(scaled=True, error=error)


def _restored(*, deleted: bool) -> Event:
    how = "deleted" if deleted else "changed"
    note = f"The Deployment was {how} by somebody else: put back."
    return Event("Normal", EventReason.DEPLOYMENT_RESTORED, note)
