"""Finds out whether somebody else's autoscaler scales a worker's Deployment, at next to no cost.

Nothing watches all autoscalers of a cluster: each writes its status four times a minute. One that scales the
Deployment is in the Deployment's managedFields, which are seen anyway, and only then are those of the
namespace listed.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from django_task_operator.cluster.kube import API_ERRORS, describe
from django_task_operator.observed.objects import Rival

if TYPE_CHECKING:
    from django_task_operator.observed.objects import Deployment, Edit
    from django_task_operator.spec import Key
    from django_task_operator.world import World

log = logging.getLogger(__name__)

# How soon it is noticed that one is gone. A HorizontalPodAutoscaler looks every 15 s.
LOOK_AGAIN_SECONDS = 30.0


class Rivals:
    """Looks out for one worker."""

    def __init__(self, world: World, key: Key) -> None:
        """Work for the DjangoTaskWorker with that key."""
        self._world = world
        self._key = key
        self._rival: Rival | None = None
        # The scaling that was looked into last, and when that is over.
        self._looked_into: Edit | None = None
        self._look_again_at = float("-inf")

    async def look(self, deployment: Deployment | None) -> Rival | None:
        """The autoscaler that scales the Deployment too, if there is one.

        Where it cannot be seen whether it is still there, it is what it was.
        """
        scaled = deployment.scaled if deployment else None
        is_news = scaled is not None and scaled != self._looked_into
        now = self._world.clock()
        if not (is_news or self._rival) or (not is_news and now < self._look_again_at):
            return self._rival
        self._look_again_at = now + LOOK_AGAIN_SECONDS
        try:
            autoscalers = await self._world.kube.list_autoscalers(self._key.namespace)
        except API_ERRORS as error:
            log.warning("autoscalers not listed", extra={"worker": str(self._key), "error": describe(error)})
            return self._rival
        self._looked_into = scaled
        self._rival = Rival.among(autoscalers, self._key.name)
        return self._rival
