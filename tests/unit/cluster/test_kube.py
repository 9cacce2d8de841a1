"""Requests to the API server as they are sent, and how its answers are understood."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import struct
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.client.exceptions import ApiException
from tests.unit.fakes import Permit

from django_task_operator.cluster.api_errors import API_ERRORS
from django_task_operator.cluster.connections import NotLeading
from django_task_operator.cluster.kube import DEPLOYMENTS, Kube
from django_task_operator.spec import Key
from django_task_operator.telemetry import API_REQUESTS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

EMAILS = Key(namespace="shop", name="emails")
DEPLOYMENT: dict[str, Any] = {
    "kind": "Deployment",
    "metadata": {"name": "emails", "namespace": "shop"},
    "spec": {},
}


class Server:
    """Records requests, and gives the answers that a test has prepared."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.answers: list[tuple[int, Any]] = []
        self.gate: asyncio.Event | None = None
        self.hangs_up = False
        self.reached, self.hung_up = asyncio.Event(), asyncio.Event()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.text()
        if self.hangs_up and request.transport:
            request.transport.abort()
        if self.gate:
            self.reached.set()
            try:
                await self.gate.wait()
            except asyncio.CancelledError:
                self.hung_up.set()
                raise
        self.asked.append(
            {
                "what": f"{request.method} {request.path}",
                "query": dict(request.query),
                "type": request.content_type,
                "body": json.loads(body) if body else None,
            }
        )
        status, answer = self.answers.pop(0) if self.answers else (200, {})
        if not isinstance(answer, list):
            return web.json_response(answer, status=status)
        response = web.StreamResponse()
        await response.prepare(request)
        for chunk in answer:
            await response.write(chunk)
        return response


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def permit() -> Permit:
    return Permit()


@pytest_asyncio.fixture
async def kube(server: Server, permit: Permit) -> AsyncIterator[Kube]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    async with TestServer(app) as running:
        kube = Kube(ApiClient(Configuration(host=str(running.make_url("")).rstrip("/"))), permit)
        yield kube
        await kube.close()


async def test_replicas_of_a_worker_as_it_was_in_a_version(kube: Kube, server: Server) -> None:
    await kube.write_worker_replicas(EMAILS, "42", 5)
    await kube.write_worker_replicas(EMAILS, "43", None)

    assert server.asked == [
        {
            "what": "PATCH /apis/djangotasks.dev/v1alpha1/namespaces/shop/djangotaskworkers/emails",
            "query": {"fieldManager": "django-task-operator"},
            "type": "application/merge-patch+json",
            "body": {"metadata": {"resourceVersion": version}, "spec": {"replicas": replicas}},
        }
        for version, replicas in (("42", 5), ("43", None))
    ]


async def test_apply_to_what_is_there(kube: Kube, server: Server) -> None:
    server.answers = [(200, {"metadata": {"uid": "d-1"}})]

    assert await kube.apply_object(DEPLOYMENTS, DEPLOYMENT, uid="d-1") == {"metadata": {"uid": "d-1"}}
    assert server.asked == [
        {
            "what": "PATCH /apis/apps/v1/namespaces/shop/deployments/emails",
            "query": {"fieldManager": "django-task-operator", "force": "true"},
            "type": "application/apply-patch+yaml",
            "body": {**DEPLOYMENT, "metadata": {**DEPLOYMENT["metadata"], "uid": "d-1"}},
        }
    ]
    assert "uid" not in DEPLOYMENT["metadata"]


async def test_create_takes_nothing_over(kube: Kube, server: Server) -> None:
    await kube.apply_object(DEPLOYMENTS, DEPLOYMENT, uid=None)

    assert server.asked[0]["query"]["force"] == "false"
    assert server.asked[0]["body"] == DEPLOYMENT


async def test_scale(kube: Kube, server: Server) -> None:
    await kube.scale_deployment(EMAILS, 3)

    assert server.asked[0]["type"] == "application/merge-patch+json"
    assert server.asked[0]["body"] == {"spec": {"replicas": 3}}


async def test_a_pod_spec_is_replaced_in_that_very_deployment(kube: Kube, server: Server) -> None:
    await kube.replace_pod_spec(EMAILS, "d-1", {"containers": []})

    assert server.asked[0]["what"] == "PATCH /apis/apps/v1/namespaces/shop/deployments/emails"
    assert server.asked[0]["type"] == "application/json-patch+json"
    assert server.asked[0]["body"] == [
        {"op": "test", "path": "/metadata/uid", "value": "d-1"},
        {"op": "replace", "path": "/spec/template/spec", "value": {"containers": []}},
    ]


async def test_every_autoscaler_of_a_namespace_is_listed(kube: Kube, server: Server) -> None:
    server.answers = [(200, {"items": [{"a": 1}]})]

    assert await kube.list_autoscalers("shop") == [{"a": 1}]
    assert server.asked[0]["what"] == "GET /apis/autoscaling/v2/namespaces/shop/horizontalpodautoscalers"
    assert server.asked[0]["query"] == {}


