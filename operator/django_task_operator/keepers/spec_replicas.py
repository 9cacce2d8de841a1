"""Keeps a worker's ``spec.replicas``, which others read and write through its scale subresource."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from django_task_operator.cluster.kube import API_ERRORS, describe, has_status
from django_task_operator.errors import ApiUnavailable, WorkerError, WorkerGone

if TYPE_CHECKING:
    from django_task_operator.spec import Key, Manifest
    from django_task_operator.world import World


class SpecReplicasChanged(Exception):
    """Somebody else has written ``spec.replicas`` since it was read: decide anew, with their number."""


class SpecReplicasKeeper:
    """Reads and writes the replicas that one worker is asked for."""

    def __init__(self, world: World, key: Key, uid: str) -> None:
        """Work for the DjangoTaskWorker with that key and uid."""
        self._kube = world.kube
        self._key = key
        self._uid = uid
        # The version of what was read or written last, and what it says.
        self._known: tuple[int, int | None] = (0, None)

    def asked(self, manifest: Manifest) -> int | None:
        """What ``spec.replicas`` says, where the watch may not have told of our last write yet."""
        self._learn(manifest)
        return self._known[1]

    async def write(self, replicas: int | None, *, instead_of: int | None) -> WorkerError | None:
        """Make ``spec.replicas`` say so, or nothing; return what stands in the way, if anything.

        Raises:
            SpecReplicasChanged: it does not say ``instead_of`` any more, and is left as it is.
            WorkerGone: the DjangoTaskWorker is deleted.
        """
        if replicas == instead_of:
            return None
        try:
            manifest = await self._kube.get_worker(self._key)
            if manifest["metadata"]["uid"] != self._uid:
                raise WorkerGone
            if self.asked(manifest) != instead_of:
                raise SpecReplicasChanged
            # The version as it was read just now: a HorizontalPodAutoscaler that writes in the
            # meantime is not overwritten.
            version = manifest["metadata"]["resourceVersion"]
            self._learn(await self._kube.write_worker_replicas(self._key, version, replicas))
        except API_ERRORS as error:
            if has_status(error, HTTPStatus.NOT_FOUND):
                raise WorkerGone from None
            if has_status(error, HTTPStatus.CONFLICT):
                raise SpecReplicasChanged from None
            return ApiUnavailable(action="number for spec.replicas", problem=describe(error))
        return None

    def _learn(self, manifest: Manifest) -> None:
        # Versions of one object may be compared as numbers, as in ``cache.py``.
        version = int(manifest["metadata"]["resourceVersion"])
        if version > self._known[0]:
            self._known = version, manifest["spec"].get("replicas")
