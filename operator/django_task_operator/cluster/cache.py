"""Caches of the cluster's objects, each kept by a watch."""

from __future__ import annotations

import asyncio
import logging
from http import HTTPStatus
from typing import TYPE_CHECKING

from django_task_operator import telemetry
from django_task_operator.backoff import Backoff
from django_task_operator.cluster.api_errors import API_ERRORS, describe, has_status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from django_task_operator.cluster.kube import Kind, Kube
    from django_task_operator.spec import Key, Manifest

log = logging.getLogger(__name__)

# A refused connection costs little, and the operator sees no changes until the watch is back.
WATCH_DELAY, LONGEST_WATCH_DELAY = 0.5, 4.0

# After a refusal. An API server that has just started refuses for a moment, before it has read its roles; if
# a namespace or the permissions on it are gone, it refuses for long. Also for an overloaded API server.
LONGEST_REFUSED_DELAY = 30.0
# After this many refusals in a row, which take 3.5 s, the refusal counts as lasting.
REFUSALS = 4

# Of how many deleted objects of a kind the last state is kept.
MOST_DEPARTED = 1000

# What ``keep_watching`` yields in addition to the API server's own types of events.
EXPIRED, BROKEN, REFUSED = "EXPIRED", "BROKEN", "REFUSED"


async def keep_watching(
    kube: Kube, path: str, label_selector: str = "", *, field_selector: str = ""
) -> AsyncIterator[tuple[str, Manifest]]:
    """Yield what ``Kube.list_and_watch`` does, for ever, and when a watch ends too early.

    (BROKEN, {}) means that it broke off, and is taken up again after a short delay; (REFUSED, {}) that the
    API server says no, and is asked again after a growing one; (EXPIRED, {}) that it fell behind, which is
    ordinary, and begins anew with a list.
    """
    backoff = Backoff(WATCH_DELAY, LONGEST_WATCH_DELAY)
    of_refusals = Backoff(WATCH_DELAY, LONGEST_REFUSED_DELAY)
    while True:
        delay = 0.0
        try:
            async for event in kube.list_and_watch(path, label_selector, field_selector=field_selector):
                backoff.reset()
                of_refusals.reset()
                yield event
        except API_ERRORS as error:
            if has_status(error, HTTPStatus.GONE):
                yield EXPIRED, {}
            else:
                is_refused = has_status(error, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND)
                is_told_to_wait = is_refused or has_status(error, HTTPStatus.TOO_MANY_REQUESTS)
                delay = of_refusals.next() if is_told_to_wait else backoff.next()
                watched = {"path": path, "fields": field_selector}
                log.warning("watch broken", extra={**watched, "error": describe(error), "retry_in": delay})
                yield (REFUSED if is_refused else BROKEN), {}
        await asyncio.sleep(delay)


