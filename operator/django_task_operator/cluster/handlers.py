"""Everything that has to do with kopf, which reports the DjangoTaskWorkers.

kopf runs in its own thread: in a shared event loop it replaces the signal handlers and, when it stops,
cancels tasks that are not its own.
"""

from __future__ import annotations

import asyncio
import copy
import functools
import logging
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import kopf

from django_task_operator.cluster.api_errors import API_ERRORS, describe
from django_task_operator.spec import GROUP, PLURAL, VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from django_task_operator.spec import Manifest

log = logging.getLogger(__name__)

# When to retry a namespace that cannot be watched, in addition to kopf's own attempts (7.5 s).
AGAIN_SECONDS = 30.0


async def watch_workers(
    namespaces: Sequence[str], observe: Callable[..., None], ready: Callable[[], None]
) -> None:
    """Hand every state of a DjangoTaskWorker of ``namespaces``, or of the cluster, to ``observe``.

    Returns when the watch has ended by itself, and ends it when cancelled. ``ready`` is called once kopf
    watches.
    """
    ended = asyncio.Event()
    watcher = _Watcher(observe, asyncio.get_running_loop(), namespaces=namespaces, ended=ended.set)
    watcher.start()
    try:
        await asyncio.to_thread(watcher.ready.wait)
        if not ended.is_set():
            ready()
        await ended.wait()
    finally:
        await asyncio.to_thread(watcher.stop)


class _Watcher(threading.Thread):
    """kopf, which hands every state of a DjangoTaskWorker to ``observe``, in ``loop``."""

    def __init__(
        self,
        observe: Callable[..., None],
        loop: asyncio.AbstractEventLoop,
        *,
        namespaces: Sequence[str],
        ended: Callable[[], None],
    ) -> None:
        """Watch ``namespaces``, or the whole cluster; ``ended`` is called in ``loop`` at the end."""
        super().__init__(name="kopf", daemon=True)
        self._observe = observe
        self._loop = loop
        self._namespaces = namespaces
        self._ended = ended
        self._stopped = threading.Event()
        # Wakes the thread's own loop, once it has one.
        self._tell: Callable[[], object] | None = None
        self.ready = threading.Event()

    def stop(self) -> None:
        """End the watch; returns when the thread has ended, or after 5 seconds."""
        self._stopped.set()
        if self._tell:
            # One that has just ended by itself has no loop any more.
            with suppress(RuntimeError):
                self._tell()
        if self.is_alive():
            self.join(timeout=5)

    def run(self) -> None:
        """Watch until stopped."""
        try:
            asyncio.run(self._watch())
        except Exception as error:
            # What the API server answers, such as when the definition has been deleted, is no bug of ours.
            is_answer = isinstance(error.__cause__ or error, API_ERRORS)
            told = {"error": describe(error)}
            log.exception("watch of the workers ended", extra=told, exc_info=not is_answer)
        finally:
            if not self._stopped.is_set():
                self._loop.call_soon_threadsafe(self._ended)
            # A thread that waits for it would keep the process from exiting.
            self.ready.set()

    async def _watch(self) -> None:
        # Not the thread's event, for which each kopf would keep one of the few threads of this loop.
        stop_flag = asyncio.Event()
        self._tell = functools.partial(asyncio.get_running_loop().call_soon_threadsafe, stop_flag.set)
        if self._stopped.is_set():
            return
        if self._namespaces:
            await asyncio.gather(*(self._watch_again(each, stop_flag) for each in self._namespaces))
        else:
            await self._run_kopf((), stop_flag)

    async def _watch_again(self, namespace: str, stop_flag: asyncio.Event) -> None:
        """Watch one namespace, again and again: kopf gives up if it is gone or not permitted any more."""
        while not stop_flag.is_set():
            try:
                await self._run_kopf((namespace,), stop_flag)
            except Exception as error:  # noqa: BLE001 - whatever it is, the other namespaces go on
                log.warning("workers not watched", extra={"namespace": namespace, "error": repr(error)})
            with suppress(TimeoutError):
                async with asyncio.timeout(AGAIN_SECONDS):
                    await stop_flag.wait()

    async def _run_kopf(self, namespaces: Sequence[str], stop_flag: asyncio.Event) -> None:
        # Unused without peers. The default is the user's name; in a container there is none. kopf's type
        # for it is a str of a name that kopf does not export.
        identity: Any = GROUP
        # A separate task has its own context, in which kopf stores its connections.
        await asyncio.create_task(
            kopf.operator(
                registry=self._registry(),
                settings=_settings(),
                standalone=True,
                identity=identity,
                clusterwide=not namespaces,
                namespaces=list(namespaces),
                stop_flag=stop_flag,
                ready_flag=self.ready,
            )
        )

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()

        @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
        def worker_changed(type: str | None, body: kopf.Body, **_: Any) -> None:  # noqa: A002 - kopf's name
            # A copy, because kopf's body changes later.
            manifest: Manifest = copy.deepcopy(dict(body))
            self._loop.call_soon_threadsafe(lambda: self._observe(manifest, deleted=type == "DELETED"))

        @kopf.on.login(registry=registry)
        def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
            return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)

        return registry


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    # Discovery of our kind needs no right to list definitions, and events are written elsewhere.
    settings.scanning.disabled = True
    settings.posting.enabled = False
    # Its default is to kill the process ten minutes after one namespace could not be watched.
    settings.process.ultimate_exiting_timeout = None
    settings.watching.server_timeout = 600
    settings.watching.client_timeout = 660
    settings.watching.connect_timeout = 10
    # The default grows to 21 s, which is too long after a restart of the API server.
    settings.networking.error_backoffs = [0.5, 1, 2, 4]
    return settings
