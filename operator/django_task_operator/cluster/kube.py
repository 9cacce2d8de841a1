"""The only door to the API server: requests with a time-out, and writes only with a permit."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from http import HTTPStatus
from math import inf, isinf
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

import aiohttp
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.client.exceptions import ApiException

from django_task_operator.cluster.connections import BEFORE_SENDING, NotLeading, RestClient
from django_task_operator.errors import WorkerGone
from django_task_operator.redaction import Foreign, without_credentials
from django_task_operator.spec import GROUP, PLURAL, VERSION, Key, Manifest
from django_task_operator.telemetry import API_REQUESTS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

FIELD_MANAGER = "django-task-operator"
REQUEST_TIMEOUT = aiohttp.ClientTimeout(total=15, connect=5)
REVIEW_TIMEOUT = aiohttp.ClientTimeout(total=5)
# The server ends a watch after this long. A connection that says nothing for longer is dead; a
# quiet one gets a bookmark about every minute.
WATCH_SECONDS = 600
WATCH_TIMEOUT = aiohttp.ClientTimeout(total=None, connect=10, sock_read=120)
# Bounds what a restart with a thousand workers asks of the API server at once.
CONCURRENT_REQUESTS = 10
# Within this a write has a connection, or is not sent.
CONNECT_SECONDS = 1.0

MERGE_PATCH = "application/merge-patch+json"

# Everything that a request can raise: an answer that says no, or no answer.
API_ERRORS = (ApiException, aiohttp.ClientError, TimeoutError, OSError)


class Kind(NamedTuple):
    """A kind of object, as its path says it."""

    group: str
    version: str
    plural: str

    def path(self, namespace: str | None = None, name: str | None = None) -> str:
        """Path of the collection in a namespace, or in the whole cluster, or of one object of it."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        within = f"/namespaces/{namespace}" if namespace else ""
        return f"{root}{within}/{self.plural}" + (f"/{name}" if name else "")

    def path_of(self, key: Key) -> str:
        """Path of one object."""
        return self.path(key.namespace, key.name)


WORKERS = Kind(GROUP, VERSION, PLURAL)
DEPLOYMENTS = Kind("apps", "v1", "deployments")
PODS = Kind("", "v1", "pods")
REPLICA_SETS = Kind("apps", "v1", "replicasets")
AUTOSCALERS = Kind("autoscaling", "v2", "horizontalpodautoscalers")
JOBS = Kind("batch", "v1", "jobs")
CRON_JOBS = Kind("batch", "v1", "cronjobs")
DISRUPTION_BUDGETS = Kind("policy", "v1", "poddisruptionbudgets")
SECRETS = Kind("", "v1", "secrets")
CONFIG_MAPS = Kind("", "v1", "configmaps")
EVENTS = Kind("events.k8s.io", "v1", "events")
LEASES = Kind("coordination.k8s.io", "v1", "leases")
CLUSTER_ROLES = Kind("rbac.authorization.k8s.io", "v1", "clusterroles")
ACCESS_REVIEWS = Kind("authorization.k8s.io", "v1", "subjectaccessreviews")
API_SERVICES = Kind("apiregistration.k8s.io", "v1", "apiservices")


class WritePermit(Protocol):
    """Says whether this operator may write, or whether another may be at work."""

    def seconds(self) -> float:
        """For how many seconds a write that begins now may take effect; at 0 it must not begin."""


class Unlimited:
    """The permit of an operator that is the only one."""

    def seconds(self) -> float:
        """Say that it may write, for ever."""
        return inf


UNLIMITED = Unlimited()


