"""Finds out whether another autoscaler scales a worker's Deployment, at almost no cost.

The operator does not watch all autoscalers of a cluster, because each writes its status four times a minute.
An autoscaler that scales the Deployment appears in the Deployment's managedFields, which are observed anyway;
only then are the autoscalers of the namespace listed.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from django_task_operator.cluster.api_errors import API_ERRORS, describe
from django_task_operator.observed.objects import Rival

if TYPE_CHECKING:
    from django_task_operator.observed.objects import Deployment, Edit
    from django_task_operator.spec import Key
    from django_task_operator.world import World

log = logging.getLogger(__name__)

# How soon it is noticed that one is gone. A HorizontalPodAutoscaler evaluates its metrics every 15 s.
LOOK_AGAIN_SECONDS = 30.0


class Rivals:
    """Finds the other autoscaler of one worker's Deployment."""

    def __init__(self, world: World, key: Key) -> None:
        """Observe the Deployment of the DjangoTaskWorker with that key."""
        self._world = world
        self._key = key
        self._rival: Rival | None = None
        # The scaling that was last investigated, and when that result expires.
        self._looked_into: Edit | None = None
        self._look_again_at = float("-inf")
        self._failed = False

    async def look(self, deployment: Deployment | None) -> Rival | None:
        """Return the autoscaler that also scales the Deployment, if there is one.

        If it is not known whether it still exists, the last result is kept.
        """
        scaled = deployment.scaled if deployment else None
        if scaled is None:
            # The next one may look the same: it has no time.
            self._looked_into = None
        is_news = scaled is not None and scaled != self._looked_into
        now = self._world.clock()
        rests = now < self._look_again_at and (self._failed or not is_news)
        if rests or not (is_news or self._rival):
            return self._rival
        self._look_again_at = now + LOOK_AGAIN_SECONDS
        try:
            autoscalers = await self._world.kube.list_autoscalers(self._key.namespace)
        except API_ERRORS as error:
            self._failed = True
            log.warning("autoscalers not listed", extra={"worker": str(self._key), "error": describe(error)})
            return self._rival
        self._failed = False
        self._looked_into = scaled
        self._rival = Rival.among(autoscalers, self._key.name)
        return self._rival
