"""Applies the objects that a worker owns, all in one way, with no request while they are as they should be.

Find the object, see whose it is, make sure that the worker still exists, apply, and remember the answer.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from django_task_operator.cluster.kube import API_ERRORS, describe, require_worker
from django_task_operator.errors import ApiUnavailable, ObjectLeftOver, ObjectNameTaken, WorkerError
from django_task_operator.keepers.refusals import Refusals
from django_task_operator.observed.objects import OwnedObject
from django_task_operator.resources.labels import object_labels
from django_task_operator.spec import Key

if TYPE_CHECKING:
    from django_task_operator.cluster.cache import Watched
    from django_task_operator.spec import Manifest
    from django_task_operator.world import World


@dataclass(frozen=True, slots=True)
class Applied[T: OwnedObject]:
    """What became of an apply.

    Args:
        state: the object as it was applied; None where it was not.
        error: what stands in the way, if anything.
        created: whether the object was not there before.
        restored: what somebody else had done to the object, if that was undone.
    """

    state: T | None = None
    error: WorkerError | None = None
    created: bool = False
    restored: Literal["deleted", "changed"] | None = None


@dataclass(frozen=True, slots=True)
class _Last:
    """What was applied last, to tell a settled object without asking the API server."""

    digest: str
    uid: str
    revision: str


class Applier[T: OwnedObject]:
    """Applies the objects of one kind that one worker owns."""

    def __init__(self, world: World, kind: str, cache: Watched[T], key: Key, uid: str) -> None:
        """Work for the DjangoTaskWorker with that key and uid; ``kind`` is the kind in a manifest."""
        self._kube = world.kube
        self._kind = kind
        self._cache = cache
        self._key = key
        self._uid = uid
        self._labels = frozenset(object_labels(key.name).items())
        self._last: dict[str, _Last] = {}
        self._refusals = Refusals(kind, world.clock)

    def seen(self, name: str) -> T | None:
        """The object of that name as the watch last told."""
        return self._cache.get(self._key, name)

    def owned(self) -> list[T]:
        """Those that belong to this very worker, as the watch last told."""
        return [state for state in self._cache.of(self._key) if state.belongs_to(self._uid)]

    def forget(self, name: str) -> None:
        """Take note that the operator has changed the object otherwise than by ``apply``."""
        self._last.pop(name, None)

    def refused(self, name: str, asked: object) -> WorkerError | None:
        """Return why ``asked`` is not to be tried again yet; None where it may be."""
        return self._refusals.standing(name, asked)

    async def apply(self, manifest: Manifest, *, asked: object = None) -> Applied[T]:
        """Make the object what ``manifest`` says, if it is the worker's, or may be.

        ``asked`` is what a refusal is about, where that is less than the whole manifest: something else
        is tried at once, the same again only after a while.

        Raises:
            WorkerGone: the DjangoTaskWorker is deleted, so that nothing may be created or taken over.
        """
        name = manifest["metadata"]["name"]
        digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
        seen = self.seen(name)
        if seen and self._is_settled(digest, seen):
            return Applied(seen)
        asked = manifest if asked is None else asked
        if refusal := self.refused(name, asked):
            return Applied(error=refusal)
        target = seen
        try:
            target = await self._target(name, seen)
            answer = await self._kube.apply_object(
                self._cache.kind, manifest, uid=target.uid if target else None
            )
        except WorkerError as error:
            return Applied(error=error)
        except API_ERRORS as error:
            refusal = self._refusals.explain(error, name, asked, new=target is None)
            return Applied(error=refusal)
        self._cache.put(answer)
        self._refusals.forget(name)
        state, before = self._cache.digest(answer), self._last.get(name)
        self._last[name] = last = _Last(digest, state.uid, state.revision)
        restored: Literal["deleted", "changed"] | None = None
        if before and before.digest == digest:
            if before.uid != last.uid:
                restored = "deleted"
            # Where the apply changes nothing, somebody has added what is not ours, as `kubectl rollout
            # restart` does, and it stays.
            elif target and target.revision != state.revision:
                restored = "changed"
        return Applied(state, created=target is None, restored=restored)

    async def delete(self, state: T) -> WorkerError | None:
        """Delete an object; return what stands in the way, if anything."""
        try:
            await self._kube.delete_object(self._cache.kind, self._key_of(state.name), state.uid)
        except API_ERRORS as error:
            return ApiUnavailable(action=f"deletion of the {self._kind}", problem=describe(error))
        self.forget(state.name)
        return None

    def _is_settled(self, digest: str, seen: T) -> bool:
        return (
            self._last.get(seen.name) == _Last(digest, seen.uid, seen.revision)
            and seen.labels >= self._labels
            and seen.belongs_to(self._uid)
        )

    async def _target(self, name: str, seen: T | None) -> T | None:
        """Find the object to apply to; None where it is to be created."""
        state = seen
        if state is None:
            # One that lost its labels, or somebody else's, is not in the cache.
            found = await self._kube.get_object(self._cache.kind, self._key_of(name))
            state = self._cache.digest(found) if found else None
        if state and not state.may_be_applied_by(self._uid, self._labels):
            error = ObjectLeftOver if state.is_left_over else ObjectNameTaken
            raise error(kind=self._kind, name=name)
        if state is None or not state.belongs_to(self._uid):
            # What a deletion with --cascade=orphan has just left must not be given to the deleted worker:
            # the garbage collector would take it away.
            await require_worker(self._kube, self._key, self._uid)
        return state

    def _key_of(self, name: str) -> Key:
        return Key(namespace=self._key.namespace, name=name)
