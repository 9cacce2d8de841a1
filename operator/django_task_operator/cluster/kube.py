"""Which requests the operator makes of the API server: a method for each."""

from __future__ import annotations

import binascii
import json
from contextlib import aclosing
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple, Self

import aiohttp
import yaml
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.config import ConfigException

from django_task_operator.cluster.api_errors import has_status
from django_task_operator.cluster.transport import (
    APPLY_PATCH,
    JSON_PATCH,
    MERGE_PATCH,
    UNLIMITED,
    Request,
    Transport,
)
from django_task_operator.errors import WorkerGone
from django_task_operator.spec import GROUP, PLURAL, VERSION, Key, Manifest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from django_task_operator.cluster.transport import WritePermit

FIELD_MANAGER = "django-task-operator"
REVIEW_TIMEOUT = aiohttp.ClientTimeout(total=5)
# The server ends a watch after this long. A connection that is silent for longer is dead: even without
# changes there is a bookmark about every minute.
WATCH_SECONDS = 600
WATCH_TIMEOUT = aiohttp.ClientTimeout(total=None, connect=10, sock_read=120)


# A kubeconfig may be no file, no YAML, no mapping (for which the client has a TypeError), without a context,
# or with certificates that are not base64.
_UNUSABLE = (ConfigException, OSError, yaml.YAMLError, TypeError, binascii.Error, UnicodeDecodeError)


class NoClusterError(Exception):
    """There is nothing that says where the API server is, or as whom to speak to it."""


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


