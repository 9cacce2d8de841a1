"""Puts the operator together: the one place that knows which part needs which."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from django_task_operator.cluster.caches import Caches
from django_task_operator.cluster.election import Elector, LeasePermit
from django_task_operator.cluster.handlers import watch_workers
from django_task_operator.cluster.hash_key import HashKey
from django_task_operator.cluster.kube import Kube
from django_task_operator.cluster.secrets import Secrets
from django_task_operator.cluster.transport import UNLIMITED
from django_task_operator.keepers.stages import Stages
from django_task_operator.metrics_api.availability import Off
from django_task_operator.metrics_api.figures import Figures
from django_task_operator.metrics_api.serving import ExternalMetrics
from django_task_operator.reconcile.fleet import Fleet
from django_task_operator.reconcile.queues import ServedQueues
from django_task_operator.reconcile.wakeups import WakeUps
from django_task_operator.startup.lifecycle import Operator
from django_task_operator.tasktable import Databases, TaskTable
from django_task_operator.world import World

if TYPE_CHECKING:
    from collections.abc import Callable

    from django_task_operator.cluster.transport import WritePermit
    from django_task_operator.startup.lifecycle import WatchWorkers
    from django_task_operator.startup.options import Options


@dataclass(frozen=True, slots=True)
class Outside:
    """Everything outside the operator's process; tests use fakes here.

    Args:
        kube: the API server.
        permit: whether ``kube`` and the databases may be written to.
        elector: grants the permit; None if this operator is the only one.
        databases: the task tables.
        watch_workers: reports which DjangoTaskWorkers exist.
        clock: returns monotonic seconds.
    """

    kube: Kube
    permit: WritePermit
    elector: Elector | None
    databases: Databases
    watch_workers: WatchWorkers
    clock: Callable[[], float] = time.monotonic

    @classmethod
    async def connect(cls, options: Options) -> Self:
        """Connect to the API server; whoever calls this closes ``kube``."""
        permit = LeasePermit()
        kube = await Kube.connect(options.kubeconfig, permit if options.lease else UNLIMITED)
        return cls(
            kube=kube,
            permit=permit if options.lease else UNLIMITED,
            elector=Elector(kube, options.lease, options.instance, permit) if options.lease else None,
            databases=Databases(open_table=functools.partial(TaskTable, networks=options.database_networks)),
            watch_workers=functools.partial(watch_workers, options.watch_namespaces),
        )


def assemble(options: Options, outside: Outside) -> Operator:
    """Assemble an operator from its parts. Nothing is requested or started before ``Operator.run``."""
    kube, clock, wake_ups = outside.kube, outside.clock, WakeUps()
    figures = Figures(clock)
    metrics_api = None
    if options.metrics_api:
        metrics_api = ExternalMetrics(
            kube, options.metrics_api, figures, clock=clock, changed=wake_ups.wake_all
        )
    caches = Caches(kube, options.watch_namespaces, wake_ups.wake)
    world = World(
        kube=kube,
        permit=outside.permit,
        caches=caches,
        secrets=Secrets(kube, clock),
        hash_key=HashKey(kube, options.hash_key, clock),
        databases=outside.databases,
        tokens=options.database_tokens,
        served_queues=ServedQueues(wake_ups.wake),
        clock=clock,
        instance=options.instance,
        runtime=options.runtime,
        restricted=options.restrict_pod_templates,
        metrics_api=metrics_api or Off(),
        figures=figures,
        stages=Stages(caches.deployments, clock),
    )
    return Operator(
        world,
        Fleet(world, wake_ups),
        namespaces=options.watch_namespaces,
        watch_workers=outside.watch_workers,
        elector=outside.elector,
        metrics_api=metrics_api,
    )
