"""What the turns of all workers share."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from django_task_operator.cluster.caches import Caches
    from django_task_operator.cluster.hash_key import HashKey
    from django_task_operator.cluster.kube import Kube
    from django_task_operator.cluster.secrets import Secrets
    from django_task_operator.cluster.transport import WritePermit
    from django_task_operator.keepers.stages import Stages
    from django_task_operator.metrics_api.availability import MetricsApi
    from django_task_operator.metrics_api.figures import Figures
    from django_task_operator.reconcile.queues import ServedQueues
    from django_task_operator.resources import RuntimeSource
    from django_task_operator.tasktable import Databases, TokenRules


@dataclass(frozen=True, slots=True)
class World:
    """The connections to the cluster and the databases, and what the operator was started with.

    Args:
        kube: the API server.
        permit: whether the cluster and the databases may be written to.
        caches: the workers' objects, as the watches last reported them.
        secrets: the database URLs.
        hash_key: what the database URLs are hashed with.
        databases: the task tables.
        tokens: which databases' passwords are tokens.
        served_queues: which worker serves which queues.
        clock: returns monotonic seconds.
        instance: the name of the operator's pod.
        runtime: where runtime Injected is copied from.
        restricted: whether pod templates must not contain anything that reaches outside the namespace.
        metrics_api: whether an HPA can get the workers' ``figures``.
        figures: what the metrics API answers.
        stages: whose pods get the operator's runtime next, one worker after the other.
        migrating: held while a migration's Job is created.
    """

    kube: Kube
    permit: WritePermit
    caches: Caches
    secrets: Secrets
    hash_key: HashKey
    databases: Databases
    tokens: TokenRules
    served_queues: ServedQueues
    clock: Callable[[], float]
    instance: str
    runtime: RuntimeSource
    restricted: bool
    metrics_api: MetricsApi
    figures: Figures
    stages: Stages
    migrating: asyncio.Lock = field(default_factory=asyncio.Lock)
