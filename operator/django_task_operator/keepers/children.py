"""Keeps the objects beside a worker's Deployment, with no request while they are as they should be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from django_task_operator.cluster.caches import CHILD_KINDS
from django_task_operator.cluster.kube import API_ERRORS, describe
from django_task_operator.errors import (
    ApiUnavailable,
    ObjectLeftOver,
    ObjectNameTaken,
    WorkerError,
)
from django_task_operator.keepers.refusals import Refusals
from django_task_operator.observed.objects import Child
from django_task_operator.resources.labels import object_labels
from django_task_operator.spec import Key

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from django_task_operator.spec import Manifest
    from django_task_operator.world import World

# What runs the user's image: held as they are while the pods of the Deployment are.
WITH_IMAGE = frozenset({"CronJob"})


@dataclass(frozen=True, slots=True)
class _Applied:
    """What was applied last, and the object that came of it."""

    manifest: Manifest
    state: Child


class ChildrenKeeper:
    """Applies what one worker should have, and deletes what it should no longer have."""

    def __init__(self, world: World, key: Key, uid: str) -> None:
        """Work for the DjangoTaskWorker with that key and uid."""
        self._kube = world.kube
        self._caches = world.caches.children
        self._key = key
        self._uid = uid
        self._labels = frozenset(object_labels(key.name).items())
        self._applied: dict[tuple[str, str], _Applied] = {}
        self._refusals = Refusals(world.clock)

    async def apply(self, wanted: Sequence[Manifest], *, held: Collection[str] = ()) -> WorkerError | None:
        """Make the worker's children exactly ``wanted``; return what stands in the way, if anything.

        Those of the kinds in ``held`` are left as they are.
        """
        wanted = [manifest for manifest in wanted if manifest["kind"] not in held]
        names = {(manifest["kind"], manifest["metadata"]["name"]) for manifest in wanted}
        unwanted = [
            (kind, state)
            for kind in CHILD_KINDS
            if kind not in held
            for state in self._caches[kind].of(self._key)
            if state.belongs_to(self._uid) and (kind, state.name) not in names
        ]
        errors = [await self._apply(manifest) for manifest in wanted]
        errors += [await self._delete(kind, state) for kind, state in unwanted]
        return next((error for error in errors if error), None)

    async def _apply(self, manifest: Manifest) -> WorkerError | None:
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        seen = next((state for state in self._caches[kind].of(self._key) if state.name == name), None)
        if self._applied.get((kind, name)) == (_Applied(manifest, seen) if seen else None) and seen:
            return None
        if refusal := self._refusals.standing(kind, name, manifest):
            return refusal
        try:
            state = seen or await self._find(kind, name)
            if state and not state.may_be_applied_by(self._uid, self._labels):
                error = ObjectLeftOver if state.is_left_over else ObjectNameTaken
                return error(kind=kind, name=name)
            answer = await self._kube.apply_object(
                CHILD_KINDS[kind], manifest, uid=state.uid if state else None
            )
        except API_ERRORS as error:
            return self._refusals.explain(error, kind, name, manifest, new=seen is None)
        self._caches[kind].put(answer)
        self._refusals.forget(kind, name)
        self._applied[kind, name] = _Applied(manifest, Child.of(answer))
        return None

    async def _find(self, kind: str, name: str) -> Child | None:
        # One that lost its labels, or somebody else's, is not in the cache.
        found = await self._kube.get_object(CHILD_KINDS[kind], self._key_of(name))
        return Child.of(found) if found else None

    async def _delete(self, kind: str, state: Child) -> WorkerError | None:
        try:
            await self._kube.delete_object(CHILD_KINDS[kind], self._key_of(state.name), state.uid)
        except API_ERRORS as error:
            return ApiUnavailable(action=f"deletion of the {kind}", problem=describe(error))
        self._applied.pop((kind, state.name), None)
        return None

    def _key_of(self, name: str) -> Key:
        return Key(namespace=self._key.namespace, name=name)
