"""Finds out whether a VerticalPodAutoscaler evicts a worker's pods, at almost no cost.

The pods say which VerticalPodAutoscaler has set their resources, but not whether it also evicts pods for
that: in its mode Initial, it does not. Its updater posts an event about each pod that it evicts. Events are
only listed if an autoscaler has set the resources of the worker's pods, and only when a pod has been evicted,
or the last list had such an event.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from django_task_operator.cluster.api_errors import API_ERRORS, describe

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from django_task_operator.observed.pods import Pod
    from django_task_operator.spec import Key, Manifest
    from django_task_operator.world import World

log = logging.getLogger(__name__)

# The reason of that event (kubernetes/autoscaler, vertical-pod-autoscaler/pkg/updater/restriction).
EVICTED_BY_VPA = "EvictedByVPA"
# How soon it is noticed that an event has come, or that the last one has expired.
LOOK_AGAIN_SECONDS = 30.0
# For how long after an eviction its event is looked for. It is posted after the eviction, and the pod that
# replaces the evicted one is the first to have the annotation.
EXPECTED_SECONDS = 150.0


class Evictions:
    """Finds the VerticalPodAutoscaler that evicts the pods of one worker."""

    def __init__(self, world: World, key: Key) -> None:
        """Observe the pods of the DjangoTaskWorker with that key."""
        self._world = world
        self._key = key
        self._evicts = False
        self._evicted: frozenset[str] = frozenset()
        self._look_again_at = float("-inf")
        # At first, an eviction before this operator's start is looked for.
        self._expected_until = float("inf")

    async def look(self, pods: Sequence[Pod]) -> str:
        """Return the name of the VerticalPodAutoscaler that evicts such pods; empty if none does.

        If that cannot be found out now, the last result is kept.
        """
        now = self._world.clock()
        evicted = frozenset(pod.uid for pod in pods if pod.is_evicted)
        if not evicted <= self._evicted:
            self._expected_until = max(self._expected_until, now + EXPECTED_SECONDS)
        self._evicted = evicted
        name = min((pod.resized_by for pod in pods if pod.resized_by), default="")
        if not name:
            self._evicts = False
            return ""
        if now >= self._look_again_at and (self._evicts or now < self._expected_until):
            self._look_again_at = now + LOOK_AGAIN_SECONDS
            self._expected_until = min(self._expected_until, now + EXPECTED_SECONDS)
            try:
                events = await self._world.kube.list_events(self._key.namespace, EVICTED_BY_VPA)
            except API_ERRORS as error:
                log.warning("events not listed", extra={"worker": str(self._key), "error": describe(error)})
            else:
                self._evicts = _is_about(events, pods)
        return name if self._evicts else ""


def _is_about(events: Iterable[Manifest], pods: Iterable[Pod]) -> bool:
    """Whether one of the events is about a pod of the same ReplicaSet as one of these."""
    replica_sets = {pod.replica_set for pod in pods if pod.replica_set}
    return any(event["regarding"].get("name", "").rpartition("-")[0] in replica_sets for event in events)