async def test_events_of_a_reason(kube: Kube, server: Server) -> None:
    server.answers = [(200, {"items": [{"a": 1}]}), (200, {"items": []})]

    assert await kube.list_events("shop", "FailedCreate", about="u-1") == [{"a": 1}]
    assert await kube.list_events("shop", "FailedCreate") == []
    assert {asked["what"] for asked in server.asked} == {"GET /apis/events.k8s.io/v1/namespaces/shop/events"}
    assert [asked["query"] for asked in server.asked] == [
        {"fieldSelector": "reason=FailedCreate,regarding.uid=u-1"},
        {"fieldSelector": "reason=FailedCreate"},
    ]


async def test_an_annotation_of_that_very_pod(kube: Kube, server: Server) -> None:
    await kube.annotate_pod("shop", "emails-5d9f-abcde", "p-1", {"a": "1", "b": None})

    asked = server.asked[0]
    assert asked["what"] == "PATCH /api/v1/namespaces/shop/pods/emails-5d9f-abcde"
    assert asked["type"] == "application/merge-patch+json"
    assert asked["body"] == {"metadata": {"uid": "p-1", "annotations": {"a": "1", "b": None}}}


async def test_pods_as_they_are_now(kube: Kube, server: Server) -> None:
    server.answers = [(200, {"items": [{"a": 1}]})]

    assert await kube.list_pods("shop", "a=b") == [{"a": 1}]
    # Without a resourceVersion: not what a cache of the API server remembers.
    assert server.asked[0]["what"] == "GET /api/v1/namespaces/shop/pods"
    assert server.asked[0]["query"] == {"labelSelector": "a=b"}


async def test_status(kube: Kube, server: Server) -> None:
    await kube.apply_worker_status(EMAILS, "u-1", {"replicas": 3})

    where = "/apis/djangotasks.dev/v1alpha1/namespaces/shop/djangotaskworkers/emails/status"
    assert server.asked == [
        {
            "what": f"PATCH {where}",
            "query": {"fieldManager": "django-task-operator"},
            "type": "application/json-patch+json",
            "body": [
                {"op": "test", "path": "/metadata/uid", "value": "u-1"},
                {"op": "add", "path": "/status", "value": {"replicas": 3}},
            ],
        }
    ]


@pytest.mark.parametrize(("uid", "status"), [("u-2", 409), ("u-1", 422)])
async def test_a_status_that_is_refused(kube: Kube, server: Server, uid: str, status: int) -> None:
    """The API server gives the same error for another worker and for a status that the CRD does not allow."""
    server.answers = [
        (422, {"message": "the server rejected our request"}),
        (200, {"metadata": {"uid": uid}}),
    ]
    with pytest.raises(ApiException) as refused:
        await kube.apply_worker_status(EMAILS, "u-1", {"replicas": 3})
    assert refused.value.status == status


async def test_another_object_of_the_name_is_a_conflict(kube: Kube, server: Server) -> None:
    causes = [{"reason": "FieldValueInvalid", "message": "field is immutable", "field": "metadata.uid"}]
    server.answers = [(422, {"details": {"causes": causes}}), (422, {"details": {"causes": []}})]
    for status in (409, 422):
        with pytest.raises(ApiException) as refused:
            await kube.apply_object(DEPLOYMENTS, DEPLOYMENT, uid="d-1")
        assert refused.value.status == status


async def test_reads_and_events(kube: Kube, server: Server) -> None:
    await kube.get_worker(EMAILS)
    await kube.get_object(DEPLOYMENTS, EMAILS)
    await kube.get_secret("shop", "shop-db")
    await kube.list_workers(None)
    await kube.list_workers("shop")
    await kube.create_event("shop", {"note": "hello"})

    assert [asked["what"] for asked in server.asked] == [
        "GET /apis/djangotasks.dev/v1alpha1/namespaces/shop/djangotaskworkers/emails",
        "GET /apis/apps/v1/namespaces/shop/deployments/emails",
        "GET /api/v1/namespaces/shop/secrets/shop-db",
        "GET /apis/djangotasks.dev/v1alpha1/djangotaskworkers",
        "GET /apis/djangotasks.dev/v1alpha1/namespaces/shop/djangotaskworkers",
        "POST /apis/events.k8s.io/v1/namespaces/shop/events",
    ]


def counted(code: str) -> float:
    count: float = API_REQUESTS.labels("GET", "secrets", code)._value.get()
    return count


