"""The operator's life, from its first watch to its exit code.

Starting: the watches fill their caches, so that the first turn already sees existing objects. Standing by:
with a Lease, until this operator holds it. Serving: workers are managed. All of this runs in the tasks of
one group; a task that ends the operator's life raises ``Over``, which cancels the others.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack, suppress
from enum import Enum, auto
from typing import TYPE_CHECKING, Protocol

from django_task_operator import telemetry
from django_task_operator.cluster.api_errors import API_ERRORS, describe
from django_task_operator.spec import key_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from django_task_operator.cluster.election import Elector
    from django_task_operator.metrics_api.serving import ExternalMetrics
    from django_task_operator.reconcile.fleet import Fleet
    from django_task_operator.spec import Manifest
    from django_task_operator.world import World

log = logging.getLogger(__name__)

RETRY_SECONDS = 2.0
# How long after the start the watch may take to report a worker that was listed.
EXPECTED_SECONDS = 30.0


class Phase(Enum):
    """How far the operator is."""

    STARTING = auto()
    SERVING = auto()
    BROKEN = auto()


class Observe(Protocol):
    """Processes the newest state of a DjangoTaskWorker."""

    def __call__(self, manifest: Manifest, *, deleted: bool) -> None:
        """See ``Fleet.observe``."""


class WatchWorkers(Protocol):
    """Reports which DjangoTaskWorkers exist, for as long as it can."""

    def __call__(self, observe: Observe, ready: Callable[[], None]) -> Awaitable[None]:
        """Call ``ready`` once it watches; return if it cannot continue, and stop when cancelled."""


class Over(Exception):
    """The operator's life is over; the text says why."""


class Operator:
    """One operator, which may have to be elected before it does anything."""

    def __init__(
        self,
        world: World,
        fleet: Fleet,
        *,
        namespaces: Sequence[str],
        watch_workers: WatchWorkers,
        elector: Elector | None,
        metrics_api: ExternalMetrics | None,
    ) -> None:
        """See ``wiring.assemble``, which creates the parts."""
        self.world = world
        self.fleet = fleet
        self._namespaces: Sequence[str | None] = namespaces or (None,)
        self._watch_workers = watch_workers
        self._elector = elector
        self._metrics_api = metrics_api
        self._phase = Phase.STARTING

    @property
    def is_alive(self) -> bool:
        """Whether it can continue."""
        return self._phase is not Phase.BROKEN

    @property
    def is_ready(self) -> bool:
        """Whether it serves or stands by: a standby is as ready as it can be."""
        stands_by = self._elector is not None and self._elector.standing_by.is_set()
        return self._phase is Phase.SERVING or stands_by

    async def run(self, stopping: asyncio.Event) -> int:
        """Run until told to stop (exit code 0), or until it cannot continue (1)."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.world.databases.close)
            if self._elector:
                stack.push_async_callback(self._elector.resign)
            stack.push_async_callback(self.fleet.stop)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._stop(stopping), name="stop")
                    await self._start(group)
            except* Over as over:
                reasons = ", ".join(str(error) for error in over.exceptions)
                log.info("stopped", extra={"workers": len(self.fleet), "reason": reasons})
        return 0 if stopping.is_set() else 1

    async def _start(self, group: asyncio.TaskGroup) -> None:
        group.create_task(self.world.caches.run(), name="caches")
        await self.world.caches.synced()
        await self._definition_installed()
        if self._elector:
            group.create_task(self._lead(self._elector), name="election")
            await self._elector.leading.wait()
        else:
            # Nobody else can be.
            telemetry.LEADER.set(1)
        if self._metrics_api:
            await self._expect_workers()
            group.create_task(self._metrics_api.run(), name="metrics API")
        group.create_task(self._serve(), name="workers")

    async def _stop(self, stopping: asyncio.Event) -> None:
        await stopping.wait()
        raise Over("told to stop")

    async def _lead(self, elector: Elector) -> None:
        await elector.run()
        raise Over("the Lease is lost")

    async def _serve(self) -> None:
        await self._watch_workers(self.fleet.observe, self._ready)
        self._phase = Phase.BROKEN
        raise Over("the watch of the DjangoTaskWorkers ended")

    def _ready(self) -> None:
        self._phase = Phase.SERVING
        log.info("ready", extra={"namespaces": ", ".join(filter(None, self._namespaces)) or "all"})

    async def _definition_installed(self) -> None:
        """Wait for the resource definition: kopf would not notice if it were installed later.

        One namespace whose workers can be listed is enough: others may be gone.
        """
        while True:
            for namespace in self._namespaces:
                try:
                    await self.world.kube.list_workers(namespace)
                except API_ERRORS as error:
                    where = {"namespace": namespace or "all", "error": describe(error)}
                    log.warning("workers not listed", extra=where)
                else:
                    return
            await asyncio.sleep(RETRY_SECONDS)

    async def _expect_workers(self) -> None:
        """Hold back a namespace's metrics until its workers are known: a partial sum would remove pods."""
        for namespace in self._namespaces:
            # A namespace that cannot be listed has no workers that this operator manages.
            with suppress(*API_ERRORS):
                for manifest in (await self.world.kube.list_workers(namespace))["items"]:
                    self.world.figures.expect(key_of(manifest), EXPECTED_SECONDS)