class Kube:
    """Speaks to one API server, as the operator or as the user of a kubeconfig."""

    def __init__(self, client: ApiClient, permit: WritePermit = UNLIMITED) -> None:
        """Take over ``client``, which ``close`` ends, and send no write that ``permit`` does not allow."""
        client.rest_client = RestClient(client.configuration)
        self._client = client
        self._slots = asyncio.Semaphore(CONCURRENT_REQUESTS)
        self._writes: set[asyncio.Task[Manifest]] = set()
        self._cut = False
        self._permit = permit

    @classmethod
    async def connect(cls, kubeconfig: str | None = None, permit: WritePermit = UNLIMITED) -> Self:
        """Use the pod's service account, or the current context of ``kubeconfig``."""
        configuration = Configuration()
        if kubeconfig:
            await config.load_kube_config(config_file=kubeconfig, client_configuration=configuration)
        else:
            config.load_incluster_config(client_configuration=configuration)
        return cls(ApiClient(configuration), permit)

    async def close(self) -> None:
        """End every connection."""
        await self._client.close()

    async def cut(self) -> None:
        """Break every connection off, with what is under way on it, and make no other."""
        self._cut = True
        await self._client.close()

    async def written(self, within: float) -> bool:
        """Wait until no write is under way; False if one still is after so many seconds."""
        if self._writes:
            await asyncio.wait(self._writes, timeout=within)
        return not self._writes

    async def get_worker(self, key: Key) -> Manifest:
        """Read a DjangoTaskWorker.

        Raises:
            ApiException: status 404 where it does not exist.
        """
        return await self._json("GET", WORKERS.path_of(key))

    async def list_workers(self, namespace: str | None) -> Manifest:
        """List the DjangoTaskWorkers of a namespace, or of the cluster."""
        return await self._json("GET", WORKERS.path(namespace))

    async def apply_worker_status(self, key: Key, uid: str, status: Manifest) -> Manifest:
        """Make ``status`` the status of a worker: fields that it leaves out are removed.

        Raises:
            ApiException: status 404 or 409 where there is no worker of that name and uid.
        """
        body = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": "DjangoTaskWorker",
            "metadata": {"name": key.name, "namespace": key.namespace, "uid": uid},
            "status": status,
        }
        return await self._apply(f"{WORKERS.path_of(key)}/status", body, force=True)

    async def write_worker_replicas(self, key: Key, version: str, replicas: int | None) -> Manifest:
        """Change ``spec.replicas`` alone, or take it away, of the worker as it was in that version.

        No apply: it would claim a field that belongs to whoever scales, and make theirs a conflict.

        Raises:
            ApiException: status 409 where anybody has changed the worker since.
        """
        return await self._json(
            "PATCH",
            WORKERS.path_of(key),
            query={"fieldManager": FIELD_MANAGER},
            body={"metadata": {"resourceVersion": version}, "spec": {"replicas": replicas}},
            content=MERGE_PATCH,
        )

    async def get_object(self, kind: Kind, key: Key) -> Manifest | None:
        """Read an object; None where there is none."""
        try:
            return await self._json("GET", kind.path_of(key))
        except ApiException as refused:
            if has_status(refused, HTTPStatus.NOT_FOUND):
                return None
            raise

    async def apply_object(self, kind: Kind, manifest: Manifest, *, uid: str | None) -> Manifest:
        """Apply a whole object.

        With ``uid`` it changes that very object and overrides whoever else set a field; without, it
        creates, and an object that somebody made in the meantime is a conflict, not taken over.
        """
        metadata = manifest["metadata"]
        if uid:
            manifest = {**manifest, "metadata": {**metadata, "uid": uid}}
        path = kind.path(metadata.get("namespace"), metadata["name"])
        return await self._apply(path, manifest, force=bool(uid))

    async def delete_object(self, kind: Kind, key: Key, uid: str) -> None:
        """Delete that very object, and what belongs to it after it; one that is gone is no error."""
        body = {"preconditions": {"uid": uid}, "propagationPolicy": "Background"}
        try:
            await self._json("DELETE", kind.path_of(key), body=body)
        except ApiException as refused:
            # A conflict: the name belongs to another object by now.
            if not has_status(refused, HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT):
                raise

    async def scale_deployment(self, key: Key, replicas: int) -> Manifest:
        """Change the replicas alone, where the rest of the Deployment cannot be applied."""
        return await self._json(
            "PATCH",
            DEPLOYMENTS.path_of(key),
            query={"fieldManager": FIELD_MANAGER},
            body={"spec": {"replicas": replicas}},
            content=MERGE_PATCH,
        )

    async def list_autoscalers(self, namespace: str) -> list[Manifest]:
        """List every HorizontalPodAutoscaler of a namespace, whoever made it."""
        listed = await self._json("GET", AUTOSCALERS.path(namespace))
        items: list[Manifest] = listed["items"]
        return items

    async def list_pods(self, namespace: str, label_selector: str) -> list[Manifest]:
        """List pods as they are now, whatever a watch has told so far."""
        path = PODS.path(namespace)
        listed = await self._json("GET", path, query={"labelSelector": label_selector})
        items: list[Manifest] = listed["items"]
        return items

    async def annotate_pod(
        self, namespace: str, name: str, uid: str, annotations: Mapping[str, str | None]
    ) -> Manifest:
        """Set annotations of that very pod, or remove those that are None.

        Raises:
            ApiException: status 404 or 409 where there is no pod of that name and uid.
        """
        return await self._json(
            "PATCH",
            PODS.path(namespace, name),
            query={"fieldManager": FIELD_MANAGER},
            body={"metadata": {"uid": uid, "annotations": dict(annotations)}},
            content=MERGE_PATCH,
        )

    async def get_secret(self, namespace: str, name: str) -> Manifest:
        """Read a Secret.

        Raises:
            ApiException: status 404 where it does not exist, 403 where the operator may not.
        """
        return await self._json("GET", SECRETS.path(namespace, name))

    async def create_secret(self, key: Key, data: Mapping[str, str]) -> Manifest:
        """Create a Secret of the operator's own; the values of ``data`` are in base64.

        Raises:
            ApiException: status 409 where there is one of that name.
        """
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": key.name, "namespace": key.namespace},
            "data": dict(data),
        }
        return await self._json(
            "POST", SECRETS.path(key.namespace), query={"fieldManager": FIELD_MANAGER}, body=body
        )

    async def create_event(self, namespace: str, event: Manifest) -> None:
        """Tell the cluster's users something."""
        await self._json("POST", EVENTS.path(namespace), body=event)

    async def get_cluster_role(self, name: str) -> Manifest:
        """Read a ClusterRole.

        Raises:
            ApiException: status 404 where it does not exist.
        """
        return await self._json("GET", CLUSTER_ROLES.path(name=name))

    async def apply_secret(self, namespace: str, name: str, data: Mapping[str, str]) -> None:
        """Make ``data`` what a Secret of the operator's own holds."""
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": namespace},
            "stringData": dict(data),
        }
        await self._apply(SECRETS.path(namespace, name), body, force=True)

    async def review_access(self, spec: Manifest) -> Manifest:
        """Ask whether somebody may do something; returns the status of the SubjectAccessReview."""
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
        # Not among the slots: whoever waits for the answer must not wait for a thousand Deployments.
        response = await self._request(
            "POST",
            ACCESS_REVIEWS.path(),
            body=body,
            timeout=REVIEW_TIMEOUT,
        )
        answer: Manifest = await response.json()
        status: Manifest = answer["status"]
        return status

    async def get_lease(self, key: Key) -> Manifest | None:
        """Read a Lease; None where there is none."""
        try:
            return await self._exchange("GET", LEASES.path_of(key))
        except ApiException as refused:
            if has_status(refused, HTTPStatus.NOT_FOUND):
                return None
            raise

    async def put_lease(self, lease: Manifest) -> Manifest:
        """Create a Lease, or replace it if it has a resourceVersion, and is still in that version.

        It needs no permit and waits for no other request, because the permit comes from the Lease.
        """
        metadata = lease["metadata"]
        namespace, name = metadata["namespace"], metadata["name"]
        if "resourceVersion" in metadata:
            return await self._exchange("PUT", LEASES.path(namespace, name), body=lease)
        return await self._exchange("POST", LEASES.path(namespace), body=lease)

    async def label_pod(self, key: Key, label: str, value: str | None) -> None:
        """Give a label to a pod, or take it away."""
        await self._json("PATCH", PODS.path_of(key), body=_labels(label, value), content=MERGE_PATCH)

    async def unlabel_pod(self, key: Key, label: str) -> None:
        """Take a label from this process's own pod: to say that it does not lead, it needs no permit."""
        await self._exchange("PATCH", PODS.path_of(key), body=_labels(label, None), content=MERGE_PATCH)

    async def list_and_watch(
        self, path: str, label_selector: str = "", *, field_selector: str = ""
    ) -> AsyncIterator[tuple[str, Manifest]]:
        """Yield ("LIST", the whole list) once, and then each watch event as (type, object).

        Ends when the server ends the watch, raises one of ``API_ERRORS`` when it breaks off: either
        way call it again, and what was missed is in the next list.
        """
        selectors = {"labelSelector": label_selector, "fieldSelector": field_selector}
        selectors = {name: selector for name, selector in selectors.items() if selector}
        listed = await self._json("GET", path, query=selectors)
        yield "LIST", listed
        query = {
            **selectors,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_SECONDS),
            "resourceVersion": listed["metadata"]["resourceVersion"],
        }
        response = await self._request("GET", path, query=query, timeout=WATCH_TIMEOUT)
        try:
            async for line in _lines(response):
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise ApiException(
                        status=event["object"].get("code"), reason=event["object"].get("reason")
                    )
                if event["type"] != "BOOKMARK":
                    yield event["type"], event["object"]
        finally:
            response.close()

    async def _apply(self, path: str, body: Manifest, *, force: bool) -> Manifest:
        query = {"fieldManager": FIELD_MANAGER, "force": str(force).lower()}
        return await self._json("PATCH", path, query=query, body=body, content="application/apply-patch+yaml")

    async def _json(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Manifest | None = None,
        content: str = "application/json",
    ) -> Manifest:
        if method == "GET":
            async with self._slots:
                return await self._exchange(method, path, query=query, body=body, content=content)
        # One that nobody waits for any more goes on: whether it took effect would be unknown, and
        # nobody else may write before it has.
        task = asyncio.create_task(self._write(method, path, query=query, body=body, content=content))
        self._writes.add(task)
        task.add_done_callback(self._wrote)
        return await asyncio.shield(task)

    async def _write(
        self, method: str, path: str, *, query: Mapping[str, str] | None, body: Manifest | None, content: str
    ) -> Manifest:
        async with self._slots:
            permitted = self._permit.seconds()
            if permitted <= 0:
                raise NotLeading("this operator does not lead")
            # The API server gives a request up that it could not finish by then, however late it began.
            least = permitted - CONNECT_SECONDS
            if not isinf(least):
                query = {**(query or {}), "timeout": f"{least:f}s"}

            def still_permitted() -> None:
                if self._permit.seconds() < least:
                    raise NotLeading("there was no connection in time")

            BEFORE_SENDING.set(still_permitted)
            return await self._exchange(method, path, query=query, body=body, content=content)

    def _wrote(self, task: asyncio.Task[Manifest]) -> None:
        self._writes.discard(task)
        if not task.cancelled():
            # Seen, though there may be nobody to hear of it.
            task.exception()

    async def _exchange(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Manifest | None = None,
        content: str = "application/json",
    ) -> Manifest:
        response = await self._request(method, path, query=query, body=body, content=content)
        answer: Manifest = await response.json()
        return answer

    async def _request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Manifest | None = None,
        content: str = "application/json",
        timeout: aiohttp.ClientTimeout = REQUEST_TIMEOUT,  # noqa: ASYNC109 - aiohttp's own kind of time-out
    ) -> aiohttp.ClientResponse:
        request = await self._client.param_serialize(
            method,
            path,
            query_params=list((query or {}).items()),
            header_params={"Accept": "application/json", "Content-Type": content},
            body=body,
            auth_settings=["BearerToken"],
        )
        if self._cut:
            raise NotLeading("this operator leads no more")
        API_REQUESTS.labels(method, _kind(path)).inc()
        answer = await self._client.call_api(*request, _request_timeout=timeout)
        response: aiohttp.ClientResponse = answer.response
        if not response.ok:
            text = await response.text()
            raise ApiException(status=response.status, reason=response.reason, body=text)
        return response