async def test_requests_are_counted_by_kind_and_answer(kube: Kube, server: Server) -> None:
    before = [counted("200"), counted("403")]
    await kube.get_secret("shop", "shop-db")
    server.answers = [(403, {"message": "secrets is forbidden"})]
    with pytest.raises(ApiException):
        await kube.get_secret("shop", "shop-db")

    assert [counted("200"), counted("403")] == [before[0] + 1, before[1] + 1]


async def test_a_request_without_an_answer_is_counted_too(kube: Kube, server: Server) -> None:
    before = counted("<error>")
    server.hangs_up = True
    with pytest.raises(API_ERRORS):
        await kube.get_secret("shop", "shop-db")

    assert counted("<error>") == before + 1


async def test_no_is_an_error_with_its_status(kube: Kube, server: Server) -> None:
    server.answers = [(422, {"message": "spec.x: Required value"})]
    with pytest.raises(ApiException) as refused:
        await kube.apply_object(DEPLOYMENTS, DEPLOYMENT, uid=None)

    assert refused.value.status == 422
    assert "Required value" in (refused.value.body or "")


async def test_a_deployment_that_is_not_there(kube: Kube, server: Server) -> None:
    server.answers = [(404, {}), (403, {})]

    assert await kube.get_object(DEPLOYMENTS, EMAILS) is None
    with pytest.raises(ApiException):
        await kube.get_object(DEPLOYMENTS, EMAILS)


async def test_an_answer_that_is_no_json_is_one_of_the_api_errors(kube: Kube, server: Server) -> None:
    server.answers = [(200, [b"<html>a proxy</html>"])]

    with pytest.raises(API_ERRORS):
        await kube.get_worker(EMAILS)


async def test_a_server_that_is_away_is_one_of_the_api_errors() -> None:
    kube = Kube(ApiClient(Configuration(host="http://127.0.0.1:1")))

    with pytest.raises(aiohttp.ClientError):
        await kube.get_worker(EMAILS)
    await kube.close()


LIST = {"metadata": {"resourceVersion": "77"}, "items": []}


def line(kind: str, **item: Any) -> bytes:
    return json.dumps({"type": kind, "object": item}).encode() + b"\n"


async def seen(kube: Kube) -> list[tuple[str, Any]]:
    return [event async for event in kube.list_and_watch("/api/v1/pods", "a=b")]


async def test_a_watch_begins_where_the_list_ended(kube: Kube, server: Server) -> None:
    server.answers = [(200, LIST), (200, [line("ADDED", x=1), line("BOOKMARK"), line("DELETED", x=1)])]

    assert await seen(kube) == [("LIST", LIST), ("ADDED", {"x": 1}), ("DELETED", {"x": 1})]
    listed, watched = (asked["query"] for asked in server.asked)
    assert listed == {"labelSelector": "a=b"}
    assert (watched["watch"], watched["resourceVersion"], watched["labelSelector"]) == ("true", "77", "a=b")


async def test_lines_are_put_together_whatever_their_size(kube: Kube, server: Server) -> None:
    large = line("ADDED", text="x" * 300_000)
    stream = large + line("MODIFIED", x=2)
    pieces = [stream[:10], stream[10:100_000], stream[100_000:-5], stream[-5:]]
    server.answers = [(200, LIST), (200, pieces)]

    assert [kind for kind, _ in await seen(kube)] == ["LIST", "ADDED", "MODIFIED"]


async def test_a_half_line_at_the_end_is_nothing(kube: Kube, server: Server) -> None:
    server.answers = [(200, LIST), (200, [line("ADDED", x=1), b'{"type": "ADD'])]

    assert len(await seen(kube)) == 2


async def test_a_watch_that_fell_behind(kube: Kube, server: Server) -> None:
    server.answers = [(200, LIST), (200, [line("ERROR", code=410, reason="Expired")])]

    with pytest.raises(ApiException) as gone:
        await seen(kube)
    assert gone.value.status == 410


LEASE = {"metadata": {"name": "operator", "namespace": "ops"}, "spec": {"holderIdentity": "a"}}


async def test_leases(kube: Kube, server: Server) -> None:
    key = Key(namespace="ops", name="operator")
    server.answers = [(404, {}), (201, LEASE)]
    assert await kube.get_lease(key) is None
    await kube.put_lease(LEASE)
    await kube.put_lease({**LEASE, "metadata": {**LEASE["metadata"], "resourceVersion": "7"}})

    leases = "/apis/coordination.k8s.io/v1/namespaces/ops/leases"
    assert [asked["what"] for asked in server.asked] == [
        f"GET {leases}/operator",
        f"POST {leases}",
        f"PUT {leases}/operator",
    ]
    assert server.asked[2]["body"]["metadata"]["resourceVersion"] == "7"


