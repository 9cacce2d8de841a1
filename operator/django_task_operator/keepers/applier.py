"""Applies the objects that a worker owns, all in the same way, with no request while they are up to date.

Find the object, check its owner, make sure that the worker still exists, apply, and remember the answer.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from django_task_operator.cluster.api_errors import API_ERRORS, describe
from django_task_operator.cluster.kube import require_worker
from django_task_operator.errors import ApiUnavailable, ObjectLeftOver, ObjectNameTaken, WorkerError
from django_task_operator.keepers.refusals import Refusals
from django_task_operator.keepers.restorations import Restorations
from django_task_operator.observed.objects import OwnedObject
from django_task_operator.resources.labels import object_labels
from django_task_operator.spec import Key

if TYPE_CHECKING:
    from django_task_operator.cluster.cache import Watched
    from django_task_operator.due import Due
    from django_task_operator.spec import Manifest
    from django_task_operator.world import World


# What is asked where an object is to go.
_DELETION = "deletion"


@dataclass(frozen=True, slots=True)
class Applied[T: OwnedObject]:
    """The outcome of an apply.

    Args:
        state: the object as it was applied; None if it was not.
        found: the object as it was before, whether a watch has it or not; None if there was none.
        error: why it was not applied, if so.
        restored: what someone else had done to the object, if that was reverted.
        edited: whether someone else had changed its spec, reverted or not.
        pause: the seconds until the object may be restored once more.
        postponed: whether it is not as asked, because it was restored only a moment ago.
    """

    state: T | None = None
    found: T | None = None
    error: WorkerError | None = None
    restored: Literal["deleted", "changed"] | None = None
    edited: bool = False
    pause: float = 0.0
    postponed: bool = False

    @property
    def created(self) -> bool:
        """Whether the object did not exist before."""
        return self.state is not None and self.found is None


@dataclass(frozen=True, slots=True)
class _Last:
    """What was last applied, in order to recognize a settled object without asking the API server."""

    digest: str
    uid: str
    revision: str


class Applier[T: OwnedObject]:
    """Applies the objects of one kind that one worker owns."""

    def __init__(self, world: World, kind: str, cache: Watched[T], key: Key, uid: str) -> None:
        """Manage the objects of the DjangoTaskWorker with that key and uid; ``kind`` is a manifest's kind."""
        self._kube = world.kube
        self._kind = kind
        self._cache = cache
        self._key = key
        self._uid = uid
        self._labels = frozenset(object_labels(key.name).items())
        self._last: dict[str, _Last] = {}
        self._refusals = Refusals(kind, world.clock)
        self._restorations = Restorations(kind, world.clock)

    def seen(self, name: str) -> T | None:
        """Return the object of that name as the watch last reported it."""
        return self._cache.get(self._key, name)

    def owned(self) -> list[T]:
        """Return the objects that belong to this worker, as the watch last reported them."""
        return [state for state in self._cache.of(self._key) if state.belongs_to(self._uid)]

    @property
    def due(self) -> Due | None:
        """When an object is to be restored that someone else changes again and again."""
        return self._restorations.due

    def forget(self, name: str) -> None:
        """Note that the operator has changed the object by other means than ``apply``."""
        self._last.pop(name, None)

    def refused(self, name: str, asked: object) -> WorkerError | None:
        """Return the refusal because of which ``asked`` must not be retried yet; None if it may be."""
        return self._refusals.standing(name, asked)

    async def apply(self, manifest: Manifest, *, asked: object = None) -> Applied[T]:
        """Apply ``manifest``, if the object belongs to the worker, or may be taken over.

        ``asked`` is the part of the manifest that a refusal is about, if not all of it: after a refusal, the
        same part is only retried after a while, but another one immediately.

        Raises:
            WorkerGone: the DjangoTaskWorker has been deleted, so nothing may be created or taken over.
        """
        name = manifest["metadata"]["name"]
        digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
        seen = self.seen(name)
        if seen and self._is_settled(digest, seen):
            return Applied(seen, seen)
        asked = manifest if asked is None else asked
        if refusal := self.refused(name, asked):
            return Applied(error=refusal)
        before = self._last.get(name)
        # Nothing new is asked for, so someone else has changed or deleted the object.
        is_restoration = before is not None and before.digest == digest
        if is_restoration and not self._restorations.may(name):
            return Applied(seen, seen, postponed=True)
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
        state = self._cache.digest(answer)
        self._last[name] = last = _Last(digest, state.uid, state.revision)
        restored: Literal["deleted", "changed"] | None = None
        edited, pause = False, 0.0
        if before and is_restoration:
            pause = self._restorations.count(name)
            if before.uid != last.uid:
                restored = "deleted"
            elif target:
                # If the apply changes nothing, someone has added what is not ours, as `kubectl rollout
                # restart` does, and it stays.
                restored = "changed" if target.revision != state.revision else None
                edited = target.revision != before.revision
        return Applied(state, target, restored=restored, edited=edited, pause=pause)

    async def delete(self, state: T) -> WorkerError | None:
        """Delete an object; return why it could not be deleted, if so."""
        if refusal := self.refused(state.name, _DELETION):
            return refusal
        try:
            await self._kube.delete_object(self._cache.kind, self._key_of(state.name), state.uid)
        except API_ERRORS as error:
            unavailable = ApiUnavailable(action=f"deletion of the {self._kind}", problem=describe(error))
            return self._refusals.postpone(error, state.name, _DELETION, unavailable)
        self._refusals.forget(state.name)
        self.forget(state.name)
        return None

    def _is_settled(self, digest: str, seen: T) -> bool:
        return (
            self._last.get(seen.name) == _Last(digest, seen.uid, seen.revision)
            and seen.labels >= self._labels
            and seen.belongs_to(self._uid)
        )

    async def _target(self, name: str, seen: T | None) -> T | None:
        """Find the object to apply to; None if it has to be created."""
        state = seen
        if state is None:
            # An object of another owner, or one that has lost its labels, is not in the cache.
            found = await self._kube.get_object(self._cache.kind, self._key_of(name))
            state = self._cache.digest(found) if found else None
        if state and not state.may_be_applied_by(self._uid, self._labels):
            error = ObjectLeftOver if state.is_left_over else ObjectNameTaken
            raise error(kind=self._kind, name=name)
        if state is None or not state.belongs_to(self._uid):
            # An object just left behind by a deletion with --cascade=orphan must not be given to the deleted
            # worker: the garbage collector would delete it.
            await require_worker(self._kube, self._key, self._uid)
        return state

    def _key_of(self, name: str) -> Key:
        return Key(namespace=self._key.namespace, name=name)
