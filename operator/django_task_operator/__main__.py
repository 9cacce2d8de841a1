"""Starts the operator: ``python -m django_task_operator``."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
import time
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django_task_operator import logs, telemetry
from django_task_operator.cluster.cache import Watched
from django_task_operator.cluster.election import Elector, LeasePermit
from django_task_operator.cluster.handlers import Watcher
from django_task_operator.cluster.kube import (
    API_ERRORS,
    AUTOSCALERS,
    DEPLOYMENTS,
    JOBS,
    PODS,
    REPLICA_SETS,
    UNLIMITED,
    Kind,
    Kube,
    describe,
)
from django_task_operator.cluster.secrets import Secrets
from django_task_operator.keepers.children import CHILD_KINDS
from django_task_operator.metrics_api.availability import Off
from django_task_operator.metrics_api.figures import Figures
from django_task_operator.metrics_api.serving import ExternalMetrics, Settings
from django_task_operator.observed.objects import Autoscaler, Child, Deployment, Job, ReplicaSet, owner_of
from django_task_operator.observed.pods import JobPod, Pod
from django_task_operator.reconcile.fleet import Fleet
from django_task_operator.reconcile.queues import ServedQueues
from django_task_operator.resources import RuntimeSource
from django_task_operator.resources.labels import MANAGED_SELECTOR, MIGRATION_SELECTOR
from django_task_operator.spec import Key, key_of
from django_task_operator.tasktable import Databases
from django_task_operator.world import World

if TYPE_CHECKING:
    from collections.abc import Callable

    from django_task_operator.cluster.kube import WritePermit
    from django_task_operator.spec import Manifest

log = logging.getLogger("django_task_operator")

RETRY_SECONDS = 2.0
# How long after the start the watch may take to tell of a worker that was listed.
EXPECTED_SECONDS = 30.0
RUNTIME_IMAGE = "django-task-worker:dev"


@dataclass(frozen=True, slots=True)
class Options:
    """The command line."""

    watch_namespaces: tuple[str, ...]
    port: int
    runtime: RuntimeSource
    kubeconfig: str | None
    metrics_api: Settings | None
    lease: Key | None
    instance: str


def main(argv: list[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT; exit code 1 if the operator cannot go on."""
    parser = argparse.ArgumentParser(prog="django-task-operator", description=__doc__)
    parser.add_argument(
        "--watch-namespace",
        action="append",
        default=[],
        metavar="NAMESPACE",
        help="look after the workers of this namespace only; may be given several times",
    )
    parser.add_argument("--port", type=int, default=8080, help="of /healthz, /readyz and /metrics")
    parser.add_argument(
        "--runtime-image",
        default=RUNTIME_IMAGE,
        help="the worker image that runtime Injected is copied from (default: %(default)s)",
    )
    parser.add_argument(
        "--runtime-revision", default="", help="changes when the worker image changes under the same name"
    )
    _add_metrics_api(parser)
    parser.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    parser.add_argument("--log-format", default="json", choices=["json", "text"])
    parser.add_argument("--kubeconfig", help="outside a cluster: the kubeconfig to use (its current context)")
    parser.add_argument(
        "--lease",
        metavar="NAME",
        help="of several operators only the one that holds this Lease is at work; needs POD_NAME and"
        " POD_NAMESPACE in the environment. Without it no other operator may be running",
    )
    given = parser.parse_args(argv)
    pod, namespace = os.environ.get("POD_NAME"), os.environ.get("POD_NAMESPACE")
    if given.lease and not (pod and namespace):
        parser.error("--lease: POD_NAME and POD_NAMESPACE must say which pod this is")
    logs.configure(given.log_level, given.log_format)
    if given.kubeconfig:
        # kopf finds its credentials there.
        os.environ["KUBECONFIG"] = given.kubeconfig
    options = Options(
        watch_namespaces=tuple(given.watch_namespace),
        port=given.port,
        runtime=RuntimeSource(given.runtime_image, given.runtime_revision),
        kubeconfig=given.kubeconfig,
        metrics_api=_metrics_api(given),
        lease=Key(namespace=namespace, name=given.lease) if given.lease and namespace else None,
        instance=pod or socket.gethostname(),
    )
    return asyncio.run(operate(options))