async def test_labels_of_pods(kube: Kube, server: Server) -> None:
    server.answers = [(200, {"items": [{"metadata": {"name": "a"}}]})]
    assert await kube.list_pods("ops", "x=y") == [{"metadata": {"name": "a"}}]
    await kube.label_pod(Key(namespace="ops", name="a"), "x", "y")
    await kube.unlabel_pod(Key(namespace="ops", name="a"), "x")

    assert [asked["what"] for asked in server.asked[1:]] == ["PATCH /api/v1/namespaces/ops/pods/a"] * 2
    assert [asked["body"]["metadata"]["labels"] for asked in server.asked[1:]] == [{"x": "y"}, {"x": None}]
    assert server.asked[1]["type"] == "application/merge-patch+json"


async def test_without_a_permit_nothing_is_written(kube: Kube, server: Server, permit: Permit) -> None:
    permit.granted = 0.0
    for write in (
        kube.apply_object(DEPLOYMENTS, DEPLOYMENT, uid=None),
        kube.scale_deployment(EMAILS, 3),
        kube.apply_worker_status(EMAILS, "u-1", {}),
        kube.create_event("shop", {}),
        kube.label_pod(EMAILS, "x", None),
    ):
        with pytest.raises(NotLeading) as refused:
            await write
        assert isinstance(refused.value, API_ERRORS)
    assert server.asked == []

    # What it takes to lead, and to find out what there is, needs none.
    await kube.get_worker(EMAILS)
    await kube.put_lease(LEASE)
    await kube.unlabel_pod(EMAILS, "x")
    assert len(server.asked) == 3


async def test_the_api_server_is_told_until_when_a_write_may_take_effect(
    kube: Kube, server: Server, permit: Permit
) -> None:
    permit.granted = 4.25
    await kube.scale_deployment(EMAILS, 3)
    await kube.get_worker(EMAILS)

    assert server.asked[0]["query"] == {"fieldManager": "django-task-operator", "timeout": "3.250000s"}
    assert server.asked[1]["query"] == {}


async def test_a_permit_that_ends_while_a_connection_is_made(
    kube: Kube, server: Server, permit: Permit, monkeypatch: pytest.MonkeyPatch
) -> None:
    permits = iter([4.0, 2.9, 0.0])
    monkeypatch.setattr(permit, "seconds", lambda: next(permits))

    with pytest.raises(NotLeading, match="does not lead"):
        await kube.scale_deployment(EMAILS, 3)
    assert server.asked == []
    assert await kube.written(1)


async def test_a_write_that_waits_long_for_a_connection_is_sent_under_the_permit_of_then(
    kube: Kube, server: Server, permit: Permit, monkeypatch: pytest.MonkeyPatch
) -> None:
    permits = iter([4.0, 2.9, 4.5, 3.4, 5.0, 4.9])
    monkeypatch.setattr(permit, "seconds", lambda: next(permits))

    await kube.scale_deployment(EMAILS, 3)

    assert [asked["query"]["timeout"] for asked in server.asked] == ["4.000000s"]


async def test_a_write_that_never_gets_a_connection_in_time_is_given_up(
    kube: Kube, server: Server, permit: Permit, monkeypatch: pytest.MonkeyPatch
) -> None:
    permits = itertools.cycle([4.0, 2.9])
    monkeypatch.setattr(permit, "seconds", lambda: next(permits))

    with pytest.raises(API_ERRORS):
        await kube.scale_deployment(EMAILS, 3)
    assert server.asked == []


async def test_a_write_that_is_not_waited_for_ends_all_the_same(kube: Kube, server: Server) -> None:
    server.gate = asyncio.Event()
    waiting = asyncio.create_task(kube.scale_deployment(EMAILS, 3))
    await server.reached.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not await kube.written(0.01)

    server.gate.set()
    assert await kube.written(10)
    assert len(server.asked) == 1


async def test_cut_ends_what_is_under_way_and_forbids_the_rest(kube: Kube, server: Server) -> None:
    server.gate = asyncio.Event()
    waiting = asyncio.create_task(kube.scale_deployment(EMAILS, 3))
    await server.reached.wait()
    await kube.cut()

    with pytest.raises(API_ERRORS):
        await waiting
    # The connection is not closed in an orderly way: data that has not been sent is discarded.
    await asyncio.wait_for(server.hung_up.wait(), 10)
    for request in (kube.scale_deployment(EMAILS, 3), kube.get_worker(EMAILS), kube.put_lease(LEASE)):
        with pytest.raises(NotLeading):
            await request


async def test_a_closed_connection_sends_nothing_more(
    kube: Kube, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[socket.socket] = []

    class Recorded(socket.socket):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            made.append(self)

    monkeypatch.setattr("django_task_operator.cluster.connections.socket.socket", Recorded)
    await kube.get_worker(EMAILS)

    port = int(kube._transport._client.configuration.host.rpartition(":")[2])
    (connection,) = (each for each in made if each.getpeername()[1] == port)
    linger = connection.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)
    assert struct.unpack("ii", linger) == (1, 0)
