"""The only access to the API server: requests with a timeout, and writes only with a permit."""

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
# The server ends a watch after this long. A connection that is silent for longer is dead: even without
# changes there is a bookmark about every minute.
WATCH_SECONDS = 600
WATCH_TIMEOUT = aiohttp.ClientTimeout(total=None, connect=10, sock_read=120)
# Limits the concurrent requests after a restart with a thousand workers.
CONCURRENT_REQUESTS = 10
# A write that has no connection by then is not sent.
CONNECT_SECONDS = 1.0

MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"

# Everything that a request can raise: an error response, or no response.
API_ERRORS = (ApiException, aiohttp.ClientError, TimeoutError, OSError)


class Kind(NamedTuple):
    """A kind of object, as it appears in its path."""

    group: str
    version: str
    plural: str

    def path(self, namespace: str | None = None, name: str | None = None) -> str:
        """Return the path of the collection in a namespace or in the whole cluster, or of one object."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        within = f"/namespaces/{namespace}" if namespace else ""
        return f"{root}{within}/{self.plural}" + (f"/{name}" if name else "")

    def path_of(self, key: Key) -> str:
        """Return the path of one object."""
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
    """Says whether this operator may write, or whether another one may be the leader."""

    def seconds(self) -> float:
        """For how many seconds a write that begins now may take effect; at 0 it must not begin."""


class Unlimited:
    """The permit of an operator that is the only one."""

    def seconds(self) -> float:
        """Permit writes forever."""
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
        """Abort all connections and the requests on them, and open no more."""
        self._cut = True
        await self._client.close()

    async def written(self, within: float) -> bool:
        """Wait until no write is in progress; return False if one still is after that many seconds."""
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
        """Make ``status`` the status of a worker: fields that it omits are removed.

        No apply: the API server does not look at the uid in an apply of the status, and would give what
        is known of a deleted worker to the next one of its name.

        Raises:
            ApiException: status 404 or 409 if there is no worker with that name and uid.
        """
        try:
            return await self._patch_if(
                uid, f"{WORKERS.path_of(key)}/status", {"op": "add", "path": "/status", "value": status}
            )
        except ApiException as refused:
            # It says no more of a test that failed.
            if has_status(refused, HTTPStatus.UNPROCESSABLE_ENTITY):
                found = await self.get_worker(key)
                if found["metadata"]["uid"] != uid:
                    raise ApiException(
                        status=HTTPStatus.CONFLICT, reason="the worker of that name is another one"
                    ) from None
            raise

    async def write_worker_replicas(self, key: Key, version: str, replicas: int | None) -> Manifest:
        """Change or remove only ``spec.replicas``, if the worker still has that version.

        This is not an apply, which would take ownership of the field and cause conflicts for other clients
        that scale.

        Raises:
            ApiException: status 409 if the worker has been changed since.
        """
        return await self._json(
            "PATCH",
            WORKERS.path_of(key),
            query={"fieldManager": FIELD_MANAGER},
            body={"metadata": {"resourceVersion": version}, "spec": {"replicas": replicas}},
            content=MERGE_PATCH,
        )

    async def get_object(self, kind: Kind, key: Key) -> Manifest | None:
        """Read an object; None if it does not exist."""
        try:
            return await self._json("GET", kind.path_of(key))
        except ApiException as refused:
            if has_status(refused, HTTPStatus.NOT_FOUND):
                return None
            raise

    async def apply_object(self, kind: Kind, manifest: Manifest, *, uid: str | None) -> Manifest:
        """Apply a whole object.

        With ``uid`` it changes exactly that object and overrides other field managers. Without, it creates
        the object; one that was created meanwhile is a conflict, and is not taken over, unless it says the
        same in every field that the two have in common.

        Raises:
            ApiException: status 409 for such a conflict, and where the object has another uid or is gone.
        """
        metadata = manifest["metadata"]
        if uid:
            manifest = {**manifest, "metadata": {**metadata, "uid": uid}}
        path = kind.path(metadata.get("namespace"), metadata["name"])
        return await self._apply(path, manifest, force=bool(uid))

    async def delete_object(self, kind: Kind, key: Key, uid: str) -> None:
        """Delete exactly that object, and its dependents in the background; ignore it if it is gone."""
        body = {"preconditions": {"uid": uid}, "propagationPolicy": "Background"}
        try:
            await self._json("DELETE", kind.path_of(key), body=body)
        except ApiException as refused:
            # A conflict: the name belongs to another object by now.
            if not has_status(refused, HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT):
                raise

    async def scale_deployment(self, key: Key, replicas: int) -> Manifest:
        """Change only the replicas, for when the rest of the Deployment cannot be applied."""
        return await self._json(
            "PATCH",
            DEPLOYMENTS.path_of(key),
            query={"fieldManager": FIELD_MANAGER},
            body={"spec": {"replicas": replicas}},
            content=MERGE_PATCH,
        )

    async def replace_pod_spec(self, key: Key, uid: str, spec: Manifest) -> Manifest:
        """Replace the pod spec in the template of that very Deployment, whoever else has set fields of it.

        Raises:
            ApiException: if there is no Deployment of that name and uid.
        """
        change = {"op": "replace", "path": "/spec/template/spec", "value": spec}
        return await self._patch_if(uid, DEPLOYMENTS.path_of(key), change)

    async def list_autoscalers(self, namespace: str) -> list[Manifest]:
        """List every HorizontalPodAutoscaler of a namespace, whoever created it."""
        listed = await self._json("GET", AUTOSCALERS.path(namespace))
        items: list[Manifest] = listed["items"]
        return items

    async def list_pods(self, namespace: str, label_selector: str) -> list[Manifest]:
        """List the current pods, whatever a watch has reported so far."""
        path = PODS.path(namespace)
        listed = await self._json("GET", path, query={"labelSelector": label_selector})
        items: list[Manifest] = listed["items"]
        return items

    async def annotate_pod(
        self, namespace: str, name: str, uid: str, annotations: Mapping[str, str | None]
    ) -> Manifest:
        """Set annotations of exactly that pod, or remove those that are None.

        Raises:
            ApiException: status 404 or 409 if there is no pod with that name and uid.
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
        """Create an event."""
        await self._json("POST", EVENTS.path(namespace), body=event)

    async def get_cluster_role(self, name: str) -> Manifest:
        """Read a ClusterRole.

        Raises:
            ApiException: status 404 where it does not exist.
        """
        return await self._json("GET", CLUSTER_ROLES.path(name=name))

    async def apply_secret(self, namespace: str, name: str, data: Mapping[str, str]) -> None:
        """Make ``data`` the content of one of the operator's own Secrets."""
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": namespace},
            "stringData": dict(data),
        }
        await self._apply(SECRETS.path(namespace, name), body, force=True)

    async def review_access(self, spec: Manifest) -> Manifest:
        """Ask whether a user may do something; return the status of the SubjectAccessReview."""
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
        # Without a slot: the caller must not have to wait for a thousand Deployments.
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
        """Read a Lease; None if it does not exist."""
        try:
            return await self._exchange("GET", LEASES.path_of(key))
        except ApiException as refused:
            if has_status(refused, HTTPStatus.NOT_FOUND):
                return None
            raise

    async def put_lease(self, lease: Manifest) -> Manifest:
        """Create a Lease or, with a resourceVersion, replace it if it still has that version.

        This needs no permit and waits for no other request, because the permit comes from the Lease.
        """
        metadata = lease["metadata"]
        namespace, name = metadata["namespace"], metadata["name"]
        if "resourceVersion" in metadata:
            return await self._exchange("PUT", LEASES.path(namespace, name), body=lease)
        return await self._exchange("POST", LEASES.path(namespace), body=lease)

    async def label_pod(self, key: Key, label: str, value: str | None) -> None:
        """Set a label of a pod, or remove it."""
        await self._json("PATCH", PODS.path_of(key), body=_labels(label, value), content=MERGE_PATCH)

    async def unlabel_pod(self, key: Key, label: str) -> None:
        """Remove a label from this process's own pod. This needs no permit, as it gives up the leadership."""
        await self._exchange("PATCH", PODS.path_of(key), body=_labels(label, None), content=MERGE_PATCH)

    async def list_and_watch(
        self, path: str, label_selector: str = "", *, field_selector: str = ""
    ) -> AsyncIterator[tuple[str, Manifest]]:
        """Yield ("LIST", the whole list) once, and then each watch event as (type, object).

        It ends when the server ends the watch, and raises one of ``API_ERRORS`` if the watch breaks. In
        either case, call it again: the next list includes everything that was missed.
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

    async def _patch_if(self, uid: str, path: str, change: Manifest) -> Manifest:
        """Make one change of an object, if it is that very one."""
        return await self._json(
            "PATCH",
            path,
            query={"fieldManager": FIELD_MANAGER},
            body=[{"op": "test", "path": "/metadata/uid", "value": uid}, change],
            content=JSON_PATCH,
        )

    async def _json(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Manifest | list[Manifest] | None = None,
        content: str = "application/json",
    ) -> Manifest:
        if method == "GET":
            async with self._slots:
                return await self._exchange(method, path, query=query, body=body, content=content)
        # A write continues even if its caller is cancelled: otherwise it would be unknown whether it took
        # effect, and no other operator may write before it has.
        task = asyncio.create_task(self._write(method, path, query=query, body=body, content=content))
        self._writes.add(task)
        task.add_done_callback(self._wrote)
        return await asyncio.shield(task)

    async def _write(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None,
        body: Manifest | list[Manifest] | None,
        content: str,
    ) -> Manifest:
        async with self._slots:
            permitted = self._permit.seconds()
            if permitted <= 0:
                raise NotLeading("this operator does not lead")
            # The API server gives up a request that it cannot finish by then, however late it started.
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
            # Retrieve the exception, even if there is no caller any more.
            task.exception()

    async def _exchange(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Manifest | list[Manifest] | None = None,
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
        body: Manifest | list[Manifest] | None = None,
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
            # That the object of a name is another one by now is a conflict, also where the API server
            # takes the uid for an attempt to change it.
            status = HTTPStatus.CONFLICT if _names_another(text) else response.status
            raise ApiException(status=status, reason=response.reason, body=text)
        return response


async def require_worker(kube: Kube, key: Key, uid: str) -> None:
    """Make sure that a worker still exists, before anything is created for it.

    A deletion that no watch has reported must not be undone by creating the worker's objects again.

    Raises:
        WorkerGone: it has been deleted, or is being deleted.
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
    """Whether an error is a response of the API server with one of these statuses."""
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
    """Whether the same request may succeed later, without any change."""
    status = _status_of(error)
    passing = (
        status is None
        or status in {HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS}
        or status >= HTTPStatus.INTERNAL_SERVER_ERROR
    )
    # The API server answers 500 to an apply whose fields it does not know.
    return passing and "field not declared in schema" not in describe(error)


def says_no(error: BaseException) -> bool:
    """Whether the API server has answered, other than that it is not ready.

    Then the same request should only be retried later. An unavailable API server may be back at any moment,
    and a watch reports that.
    """
    return isinstance(error, ApiException) and error.status != HTTPStatus.SERVICE_UNAVAILABLE


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    # Not readline: an object may be larger than aiohttp's limit for a line.
    rest = b""
    async for chunk in response.content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line:
                yield line


def _status_of(error: BaseException) -> int | None:
    """Return the status of the API server's response; None if there was no response."""
    return error.status if isinstance(error, ApiException) else None


def _names_another(text: str) -> bool:
    """Whether a refusal says that the object has another uid than the one that was meant."""
    with suppress(KeyError, TypeError, ValueError, AttributeError):
        causes = json.loads(text)["details"]["causes"]
        return any(cause.get("field") == "metadata.uid" for cause in causes)
    return False


def _labels(label: str, value: str | None) -> Manifest:
    return {"metadata": {"labels": {label: value}}}


def _kind(path: str) -> str:
    parts = path.split("/")
    return parts[parts.index("namespaces") + 2] if "namespaces" in parts else parts[-1]