def _add_metrics_api(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("external metrics for the HorizontalPodAutoscaler")
    group.add_argument(
        "--metrics-api-service",
        default="",
        metavar="NAME",
        help="serve external.metrics.k8s.io behind this Service of the operator's namespace",
    )
    group.add_argument("--metrics-api-port", type=int, default=8443, help="what that Service forwards to")
    group.add_argument(
        "--metrics-api-owner",
        default="",
        metavar="CLUSTERROLE",
        help="the APIService is deleted together with it",
    )
    group.add_argument(
        "--metrics-api-secret", default="", metavar="NAME", help="where the serving certificate is kept"
    )
    group.add_argument(
        "--metrics-api-certificate-directory",
        default="",
        metavar="DIRECTORY",
        help="where tls.crt, tls.key and ca.crt are mounted, of a certificate that somebody else renews",
    )
    group.add_argument(
        "--metrics-api-certificate-hours",
        type=float,
        default=2160,
        help="how long a certificate is valid that the operator makes (default: %(default)g)",
    )


def _metrics_api(given: argparse.Namespace) -> Settings | None:
    if not given.metrics_api_service:
        return None
    return Settings(
        namespace=os.environ.get("POD_NAMESPACE", "default"),
        service=given.metrics_api_service,
        port=given.metrics_api_port,
        owner=given.metrics_api_owner,
        secret=given.metrics_api_secret,
        directory=given.metrics_api_certificate_directory,
        validity=timedelta(hours=given.metrics_api_certificate_hours),
    )


async def operate(options: Options) -> int:
    """Run the operator in this event loop until it is told to stop; return the exit code."""
    loop = asyncio.get_running_loop()
    stopping, warm, ready, broken = asyncio.Event(), asyncio.Event(), asyncio.Event(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)

    async with AsyncExitStack() as stack:
        permit = LeasePermit() if options.lease else None
        kube = await Kube.connect(options.kubeconfig, permit or UNLIMITED)
        stack.push_async_callback(kube.close)
        elector = Elector(kube, options.lease, options.instance, permit) if options.lease and permit else None
        # One that stands by is as ready as it can be.
        readiness = [ready, elector.standing_by] if elector else [ready]
        server = await telemetry.serve(
            options.port,
            alive=lambda: not broken.is_set(),
            ready=lambda: any(event.is_set() for event in readiness),
        )
        stack.push_async_callback(server.cleanup)
        fleet, databases = Fleet(), Databases()
        stack.push_async_callback(databases.close)
        if elector:
            stack.push_async_callback(elector.resign)
        stack.push_async_callback(fleet.stop)
        watcher = Watcher(fleet.observe, loop, namespaces=options.watch_namespaces, ended=broken.set)
        stack.push_async_callback(asyncio.to_thread, watcher.stop)

        tasks = [
            asyncio.create_task(
                _run(kube, fleet, databases, watcher, elector, options, warm, ready, permit or UNLIMITED),
                name="run",
            ),
            asyncio.create_task(stopping.wait(), name="stop"),
            asyncio.create_task(broken.wait(), name="broken"),
        ]
        if elector:
            tasks.append(asyncio.create_task(_stand(elector, warm), name="run"))
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            if task.get_name() == "run":
                task.result()
        log.info("stopped", extra={"workers": len(fleet)})
        return 0 if stopping.is_set() else 1


async def _stand(elector: Elector, warm: asyncio.Event) -> None:
    """Stand for election once there is nothing else to wait for; ends when another may lead."""
    await warm.wait()
    await elector.run()


async def _run(
    kube: Kube,
    fleet: Fleet,
    databases: Databases,
    watcher: Watcher,
    elector: Elector | None,
    options: Options,
    warm: asyncio.Event,
    ready: asyncio.Event,
    permit: WritePermit,
) -> None:
    """Watch first and turn afterwards, so that the first turn already sees what runs."""

    def watched[T](
        kind: Kind, digest: Callable[[Manifest], T], selector: str = MANAGED_SELECTOR
    ) -> Watched[T]:
        return Watched(
            kube,
            kind,
            selector,
            namespaces=options.watch_namespaces,
            digest=digest,
            owner=owner_of,
            changed=fleet.wake,
        )

    deployments = watched(DEPLOYMENTS, Deployment.of)
    replica_sets = watched(REPLICA_SETS, ReplicaSet.of)
    pods = watched(PODS, Pod.of)
    autoscalers = watched(AUTOSCALERS, Autoscaler.of)
    children = {name: watched(kind, Child.of) for name, kind in CHILD_KINDS.items()}
    migrations = watched(JOBS, Job.of)
    migration_pods = watched(PODS, JobPod.of, MIGRATION_SELECTOR)
    caches: list[Watched[Any]] = [
        deployments,
        replica_sets,
        pods,
        autoscalers,
        migrations,
        migration_pods,
        *children.values(),
    ]
    clock = time.monotonic
    async with asyncio.TaskGroup() as group:
        for cache in caches:
            group.create_task(cache.run())
        await asyncio.gather(*(cache.synced.wait() for cache in caches))
        await _definition_installed(kube, options)
        figures = Figures(clock)
        metrics_api = options.metrics_api and ExternalMetrics(
            kube, options.metrics_api, figures, clock=clock, changed=fleet.wake_all
        )
        fleet.world = World(
            kube=kube,
            permit=permit,
            deployments=deployments,
            replica_sets=replica_sets,
            pods=pods,
            children=children,
            autoscalers=autoscalers,
            migrations=migrations,
            migration_pods=migration_pods,
            secrets=Secrets(kube, clock),
            databases=databases,
            served_queues=ServedQueues(fleet.wake),
            clock=clock,
            instance=options.instance,
            runtime=options.runtime,
            metrics_api=metrics_api or Off(),
            figures=figures,
        )
        warm.set()
        if elector:
            await elector.leading.wait()
        if metrics_api:
            await _expect_workers(kube, figures, options)
            group.create_task(metrics_api.run())
        watcher.start()
        await asyncio.to_thread(watcher.ready.wait)
        ready.set()
        log.info("ready", extra={"namespaces": ", ".join(options.watch_namespaces) or "all"})


async def _definition_installed(kube: Kube, options: Options) -> None:
    """Wait for the resource definition: kopf would never notice one that comes later."""
    namespace = next(iter(options.watch_namespaces), None)
    while True:
        try:
            await kube.list_workers(namespace)
        except API_ERRORS as error:
            log.warning("DjangoTaskWorkers cannot be listed yet", extra={"error": describe(error)})
            await asyncio.sleep(RETRY_SECONDS)
        else:
            return


async def _expect_workers(kube: Kube, figures: Figures, options: Options) -> None:
    """Answer nothing for a namespace before its workers are known: a sum of some would scale in."""
    for namespace in options.watch_namespaces or (None,):
        # One that cannot be listed has no workers that are looked after.
        with suppress(*API_ERRORS):
            for manifest in (await kube.list_workers(namespace))["items"]:
                figures.expect(key_of(manifest), EXPECTED_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