async def require_worker(kube: Kube, key: Key, uid: str) -> None:
    """Make sure that a worker still exists, before anything is created for it.

    A deletion that no watch told of must not be undone by creating its objects again.

    Raises:
        WorkerGone: it is deleted, or on its way.
    """
    try:
        manifest = await kube.get_worker(key)
    except ApiException as refused:
        if has_status(refused, HTTPStatus.NOT_FOUND):
            raise WorkerGone from None
        raise
    if manifest["metadata"]["uid"] != uid or manifest["metadata"].get("deletionTimestamp"):
        raise WorkerGone


def has_status(error: BaseException, *statuses: HTTPStatus) -> bool:
    """Whether an error is an answer of the API server with one of these statuses."""
    return _status_of(error) in statuses


def describe(error: BaseException) -> str:
    """What an API error says to people, in one line."""
    if isinstance(error, ApiException):
        body: Any = {}
        with suppress(TypeError, ValueError):
            body = json.loads(error.body or "")
        message = body.get("message") if isinstance(body, dict) else None
        return Foreign(without_credentials(str(message or error.reason or f"status {error.status}")))
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return Foreign(without_credentials(str(error) or type(error).__name__))


def is_passing(error: BaseException) -> bool:
    """Whether the same request may succeed later, with nothing changed by anybody."""
    status = _status_of(error)
    passing = (
        status is None
        or status in {HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS}
        or status >= HTTPStatus.INTERNAL_SERVER_ERROR
    )
    # The API server answers 500 to an apply whose fields it does not know.
    return passing and "field not declared in schema" not in describe(error)


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    # Not readline: an object may be larger than aiohttp's limit for a line.
    rest = b""
    async for chunk in response.content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line:
                yield line


def _status_of(error: BaseException) -> int | None:
    """Status of the API server's answer; None where there was no answer."""
    return error.status if isinstance(error, ApiException) else None


def _labels(label: str, value: str | None) -> Manifest:
    return {"metadata": {"labels": {label: value}}}


def _kind(path: str) -> str:
    parts = path.split("/")
    return parts[parts.index("namespaces") + 2] if "namespaces" in parts else parts[-1]
