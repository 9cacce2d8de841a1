"""A Lease in an API server, which each candidate reaches over its own good or bad connection."""

from __future__ import annotations

import asyncio
import copy
import itertools
from typing import TYPE_CHECKING, Any

from tests.unit.fakes import refusal

from django_task_operator.cluster.transport import UNLIMITED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from django_task_operator.cluster.transport import WritePermit
    from django_task_operator.spec import Key

type Manifest = dict[str, Any]
# Seconds to the server and back again; None is a message that never arrives.
type Delay = tuple[float | None, float | None]


class LeaseServer:
    """Stores a Lease and the labels of pods; ``passed`` is called with every change of the holder."""

    def __init__(self) -> None:
        self.lease: Manifest | None = None
        self.pods: dict[str, dict[str, str]] = {}
        self.passed: Callable[[str, str], None] = lambda *_: None
        self._versions = itertools.count(1)

    @property
    def holder(self) -> str:
        return self.lease["spec"]["holderIdentity"] if self.lease else ""

    def put(self, lease: Manifest) -> Manifest:
        version, before = lease["metadata"].get("resourceVersion"), self.holder
        if version is None and self.lease:
            raise refusal(409, "already exists")
        if version is not None and self.lease is None:
            raise refusal(404)
        if self.lease and version != self.lease["metadata"]["resourceVersion"]:
            raise refusal(409, "the object has been modified")
        self.lease = copy.deepcopy(lease)
        self.lease["metadata"]["resourceVersion"] = str(next(self._versions))
        if before != self.holder:
            self.passed(before, self.holder)
        return copy.deepcopy(self.lease)

    def edit(self, **annotations: str) -> None:
        """Change something that does not concern the election."""
        assert self.lease
        self.put({**self.lease, "metadata": {**self.lease["metadata"], "annotations": annotations}})

    def label(self, pod: str, label: str, value: str | None) -> None:
        if pod not in self.pods:
            raise refusal(404)
        self.pods[pod].pop(label, None)
        if value is not None:
            self.pods[pod][label] = value


class Line:
    """Stands in for ``Kube``. A request arrives even if nobody waits for its answer any more."""

    def __init__(self, server: LeaseServer, delays: Iterable[Delay] = ()) -> None:
        self.server = server
        self.permit: WritePermit = UNLIMITED
        self.delays = itertools.chain(delays, itertools.repeat((0.0, 0.0)))
        self.down: BaseException | None = None
        self.requests: list[str] = []
        self.writes_end = True
        self.is_cut = False

    async def get_lease(self, _: Key) -> Manifest | None:
        return await self._ask("get", lambda: copy.deepcopy(self.server.lease))

    async def put_lease(self, lease: Manifest) -> Manifest:
        lease = copy.deepcopy(lease)
        return await self._ask("put", lambda: self.server.put(lease))

    async def list_pods(self, _: str, label_selector: str) -> list[Manifest]:
        name, value = label_selector.split("=")

        def found() -> list[Manifest]:
            return [
                {"metadata": {"name": pod}}
                for pod, labels in self.server.pods.items()
                if labels.get(name) == value
            ]

        return await self._ask("list", found)

    async def label_pod(self, key: Key, label: str, value: str | None) -> None:
        assert self.permit.seconds() > 0
        await self._ask(f"label {key.name}", lambda: self.server.label(key.name, label, value))

    async def unlabel_pod(self, key: Key, label: str) -> None:
        await self._ask(f"unlabel {key.name}", lambda: self.server.label(key.name, label, None))

    async def written(self, within: float) -> bool:
        assert self.permit.seconds() == 0, "another write may begin"
        await asyncio.sleep(0 if self.writes_end else within)
        return self.writes_end

    async def cut(self) -> None:
        self.is_cut = True

    async def _ask[T](self, name: str, act: Callable[[], T]) -> T:
        self.requests.append(name)
        if self.down:
            raise self.down
        there, back = next(self.delays)
        arrival = asyncio.create_task(self._arrive(there, act))
        arrival.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.wait([arrival])
        await _travel(back)
        return arrival.result()

    async def _arrive[T](self, there: float | None, act: Callable[[], T]) -> T:
        await _travel(there)
        return act()


async def _travel(seconds: float | None) -> None:
    await (asyncio.Event().wait() if seconds is None else asyncio.sleep(seconds))
