"""A complete operator between a fake API server and fake databases."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tests.unit.fakes import Clock, FakeDatabases, FakeKube, Permit, worker_manifest

from django_task_operator.reconcile.reconciler import Reconciler
from django_task_operator.startup.options import Options
from django_task_operator.startup.wiring import Outside, assemble

if TYPE_CHECKING:
    from collections.abc import Callable

URL = "postgres://shop-user:s3cr%65t!pass@db.shop.svc:5432/shop"
OPTIONS = Options(instance="operator-1")


def encoded(url: str) -> dict[str, str]:
    return {"DATABASE_URL": base64.b64encode(url.encode()).decode()}


class Bench:
    """A cluster with a Secret in namespace shop, and an operator whose turns are started by the test."""

    def __init__(self, clock: Callable[[], float] | None = None, options: Options = OPTIONS) -> None:
        self.options = options
        self.kube, self.databases = FakeKube(), FakeDatabases()
        self.clock, self.permit = Clock(), Permit()
        self.kube.create(
            "secrets", {"metadata": {"name": "shop-db", "namespace": "shop"}, "data": encoded(URL)}
        )
        self.restart(clock or self.clock)

    def restart(self, clock: Callable[[], float], **options: Any) -> None:
        """Start another operator, without the memory of the one before."""
        self.operator = assemble(
            replace(self.options, **options),
            Outside(
                kube=self.kube,  # type: ignore[arg-type]
                permit=self.permit,
                elector=None,
                databases=self.databases,  # type: ignore[arg-type]
                watch_workers=self.kube.watch_workers,
                clock=clock,
            ),
        )
        self.world, self.fleet = self.operator.world, self.operator.fleet
        for cache in self.world.caches.all:
            self.kube.feed(cache)

    def worker(self, name: str = "emails", **spec: Any) -> dict[str, Any]:
        """Create a DjangoTaskWorker."""
        return self.kube.create("worker", worker_manifest(name, uid=f"uid-of-{name}", **spec))

    def observe(self, name: str = "emails") -> None:
        """Pass a DjangoTaskWorker to the fleet, as kopf would."""
        manifest = self.kube.read("worker", "shop", name)
        assert manifest
        self.fleet.observe(manifest, deleted=False)

    def reconciler(self, name: str = "emails") -> Reconciler:
        manifest = self.kube.read("worker", "shop", name)
        assert manifest
        return Reconciler(self.world, manifest, lambda: None)

    async def turn(self, reconciler: Reconciler, name: str = "emails") -> float:
        """Take a turn with the newest state of the worker, and then do what controllers would do."""
        manifest = self.kube.read("worker", "shop", name)
        assert manifest
        return (await reconciler.turn(manifest)).seconds

    async def running(self, ready: int, name: str = "emails", **spec: Any) -> Reconciler:
        """A worker that has settled with ``ready`` tasks waiting."""
        if self.kube.read("worker", "shop", name) is None:
            self.worker(name, **spec)
        reconciler = self.reconciler(name)
        await self.turn(reconciler, name)
        self.databases.sample(ready)
        await self.turn(reconciler, name)
        self.kube.run_deployment("shop", name)
        await self.turn(reconciler, name)
        self.kube.requests.clear()
        self.kube.events.clear()
        return reconciler

    def replicas(self, name: str = "emails") -> int | None:
        """The Deployment's replicas; None without a Deployment."""
        deployment = self.kube.read("deployments", "shop", name)
        return deployment["spec"]["replicas"] if deployment else None

    def condition(self, kind: str, name: str = "emails") -> str:
        """A condition of the stored status, as "True Reason"."""
        manifest = self.kube.read("worker", "shop", name)
        assert manifest
        (found,) = (each for each in manifest["status"]["conditions"] if each["type"] == kind)
        return f"{found['status']} {found['reason']}"

    def told(self) -> list[str]:
        """All events so far, as "Reason: note"."""
        return [f"{event['reason']}: {event['note']}" for event in self.kube.events]
