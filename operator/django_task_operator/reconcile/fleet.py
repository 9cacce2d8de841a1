"""One asyncio task per worker: started, woken, stopped."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from django_task_operator import telemetry
from django_task_operator.errors import WorkerGone
from django_task_operator.reconcile.reconciler import Reconciler
from django_task_operator.spec import key_of

if TYPE_CHECKING:
    from django_task_operator.reconcile.wakeups import WakeUps
    from django_task_operator.spec import Key, Manifest
    from django_task_operator.world import World

log = logging.getLogger(__name__)

# After an unexpected error, a worker's turns continue at this interval, so that the log stays readable.
UNFORESEEN_SECONDS = 30.0


class Fleet:
    """All DjangoTaskWorkers that the operator manages."""

    def __init__(self, world: World, wake_ups: WakeUps) -> None:
        """Start empty; each worker's loop registers with ``wake_ups``."""
        self._world = world
        self.wake_ups = wake_ups
        self._loops: dict[Key, _Loop] = {}

    def __len__(self) -> int:
        return len(self._loops)

    def observe(self, manifest: Manifest, *, deleted: bool) -> None:
        """Process the newest state of a DjangoTaskWorker."""
        key, metadata = key_of(manifest), manifest["metadata"]
        loop = self._loops.get(key)
        # A name may be reused: an object with another uid is another worker.
        if loop and loop.uid != metadata["uid"]:
            self._stop(key)
            loop = None
        if deleted or metadata.get("deletionTimestamp"):
            self._stop(key)
        elif loop:
            loop.update(manifest)
        else:
            log.info("worker found", extra={"worker": str(key)})
            self._loops[key] = new = _Loop(self._world, manifest)
            self.wake_ups.listen(key, new.wake)
            new.task.add_done_callback(lambda _: self._ended(key, new))

    async def stop(self) -> None:
        """End every worker's task immediately: no pod depends on it."""
        loops = list(self._loops.values())
        for loop in loops:
            loop.task.cancel()
        await asyncio.gather(*(loop.task for loop in loops), return_exceptions=True)

    def _stop(self, key: Key) -> None:
        if loop := self._loops.pop(key, None):
            log.info("worker gone", extra={"worker": str(key)})
            self.wake_ups.leave(key)
            loop.task.cancel()

    def _ended(self, key: Key, loop: _Loop) -> None:
        if self._loops.get(key) is loop:
            del self._loops[key]
            self.wake_ups.leave(key)


class _Loop:
    """Takes one worker's turns, one after the other."""

    def __init__(self, world: World, manifest: Manifest) -> None:
        self.uid: str = manifest["metadata"]["uid"]
        self._manifest = manifest
        self._due = asyncio.Event()
        self._world = world
        self.task = asyncio.create_task(self._run(), name=str(key_of(manifest)))

    def update(self, manifest: Manifest) -> None:
        """Take over a new state; one that differs only in its status is the echo of our own write."""
        changed = manifest["metadata"]["generation"] != self._manifest["metadata"]["generation"]
        self._manifest = manifest
        if changed:
            self.wake()

    def wake(self) -> None:
        self._due.set()

    async def _run(self) -> None:
        # A namespace that was not served before may have come back: what runs there has to be known first.
        await self._world.caches.listed(key_of(self._manifest).namespace)
        reconciler = Reconciler(self._world, self._manifest, self.wake)
        try:
            while True:
                self._due.clear()
                wait = await self._turn(reconciler)
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._due.wait()
        except WorkerGone:
            log.info("worker gone", extra={"worker": self.task.get_name()})
        finally:
            reconciler.close()

    async def _turn(self, reconciler: Reconciler) -> float:
        try:
            with telemetry.TURN_SECONDS.time():
                due = await reconciler.turn(self._manifest)
        except WorkerGone:
            raise
        except Exception:
            # The one place that keeps a worker's loop alive whatever happens: a bug that shows in
            # one worker must not stop it for good, nor touch another.
            log.exception("turn failed", extra={"worker": self.task.get_name()})
            telemetry.TURNS.labels("failed").inc()
            return UNFORESEEN_SECONDS
        telemetry.TURNS.labels("done").inc()
        return due.seconds
