"""How requests reach the API server: with a timeout, few at a time, and writes only with a permit."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from math import inf, isinf
from typing import TYPE_CHECKING, Protocol

import aiohttp
from kubernetes.aio.client.exceptions import ApiException

from django_task_operator.cluster.connections import BEFORE_SENDING, NotLeading, RestClient, TooLateToSend
from django_task_operator.telemetry import API_REQUESTS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from kubernetes.aio.client import ApiClient

    from django_task_operator.spec import Manifest

REQUEST_TIMEOUT = aiohttp.ClientTimeout(total=15, connect=5)
# Limits the concurrent requests after a restart with a thousand workers.
CONCURRENT_REQUESTS = 10
# A write that has no connection by then is not sent as it is: it would promise too much.
CONNECT_SECONDS = 1.0
# How often a write is prepared anew, when a busy machine takes longer than that for a connection.
ATTEMPTS = 5

# The metric's code of a request without an answer, as in client-go's rest_client_requests_total.
NO_ANSWER = "<error>"

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"


@dataclass(frozen=True, slots=True)
class Request:
    """A request to the API server."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: Manifest | list[Manifest] | None = None
    content_type: str = JSON

    @property
    def kind(self) -> str:
        """The plural name of the kind of objects that it is about: a label of the metric."""
        parts = self.path.split("/")
        return parts[parts.index("namespaces") + 2] if "namespaces" in parts else parts[-1]


class WritePermit(Protocol):
    """Says whether this operator may write, or whether another one may be the leader."""

    def seconds(self) -> float:
        """For how many seconds a write that begins now may take effect; at 0 it must not begin."""


class Unlimited:
    """The permit of an operator that is the only one."""

    def seconds(self) -> float:
        """Permit writes forever."""
        return inf


UNLIMITED = Unlimited()


class Transport:
    """Sends requests to one API server. Raises ``API_ERRORS``."""

    def __init__(self, client: ApiClient, permit: WritePermit) -> None:
        """Take over ``client``, which ``close`` ends, and send no write that ``permit`` does not allow."""
        client.rest_client = RestClient(client.configuration)
        self._client = client
        self._permit = permit
        self._slots = asyncio.Semaphore(CONCURRENT_REQUESTS)
        self._writes: set[asyncio.Task[Manifest]] = set()
        self._cut = False

    async def close(self) -> None:
        """End every connection."""
        await self._client.close()

    async def cut(self) -> None:
        """Abort all connections and the requests on them, and open no more."""
        self._cut = True
        await self._client.close()

    async def written(self, within: float) -> bool:
        """Wait until no write is in progress; return False if one still is after that many seconds."""
        if self._writes:
            await asyncio.wait(self._writes, timeout=within)
        return not self._writes

    async def read(self, request: Request) -> Manifest:
        """Send a request that changes nothing, when fewer than ``CONCURRENT_REQUESTS`` are in progress."""
        async with self._slots:
            return await self.send_at_once(request)

    async def write(self, request: Request) -> Manifest:
        """Send a request that changes something, if the permit allows it until the request has an answer.

        It continues even if its caller is cancelled: otherwise it would be unknown whether it took effect,
        and no other operator may write before it has.

        Raises:
            NotLeading: the permit does not allow it.
        """
        task = asyncio.create_task(self._write(request))
        self._writes.add(task)
        task.add_done_callback(self._wrote)
        return await asyncio.shield(task)

    async def _write(self, request: Request) -> Manifest:
        async with self._slots:
            for _ in range(ATTEMPTS - 1):
                try:
                    return await self._write_now(request)
                except TooLateToSend:
                    # Nothing was sent, and the permit may have been renewed.
                    continue
            return await self._write_now(request)

    async def _write_now(self, request: Request) -> Manifest:
        permitted = self._permit.seconds()
        if permitted <= 0:
            raise NotLeading("this operator does not lead")
        # The API server gives up a request that it cannot finish by then, however late it started.
        least = permitted - CONNECT_SECONDS
        if not isinf(least):
            request = replace(request, query={**request.query, "timeout": f"{least:f}s"})

        def still_permitted() -> None:
            if self._permit.seconds() < least:
                raise TooLateToSend("there was no connection in time")

        BEFORE_SENDING.set(still_permitted)
        try:
            return await self.send_at_once(request)
        except aiohttp.ClientOSError as error:
            # aiohttp's own error for all that happens while it connects.
            if isinstance(error.__cause__, TooLateToSend):
                raise error.__cause__ from None
            raise

    def _wrote(self, task: asyncio.Task[Manifest]) -> None:
        self._writes.discard(task)
        if not task.cancelled():
            # Retrieve the exception, even if there is no caller any more.
            task.exception()

    async def send_at_once(
        self,
        request: Request,
        timeout: aiohttp.ClientTimeout = REQUEST_TIMEOUT,  # noqa: ASYNC109 - aiohttp's own kind of time-out
    ) -> Manifest:
        """Send a request that needs no permit and waits for no other request."""
        response = await self._response(request, timeout)
        answer: Manifest = await response.json()
        return answer

    async def lines(
        self,
        request: Request,
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109
    ) -> AsyncGenerator[bytes]:
        """Send a request at once, and yield each line of its answer as soon as it is there."""
        response = await self._response(request, timeout)
        try:
            # Not readline: an object may be larger than aiohttp's limit for a line.
            rest = b""
            async for chunk in response.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    if line:
                        yield line
        finally:
            response.close()

    async def _response(
        self,
        request: Request,
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109
    ) -> aiohttp.ClientResponse:
        serialized = await self._client.param_serialize(
            request.method,
            request.path,
            query_params=list(request.query.items()),
            header_params={"Accept": JSON, "Content-Type": request.content_type},
            body=request.body,
            auth_settings=["BearerToken"],
        )
        if self._cut:
            raise NotLeading("this operator leads no more")
        code = NO_ANSWER
        try:
            answer = await self._client.call_api(*serialized, _request_timeout=timeout)
            response: aiohttp.ClientResponse = answer.response
            code = str(response.status)
        finally:
            API_REQUESTS.labels(request.method, request.kind, code).inc()
        if not response.ok:
            text = await response.text()
            # That the object of a name is another one by now is a conflict, also where the API server
            # takes the uid for an attempt to change it.
            status = HTTPStatus.CONFLICT if _names_another(text) else response.status
            raise ApiException(status=status, reason=response.reason, body=text)
        return response


def _names_another(text: str) -> bool:
    """Whether a refusal says that the object has another uid than the one that was meant."""
    with suppress(KeyError, TypeError, ValueError, AttributeError):
        causes = json.loads(text)["details"]["causes"]
        return any(cause.get("field") == "metadata.uid" for cause in causes)
    return False