class Watched[T]:
    """A cache of the objects of one kind that have the operator's labels, maintained by a watch.

    ``digest`` reduces an object of the API to what the operator needs, so that a thousand pods cost
    little; ``changed`` is called with the name of the worker that an object belongs to.
    """

    def __init__(
        self,
        kube: Kube,
        kind: Kind,
        selector: str,
        *,
        namespaces: Sequence[str],
        digest: Callable[[Manifest], T],
        owner: Callable[[Manifest], Key],
        changed: Callable[[Key], None],
    ) -> None:
        """Cache ``kind`` of some namespaces, or of all where none is named.

        Nothing is asked before ``run``.
        """
        self._kube = kube
        self.kind = kind
        self.selector = selector
        self._namespaces: Sequence[str | None] = namespaces or (None,)
        self.digest = digest
        self._owner = owner
        self._changed = changed
        self._objects: dict[Key, dict[str, tuple[int, T]]] = {}
        # The versions at which objects were deleted, so that the response to an earlier write restores none.
        self._gone: dict[tuple[Key, str], int] = {}
        self._departed: dict[tuple[Key, str], T] = {}
        self._awaited = set(self._namespaces)
        self._broken: set[str | None] = set()
        # Whether a namespace, or the cluster, has been listed.
        self.listed: dict[str | None, asyncio.Event] = {each: asyncio.Event() for each in self._namespaces}
        # Whether all have been listed, except those that the API server refuses.
        self.synced = asyncio.Event()

    def scope(self, namespace: str) -> str | None:
        """Return what is watched for a namespace: the namespace itself or, as None, the whole cluster."""
        return namespace if namespace in self.listed else None

    def is_current(self, namespace: str) -> bool:
        """Whether that whole namespace is watched now, so that objects that are not here do not exist."""
        scope = self.scope(namespace)
        return self.listed[scope].is_set() and scope not in self._broken

    def of(self, worker: Key) -> list[T]:
        """Return the known objects of a worker."""
        return [value for _, value in self._objects.get(worker, {}).values()]

    def everyones(self) -> Iterator[tuple[Key, T]]:
        """Return the known objects of all workers, with their workers."""
        for worker, objects in self._objects.items():
            for _, value in objects.values():
                yield worker, value

    def get(self, worker: Key, name: str) -> T | None:
        """Return the worker's object of that name, if it is known."""
        known = self._objects.get(worker, {}).get(name)
        return known[1] if known else None

    def departed(self, worker: Key, name: str) -> T | None:
        """Return the last state of an object of the worker that was deleted, if that was not long ago."""
        return self._departed.get((worker, name))

    def put(self, manifest: Manifest) -> None:
        """Store an object, unless a newer state of it is already known.

        Responses to writes are stored, too: the watch may still report an earlier state.
        """
        owner, name = self._owner(manifest), manifest["metadata"]["name"]
        # Resource versions of one object may be compared as numbers: guaranteed since Kubernetes 1.35
        # (KEP-5504), and before because etcd counts in this way.
        version = int(manifest["metadata"]["resourceVersion"])
        known = self._objects.get(owner, {}).get(name)
        if version <= (known[0] if known else self._gone.get((owner, name), 0)):
            return
        value = self.digest(manifest)
        self._objects.setdefault(owner, {})[name] = (version, value)
        if not known or known[1] != value:
            self._changed(owner)

    def drop(self, manifest: Manifest) -> None:
        """Remove an object that is gone."""
        owner, name = self._owner(manifest), manifest["metadata"]["name"]
        self._gone[owner, name] = int(manifest["metadata"]["resourceVersion"])
        self._departed.pop((owner, name), None)
        self._departed[owner, name] = self.digest(manifest)
        if len(self._departed) > MOST_DEPARTED:
            del self._departed[next(iter(self._departed))]
        if self._objects.get(owner, {}).pop(name, None):
            self._changed(owner)
        if not self._objects.get(owner):
            self._objects.pop(owner, None)

    async def run(self) -> None:
        """Watch until cancelled; a broken watch is taken up again after a short delay."""
        async with asyncio.TaskGroup() as watches:
            for namespace in self._namespaces:
                watches.create_task(self._watch(namespace))

    async def _watch(self, namespace: str | None) -> None:
        path, was_away, refusals = self.kind.path(namespace), False, 0
        watching = telemetry.WATCHING.labels(namespace or "", self.kind.plural)
        async for kind, item in keep_watching(self._kube, path, self.selector):
            if kind in {BROKEN, REFUSED, EXPIRED}:
                self._broken.add(namespace)
                was_away |= kind != EXPIRED
                watching.set(0)
                refusals = refusals + 1 if kind == REFUSED else 0
                # The others need not wait for it. Where it is the cluster, there are no others.
                if namespace and refusals == REFUSALS:
                    log.warning("namespace not served", extra={"namespace": namespace, "path": path})
                    self._await_no_more(namespace)
            elif kind == "LIST":
                self._replace(namespace, item["items"])
                self._broken.discard(namespace)
                watching.set(1)
                refusals = 0
                # The API server is back: failed writes need not wait for their retry.
                for owner in list(self._objects) if was_away else ():
                    self._changed(owner)
                was_away = False
            elif kind == "DELETED":
                self.drop(item)
            else:
                self.put(item)

    def _replace(self, namespace: str | None, items: list[Manifest]) -> None:
        listed = {(self._owner(item), item["metadata"]["name"]) for item in items}
        self._gone.clear()
        for owner, objects in list(self._objects.items()):
            if namespace in {None, owner.namespace}:
                for name in [name for name in objects if (owner, name) not in listed]:
                    del objects[name]
                    self._changed(owner)
        for item in items:
            self.put(item)
        self.listed[namespace].set()
        self._await_no_more(namespace)

    def _await_no_more(self, namespace: str | None) -> None:
        self._awaited.discard(namespace)
        if not self._awaited:
            self.synced.set()