class Kube:
    """Speaks to one API server, as the operator or as the user of a kubeconfig."""

    def __init__(self, client: ApiClient, permit: WritePermit = UNLIMITED) -> None:
        """Take over ``client``, which ``close`` ends, and send no write that ``permit`` does not allow."""
        self._transport = Transport(client, permit)

    @classmethod
    async def connect(cls, kubeconfig: str | None = None, permit: WritePermit = UNLIMITED) -> Self:
        """Use the pod's service account, or the current context of ``kubeconfig``.

        Raises:
            NoClusterError: neither can be used.
        """
        configuration = Configuration()
        # What went wrong is not quoted: it may have words of the kubeconfig, which has credentials.
        try:
            if kubeconfig:
                await config.load_kube_config(config_file=kubeconfig, client_configuration=configuration)
            else:
                config.load_incluster_config(client_configuration=configuration)
        except _UNUSABLE:
            raise NoClusterError(
                f"--kubeconfig={kubeconfig} has no current context that can be used: "
                "name a file with which kubectl works."
                if kubeconfig
                else "There is no service account of a pod: install the operator with its chart, "
                "or outside of a cluster name a kubeconfig with --kubeconfig."
            ) from None
        return cls(ApiClient(configuration), permit)

    async def close(self) -> None:
        """End every connection."""
        await self._transport.close()

    async def cut(self) -> None:
        """Abort all connections and the requests on them, and open no more."""
        await self._transport.cut()

    async def written(self, within: float) -> bool:
        """Wait until no write is in progress; return False if one still is after that many seconds."""
        return await self._transport.written(within)

    async def get_worker(self, key: Key) -> Manifest:
        """Read a DjangoTaskWorker.

        Raises:
            ApiException: status 404 where it does not exist.
        """
        return await self._get(WORKERS.path_of(key))

    async def list_workers(self, namespace: str | None) -> Manifest:
        """List the DjangoTaskWorkers of a namespace, or of the cluster."""
        return await self._get(WORKERS.path(namespace))

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
        body = {"metadata": {"resourceVersion": version}, "spec": {"replicas": replicas}}
        return await self._merge(WORKERS.path_of(key), body)

    async def get_object(self, kind: Kind, key: Key) -> Manifest | None:
        """Read an object; None if it does not exist."""
        try:
            return await self._get(kind.path_of(key))
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
            await self._transport.write(Request("DELETE", kind.path_of(key), body=body))
        except ApiException as refused:
            # A conflict: the name belongs to another object by now.
            if not has_status(refused, HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT):
                raise

    async def scale_deployment(self, key: Key, replicas: int) -> Manifest:
        """Change only the replicas, for when the rest of the Deployment cannot be applied."""
        return await self._merge(DEPLOYMENTS.path_of(key), {"spec": {"replicas": replicas}})

    async def replace_pod_spec(self, key: Key, uid: str, spec: Manifest) -> Manifest:
        """Replace the pod spec in the template of that very Deployment, whoever else has set fields of it.

        Raises:
            ApiException: if there is no Deployment of that name and uid.
        """
        change = {"op": "replace", "path": "/spec/template/spec", "value": spec}
        return await self._patch_if(uid, DEPLOYMENTS.path_of(key), change)

    async def list_autoscalers(self, namespace: str) -> list[Manifest]:
        """List every HorizontalPodAutoscaler of a namespace, whoever created it."""
        listed = await self._get(AUTOSCALERS.path(namespace))
        items: list[Manifest] = listed["items"]
        return items

    async def list_pods(self, namespace: str, label_selector: str) -> list[Manifest]:
        """List the current pods, whatever a watch has reported so far."""
        path = PODS.path(namespace)
        listed = await self._get(path, {"labelSelector": label_selector})
        items: list[Manifest] = listed["items"]
        return items

    async def annotate_pod(
        self, namespace: str, name: str, uid: str, annotations: Mapping[str, str | None]
    ) -> Manifest:
        """Set annotations of exactly that pod, or remove those that are None.

        Raises:
            ApiException: status 404 or 409 if there is no pod with that name and uid.
        """
        body = {"metadata": {"uid": uid, "annotations": dict(annotations)}}
        return await self._merge(PODS.path(namespace, name), body)

    async def get_secret(self, namespace: str, name: str) -> Manifest:
        """Read a Secret.

        Raises:
            ApiException: status 404 where it does not exist, 403 where the operator may not.
        """
        return await self._get(SECRETS.path(namespace, name))

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
        return await self._transport.write(
            Request("POST", SECRETS.path(key.namespace), {"fieldManager": FIELD_MANAGER}, body)
        )

    async def list_events(self, namespace: str, reason: str, *, about: str = "") -> list[Manifest]:
        """List a namespace's events with that reason; ``about``: only those about the object of that uid.

        Kubernetes keeps events for an hour, unless its administrator has changed that.
        """
        selector = f"reason={reason}" + (f",regarding.uid={about}" if about else "")
        listed = await self._get(EVENTS.path(namespace), {"fieldSelector": selector})
        items: list[Manifest] = listed["items"]
        return items

    async def create_event(self, namespace: str, event: Manifest) -> None:
        """Create an event."""
        await self._transport.write(Request("POST", EVENTS.path(namespace), body=event))

    async def get_cluster_role(self, name: str) -> Manifest:
        """Read a ClusterRole.

        Raises:
            ApiException: status 404 where it does not exist.
        """
        return await self._get(CLUSTER_ROLES.path(name=name))

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
        # At once: the caller must not have to wait for a thousand Deployments.
        answer = await self._transport.send_at_once(
            Request("POST", ACCESS_REVIEWS.path(), body=body), REVIEW_TIMEOUT
        )
        status: Manifest = answer["status"]
        return status

    async def get_lease(self, key: Key) -> Manifest | None:
        """Read a Lease; None if it does not exist."""
        try:
            return await self._transport.send_at_once(Request("GET", LEASES.path_of(key)))
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
            request = Request("PUT", LEASES.path(namespace, name), body=lease)
        else:
            request = Request("POST", LEASES.path(namespace), body=lease)
        return await self._transport.send_at_once(request)

    async def label_pod(self, key: Key, label: str, value: str | None) -> None:
        """Set a label of a pod, or remove it."""
        await self._transport.write(_labelling(key, label, value))

    async def unlabel_pod(self, key: Key, label: str) -> None:
        """Remove a label from this process's own pod. This needs no permit, as it gives up the leadership."""
        await self._transport.send_at_once(_labelling(key, label, None))

    async def list_and_watch(
        self, path: str, label_selector: str = "", *, field_selector: str = ""
    ) -> AsyncIterator[tuple[str, Manifest]]:
        """Yield ("LIST", the whole list) once, and then each watch event as (type, object).

        It ends when the server ends the watch, and raises one of ``API_ERRORS`` if the watch breaks. In
        either case, call it again: the next list includes everything that was missed.
        """
        selectors = {"labelSelector": label_selector, "fieldSelector": field_selector}
        selectors = {name: selector for name, selector in selectors.items() if selector}
        listed = await self._get(path, selectors)
        yield "LIST", listed
        query = {
            **selectors,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_SECONDS),
            "resourceVersion": listed["metadata"]["resourceVersion"],
        }
        watch = self._transport.lines(Request("GET", path, query), WATCH_TIMEOUT)
        async with aclosing(watch) as lines:
            async for line in lines:
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise ApiException(
                        status=event["object"].get("code"), reason=event["object"].get("reason")
                    )
                if event["type"] != "BOOKMARK":
                    yield event["type"], event["object"]

    async def _get(self, path: str, query: Mapping[str, str] | None = None) -> Manifest:
        return await self._transport.read(Request("GET", path, query or {}))

    async def _merge(self, path: str, body: Manifest) -> Manifest:
        """Change the fields in ``body``, without owning them."""
        return await self._transport.write(
            Request("PATCH", path, {"fieldManager": FIELD_MANAGER}, body, MERGE_PATCH)
        )

    async def _apply(self, path: str, body: Manifest, *, force: bool) -> Manifest:
        query = {"fieldManager": FIELD_MANAGER, "force": str(force).lower()}
        return await self._transport.write(Request("PATCH", path, query, body, APPLY_PATCH))

    async def _patch_if(self, uid: str, path: str, change: Manifest) -> Manifest:
        """Make one change of an object, if it has that uid."""
        test = {"op": "test", "path": "/metadata/uid", "value": uid}
        return await self._transport.write(
            Request("PATCH", path, {"fieldManager": FIELD_MANAGER}, [test, change], JSON_PATCH)
        )


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


def _labelling(key: Key, label: str, value: str | None) -> Request:
    body = {"metadata": {"labels": {label: value}}}
    return Request("PATCH", PODS.path_of(key), body=body, content_type=MERGE_PATCH)
