"""What the turns of all workers share."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from django_task_operator.cluster.cache import Watched
    from django_task_operator.cluster.kube import Kube, WritePermit
    from django_task_operator.cluster.secrets import Secrets
    from django_task_operator.metrics_api.availability import MetricsApi
    from django_task_operator.metrics_api.figures import Figures
    from django_task_operator.observed.objects import Autoscaler, Child, Deployment, Job, ReplicaSet
    from django_task_operator.observed.pods import JobPod, Pod
    from django_task_operator.reconcile.queues import ServedQueues
    from django_task_operator.resources import RuntimeSource
    from django_task_operator.tasktable import Databases


@dataclass(frozen=True, slots=True)
class World:
    """The doors to the cluster and the databases, and what the operator was started with.

    ``permit`` says whether the cluster and the databases may be written to. ``children`` has a cache
    for each kind of object beside the Deployment, ``autoscalers`` says how
    the autoscalers among them fare, ``migrations`` has the Jobs that migrate and ``migration_pods``
    their pods, ``clock`` tells seconds and never goes back, ``instance`` names the operator's pod,
    ``runtime`` is where runtime Injected is copied from, and ``metrics_api`` tells whether an HPA can
    get the workers' ``figures``.
    """

    kube: Kube
    permit: WritePermit
    deployments: Watched[Deployment]
    replica_sets: Watched[ReplicaSet]
    pods: Watched[Pod]
    children: Mapping[str, Watched[Child]]
    autoscalers: Watched[Autoscaler]
    migrations: Watched[Job]
    migration_pods: Watched[JobPod]
    secrets: Secrets
    databases: Databases
    served_queues: ServedQueues
    clock: Callable[[], float]
    instance: str
    runtime: RuntimeSource
    metrics_api: MetricsApi
    figures: Figures
    # Held by whoever creates a Job that migrates.
    migrating: asyncio.Lock = field(default_factory=asyncio.Lock)
