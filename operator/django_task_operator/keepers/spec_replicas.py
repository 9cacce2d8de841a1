"""Manages a worker's ``spec.replicas``, which others read and write through its scale subresource."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from django_task_operator.cluster.api_errors import API_ERRORS, describe, has_status
from django_task_operator.errors import ApiUnavailable, WorkerError, WorkerGone
from django_task_operator.keepers.refusals import Refusals

if TYPE_CHECKING:
    from django_task_operator.spec import Key, Manifest
    from django_task_operator.world import World


class SpecReplicasChanged(Exception):
    """Someone else has written ``spec.replicas`` since it was read: decide again, with the new number."""


class SpecReplicasKeeper:
    """Reads and writes one worker's ``spec.replicas``."""

    def __init__(self, world: World, key: Key, uid: str) -> None:
        """Manage ``spec.replicas`` of the DjangoTaskWorker with that key and uid."""
        self._kube = world.kube
        self._key = key
        self._uid = uid
        self._refusals = Refusals("DjangoTaskWorker", world.clock)
        # The version that was last read or written, and its value.
        self._known: tuple[int, int | None] = (0, None)

    def asked(self, manifest: Manifest) -> int | None:
        """Return ``spec.replicas``, although the watch may not have reported our last write yet."""
        self._learn(manifest)
        return self._known[1]

    async def write(self, replicas: int | None, *, instead_of: int | None) -> WorkerError | None:
        """Set ``spec.replicas``, or remove it; return why that was not possible, if so.

        Raises:
            SpecReplicasChanged: the value is no longer ``instead_of``, and is left unchanged.
            WorkerGone: the DjangoTaskWorker has been deleted.
        """
        if replicas == instead_of:
            return None
        if refusal := self._refusals.standing(self._key.name, None):
            return refusal
        try:
            manifest = await self._kube.get_worker(self._key)
            if manifest["metadata"]["uid"] != self._uid:
                raise WorkerGone
            if self.asked(manifest) != instead_of:
                raise SpecReplicasChanged
            # The version that was just read, so that a number that a HorizontalPodAutoscaler writes meanwhile
            # is not overwritten.
            version = manifest["metadata"]["resourceVersion"]
            self._learn(await self._kube.write_worker_replicas(self._key, version, replicas))
        except API_ERRORS as error:
            if has_status(error, HTTPStatus.NOT_FOUND):
                raise WorkerGone from None
            if has_status(error, HTTPStatus.CONFLICT):
                raise SpecReplicasChanged from None
            unavailable = ApiUnavailable(action="number for spec.replicas", problem=describe(error))
            return self._refusals.postpone(error, self._key.name, None, unavailable)
        self._refusals.forget(self._key.name)
        return None

    def _learn(self, manifest: Manifest) -> None:
        # Versions of one object may be compared as numbers, as in ``cache.py``.
        version = int(manifest["metadata"]["resourceVersion"])
        if version > self._known[0]:
            self._known = version, manifest["spec"].get("replicas")
