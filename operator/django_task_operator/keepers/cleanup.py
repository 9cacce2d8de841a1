"""Ends the Jobs of a worker's clean-up if they do not end by themselves."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from django_task_operator.cluster.api_errors import API_ERRORS, describe
from django_task_operator.cluster.kube import JOBS
from django_task_operator.spec import Key

if TYPE_CHECKING:
    from django_task_operator.world import World

log = logging.getLogger(__name__)

# After a refusal.
REST_SECONDS = 30.0


class CleanupKeeper:
    """Manages the clean-up Jobs of one worker. Its CronJob is managed like any other child."""

    def __init__(self, world: World, key: Key) -> None:
        """Manage the clean-up Jobs of the DjangoTaskWorker with that key."""
        self._world = world
        self._key = key
        self._rest_until = float("-inf")

    async def end_lingering(self) -> None:
        """Delete the Jobs that are done, but whose pods are kept alive by an injected container.

        Otherwise the next run would have to wait for the deadline. A failed Job is kept until then, for its
        log.
        """
        if self._world.clock() < self._rest_until:
            return
        for pod in self._world.caches.cleanup_pods.of(self._key):
            if not pod.has_done_it or pod.pod.terminating:
                continue
            job = {"worker": str(self._key), "job": pod.job}
            try:
                await self._world.kube.delete_object(
                    JOBS, Key(namespace=self._key.namespace, name=pod.job), pod.job_uid
                )
            except API_ERRORS as error:
                log.warning("cleanup not ended", extra={**job, "error": describe(error)})
                self._rest_until = self._world.clock() + REST_SECONDS
            else:
                log.info("lingering cleanup ended", extra=job)
