"""Which kinds of objects are watched: a new kind is one more line here."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from django_task_operator.cluster.cache import Watched
from django_task_operator.cluster.kube import (
    AUTOSCALERS,
    CRON_JOBS,
    DEPLOYMENTS,
    DISRUPTION_BUDGETS,
    JOBS,
    PODS,
    REPLICA_SETS,
)
from django_task_operator.observed.objects import Autoscaler, Child, Deployment, Job, ReplicaSet, owner_of
from django_task_operator.observed.pods import JobPod, Pod
from django_task_operator.resources.labels import CLEANUP_SELECTOR, MANAGED_SELECTOR, MIGRATION_SELECTOR

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from django_task_operator.cluster.kube import Kind, Kube
    from django_task_operator.spec import Key, Manifest


class Caches:
    """The workers' objects as the watches report them, with a cache for each kind."""

    def __init__(self, kube: Kube, namespaces: Sequence[str], changed: Callable[[Key], None]) -> None:
        """Send no requests before ``run``; ``changed`` is called with the worker of a changed object."""
        self.all: list[Watched[Any]] = []

        def watched[T](
            kind: Kind, digest: Callable[[Manifest], T], selector: str = MANAGED_SELECTOR
        ) -> Watched[T]:
            cache = Watched(
                kube,
                kind,
                selector,
                namespaces=namespaces,
                digest=digest,
                owner=owner_of,
                changed=changed,
            )
            self.all.append(cache)
            return cache

        self.deployments = watched(DEPLOYMENTS, Deployment.of)
        self.replica_sets = watched(REPLICA_SETS, ReplicaSet.of)
        self.pods = watched(PODS, Pod.of)
        self.autoscalers = watched(AUTOSCALERS, Autoscaler.of)
        # The objects other than the Deployment, by their kind in a manifest.
        self.children: dict[str, Watched[Any]] = {
            "HorizontalPodAutoscaler": self.autoscalers,
            "PodDisruptionBudget": watched(DISRUPTION_BUDGETS, Child.of),
            "CronJob": watched(CRON_JOBS, Child.of),
        }
        self.migrations = watched(JOBS, Job.of)
        self.migration_pods = watched(PODS, JobPod.of, MIGRATION_SELECTOR)
        self.cleanup_pods = watched(PODS, JobPod.of, CLEANUP_SELECTOR)

    async def run(self) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as watches:
            for cache in self.all:
                watches.create_task(cache.run())

    async def listed(self, namespace: str) -> None:
        """Wait until every cache has what there is in a namespace."""
        for cache in self.all:
            await cache.listed[cache.scope(namespace)].wait()

    async def synced(self) -> None:
        """Wait until every cache has what there is, but in namespaces that the API server says no to."""
        for cache in self.all:
            await cache.synced.wait()
