"""Decides in each turn which runtime a worker's Deployment gets, and remembers what was applied."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from django_task_operator.contract import EventReason
from django_task_operator.due import Due
from django_task_operator.resources import template_hash
from django_task_operator.resources.upgrade import Choice, Reason, choose
from django_task_operator.spec import Runtime, RuntimeUpgrade
from django_task_operator.turn import Event

if TYPE_CHECKING:
    from django_task_operator.observed.objects import Deployment
    from django_task_operator.resources import Rotation
    from django_task_operator.resources.upgrade import Record
    from django_task_operator.spec import Key, Worker
    from django_task_operator.world import World

log = logging.getLogger(__name__)

# How long the image of the runtime before has to be missing until the operator's replaces it: a registry
# that is away for a moment is no reason to replace pods that run tasks.
MISSING_SECONDS = 120.0
# How often a worker asks whether it is its turn: no watch tells it that another one's pods are ready.
TURN_SECONDS = 5.0
# A worker whose pods are not ready could not show whether the runtime works.
_NOT_READY = "its own pods are not all ready"

_NOTES = {
    Reason.STAGED: "spec.runtimeUpgrade is Staged, and it is this worker's turn",
    Reason.MISSING: "the image of their runtime cannot be pulled any more",
}


class RuntimeKeeper:
    """Chooses the runtime of one worker's pods."""

    def __init__(self, world: World, key: Key) -> None:
        """Choose for the DjangoTaskWorker with that key."""
        self._world = world
        self._key = key
        # The uid of the Deployment, and what was applied to it: others may change what it says.
        self._applied: tuple[str, Record] | None = None
        self._missing_since: float | None = None
        self._due: Due | None = None
        self._reason = Reason.CURRENT

    @property
    def due(self) -> Due | None:
        """When to choose again; None if only a change can lead to another choice."""
        return self._due

    @property
    def has_applied(self) -> bool:
        """Whether there has been a Deployment with a runtime of this keeper's choice."""
        return self._applied is not None

    def choose(self, worker: Worker, deployment: Deployment | None, rotation: Rotation) -> Choice | None:
        """Choose; None if the worker's pods have no runtime injected.

        ``deployment`` is the worker's own, and ``rotation`` what it is to say of its database's URL.
        """
        own, clock = self._world.runtime, self._world.clock
        self._due = None
        if worker.spec.runtime is not Runtime.INJECTED:
            return None
        before = deployment.runtime if deployment else None
        if deployment and self._applied and self._applied[0] == deployment.uid:
            before = self._applied[1]
        is_healthy = deployment is not None and deployment.is_healthy
        obstacle = None
        if worker.spec.runtime_upgrade is RuntimeUpgrade.STAGED and before and before.hash != own.hash:
            obstacle = self._world.stages.obstacle(self._key, own.hash) if is_healthy else _NOT_READY
        choice = choose(
            before,
            own,
            template=template_hash(worker, own, rotation),
            restarted=deployment.restarted if deployment else "",
            has_pods=bool(deployment and (deployment.replicas or deployment.wanted_replicas)),
            is_missing=self._is_missing(clock()),
            is_healthy=is_healthy,
            upgrade=worker.spec.runtime_upgrade,
            is_its_turn=obstacle is None,
        )
        if choice.reason is Reason.STAGED:
            self._world.stages.begin()
        elif choice.reason in {Reason.HELD, Reason.WAITING}:
            self._due = self._next(clock(), obstacle)
        if choice.reason is not self._reason:
            self._reason = choice.reason
            told = {"runtime": choice.source.words, "reason": str(choice.reason)}
            log.info("runtime chosen", extra={"worker": str(self._key), **told})
        return choice

    def applied(self, uid: str, record: Record | None) -> None:
        """Note what the Deployment with that uid says now."""
        self._applied = (uid, record) if record else None

    def events(self, choice: Choice, before: Deployment | None) -> tuple[Event, ...]:
        """Return the event for a choice that replaces pods for the runtime alone, once it is applied."""
        if choice.reason not in _NOTES or before is None or before.runtime is None:
            return ()
        note = (
            f"The pods are replaced, because {_NOTES[choice.reason]}: their runtime was"
            f" {before.runtime.words}, and will be {choice.source.words}."
        )
        return (Event("Normal", EventReason.RUNTIME_UPGRADED, note),)

    def _is_missing(self, now: float) -> bool:
        if not any(pod.lacks_runtime for pod in self._world.caches.pods.of(self._key)):
            self._missing_since = None
            return False
        self._missing_since = now if self._missing_since is None else self._missing_since
        return now - self._missing_since >= MISSING_SECONDS

    def _next(self, now: float, obstacle: str | None) -> Due | None:
        dues = [Due(TURN_SECONDS, f"no new runtime yet: {obstacle}")] if obstacle else []
        if self._missing_since is not None:
            rest = max(0.0, self._missing_since + MISSING_SECONDS - now)
            dues.append(Due(rest, "the image of the pods' runtime may still be missing"))
        return min(dues, default=None)
