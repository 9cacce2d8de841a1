"""Manages a worker's Deployment, with no request while it is up to date."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from django_task_operator.cluster.api_errors import API_ERRORS, describe
from django_task_operator.contract import EventReason
from django_task_operator.errors import ApiUnavailable, ObjectRejected, WorkerError
from django_task_operator.keepers.applier import Applier
from django_task_operator.keepers.restorations import INSISTENT_SECONDS
from django_task_operator.keepers.runtime import RuntimeKeeper
from django_task_operator.resources import build_deployment
from django_task_operator.turn import Event

if TYPE_CHECKING:
    from django_task_operator.due import Due
    from django_task_operator.observed.objects import Deployment, Edit
    from django_task_operator.resources import Rotation
    from django_task_operator.spec import Key, Manifest, Worker
    from django_task_operator.world import World


log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of an apply: whether the replicas are as decided, and any error."""

    scaled: bool
    error: WorkerError | None = None
    events: tuple[Event, ...] = ()


class DeploymentKeeper:
    """Applies the Deployment of one worker."""

    def __init__(self, world: World, key: Key, uid: str) -> None:
        """Manage the Deployment of the DjangoTaskWorker with that key and uid."""
        self._kube = world.kube
        self._deployments = world.caches.deployments
        self._runtime = RuntimeKeeper(world, key)
        self._own_runtime = world.runtime
        self._key = key
        self._uid = uid
        self._applier = Applier(world, "Deployment", world.caches.deployments, key, uid)

    def current(self) -> Deployment | None:
        """The Deployment as the watch last reported it."""
        return self._applier.seen(self._key.name)

    @property
    def dues(self) -> tuple[Due, ...]:
        """When a Deployment is to be restored that others change again and again, or get another runtime."""
        return tuple(filter(None, (self._applier.due, self._runtime.due)))

    async def apply(self, worker: Worker, replicas: int, migrated: str | None, rotation: Rotation) -> Outcome:
        """Make the Deployment what the worker asks for, with that many replicas.

        ``migrated`` is what was migrated for it, ``rotation`` what it is to say of its database's URL.

        Raises:
            WorkerGone: the DjangoTaskWorker has been deleted, so nothing may be created.
        """
        current = self.current()
        mine = current if current and current.belongs_to(self._uid) else None
        choice = self._runtime.choose(worker, mine, rotation)
        source, record = (choice.source, choice.record) if choice else (self._own_runtime, None)
        manifest = build_deployment(worker, replicas, source, migrated, rotation, record)
        # A refusal is never about the replicas, which may change before someone fixes the template.
        applied = await self._applier.apply(manifest, asked=manifest["spec"]["template"])
        if isinstance(applied.error, ObjectRejected):
            return await self.hold(replicas, applied.error)
        restored, before = applied.restored, applied.found
        if applied.created and self._runtime.has_applied:
            # Also if the new one has another runtime than the one that someone has deleted.
            restored = "deleted"
        if applied.state and applied.edited and before and before.edit and before.edit.is_rollback:
            await self._drop_additions(applied.state.uid, manifest)
            restored = "changed"
        events = [_restored(restored, before, self._key.name, applied.pause)] if restored else []
        if applied.state and rotation.changed:
            events.append(_url_changed(worker))
        if applied.state and not applied.postponed:
            self._runtime.applied(applied.state.uid, record)
            events += self._runtime.events(choice, mine) if choice else ()
        return Outcome(scaled=applied.error is None, error=applied.error, events=tuple(events))

    async def _drop_additions(self, uid: str, manifest: Manifest) -> None:
        """Remove what a rollback has brought back that the worker's template no longer has.

        An apply leaves fields alone that another client has set: an environment variable of the version
        before would stay for good.
        """
        pod = manifest["spec"]["template"]["spec"]
        try:
            self._deployments.put(await self._kube.replace_pod_spec(self._key, uid, pod))
            self._applier.forget(self._key.name)
        except API_ERRORS as error:
            log.warning("rollback not undone", extra={"worker": str(self._key), "error": describe(error)})

    async def hold(self, replicas: int, error: WorkerError) -> Outcome:
        """Scale the existing Deployment: an obstacle to the new template must not stop the current one."""
        deployment = self.current()
        if deployment is None or not deployment.belongs_to(self._uid):
            return Outcome(scaled=False, error=error)
        if deployment.wanted_replicas != replicas:
            try:
                self._deployments.put(await self._kube.scale_deployment(self._key, replicas))
                self._applier.forget(self._key.name)
            except API_ERRORS as again:
                return Outcome(
                    scaled=False, error=ApiUnavailable(action="number of replicas", problem=describe(again))
                )
        return Outcome(scaled=True, error=error)


def _restored(
    how: Literal["deleted", "changed"], before: Deployment | None, name: str, pause: float
) -> Event:
    if how == "deleted":
        instead = f"Delete DjangoTaskWorker {name} instead, to end its pods for good."
        note = f"The Deployment was deleted by someone else and has been restored. {instead}"
    else:
        note = f"The Deployment was {_how_changed(before.edit if before else None, name)}"
    if pause < INSISTENT_SECONDS:
        return Event("Normal", EventReason.DEPLOYMENT_RESTORED, note)
    note += (
        f" This happens again and again, so the Deployment is not restored for the next {pause:.0f} seconds."
        " Find the program that does it: the two must not manage the same Deployment."
    )
    return Event("Warning", EventReason.DEPLOYMENT_RESTORED, note)


def _url_changed(worker: Worker) -> Event:
    database = worker.spec.database
    what = "connection" if database.connection else "URL"
    note = (
        f"The database {what} in Secret {database.secret} has changed, and the task table answers: the pods"
        f" are replaced, because running pods keep the {what} with which they were started."
    )
    return Event("Normal", EventReason.DATABASE_URL_CHANGED, note)


def _how_changed(edit: Edit | None, name: str) -> str:
    """Say what was done, and what to do instead."""
    change = f"Change the spec of DjangoTaskWorker {name} instead."
    if edit is None:
        return f"changed by someone else and has been restored. {change}"
    at = f" at {edit.time}" if edit.time else ""
    who = f"by {edit.manager}{at}" if edit.manager else "to zero by someone else"
    who = f"{who} and has been restored."
    if edit.scaled:
        return (
            f"scaled {who} Change spec.scaling.minReplicas and maxReplicas of DjangoTaskWorker {name} "
            f"instead, or set spec.scaling.driver to External and scale that: kubectl scale djtw {name}."
        )
    if edit.is_rollback:
        return (
            f"rolled back {who} After kubectl rollout undo the DjangoTaskWorker still asks for the new "
            "version: change its spec instead, to the image and settings of the previous version "
            f"(kubectl edit djtw {name})."
        )
    return f"changed {who} {change}"
