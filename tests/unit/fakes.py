"""Fakes that behave like the real thing, as far as the operator can see."""

from __future__ import annotations

import asyncio
import copy
import itertools
import json
import math
import uuid
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from kubernetes.aio.client.exceptions import ApiException

from django_task_operator.tasktable import (
    Listing,
    Observation,
    QueueDemand,
    RunningRow,
    SelectionDemand,
    Subscription,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from django_task_operator.cluster.cache import Watched
    from django_task_operator.cluster.kube import Kind
    from django_task_operator.spec import Key
    from django_task_operator.startup.lifecycle import Observe
    from django_task_operator.tasktable import DatabaseURL, Selection, Settlement, UnservedQueue

type Manifest = dict[str, Any]

WORKER_LABEL = "djangotasks.dev/worker"
MIGRATION_LABEL = "djangotasks.dev/migration-of"

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


def worker_manifest(
    name: str = "emails",
    namespace: str = "shop",
    *,
    uid: str = "worker-uid-1",
    generation: int = 1,
    status: Manifest | None = None,
    **spec: object,
) -> Manifest:
    """A DjangoTaskWorker as the API returns it, with the required fields filled in."""
    required = {"image": "shop:1", "database": {"urlSecretRef": {"name": "shop-db"}}}
    manifest: Manifest = {
        "apiVersion": "djangotasks.dev/v1alpha1",
        "kind": "DjangoTaskWorker",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": uid,
            "generation": generation,
            "resourceVersion": "1",
        },
        "spec": copy.deepcopy({**required, **spec}),
    }
    if status is not None:
        manifest["status"] = status
    return manifest


def refusal(status: int, message: str = "") -> ApiException:
    """The exception for an error of the API server."""
    reasons = {403: "Forbidden", 404: "NotFound", 409: "Conflict", 422: "Invalid", 500: "InternalError"}
    reason = reasons.get(status, "Unknown")
    body = {"kind": "Status", "code": status, "reason": reason, "message": message or reason}
    return ApiException(status=status, reason=reason, body=json.dumps(body))


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class Permit:
    """A permit that a test controls; at first it permits everything."""

    def __init__(self) -> None:
        self.granted = math.inf

    def seconds(self) -> float:
        return self.granted


@dataclass(slots=True)
class _Stored:
    """An object, and what the operator last applied of it."""

    manifest: Manifest
    applied: Manifest = field(default_factory=dict)


class FakeKube:
    """An API server with DjangoTaskWorkers, Deployments, Pods, Secrets and Events.

    It keeps resource versions and generations, tells the caches that watch it of every change,
    and refuses what the real one would refuse. ``requests`` has every request. While ``down`` is
    an exception, every request raises it; ``refuse`` has one for each of the next requests by name.
    """

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.events: list[Manifest] = []
        self.statuses: list[Manifest] = []
        self.forbidden_secrets: set[tuple[str, str]] = set()
        self.down: BaseException | None = None
        self.refuse: dict[str, list[BaseException]] = {}
        self.after_annotating: list[Callable[[], object]] = []
        self._objects: dict[tuple[str, str, str], _Stored] = {}
        self._versions = itertools.count(100)
        self._uids = itertools.count(1)
        self._caches: list[tuple[str, str, Watched[Any]]] = []
        # Kinds whose lists are never answered.
        self.silent: set[str] = set()
        self._watches: list[tuple[str, str | None, asyncio.Queue[tuple[str, Manifest]]]] = []

    # What the operator does.

    async def list_workers(self, namespace: str | None) -> Manifest:
        self._request("list workers")
        return {"items": self._of_kind("worker", namespace)}

    async def list_and_watch(
        self, path: str, label_selector: str = "", *, field_selector: str = ""
    ) -> AsyncIterator[tuple[str, Manifest]]:
        assert not field_selector
        kind, label = path.rpartition("/")[2], _label(label_selector)
        self._request(f"watch {kind}")
        if kind in self.silent:
            await asyncio.Event().wait()
        told = self._watch(kind, label)
        yield "LIST", {"items": [each for each in self._of_kind(kind, None) if _is_managed(each, label)]}
        while True:
            yield await told.get()

    async def watch_workers(self, observe: Observe, ready: Callable[[], None]) -> None:
        """Watch DjangoTaskWorkers, as kopf does."""
        told = self._watch("worker", None)
        for manifest in self._of_kind("worker", None):
            observe(manifest, deleted=False)
        ready()
        while True:
            event, manifest = await told.get()
            observe(manifest, deleted=event == "DELETED")

    async def get_worker(self, key: Key) -> Manifest:
        self._request("get worker")
        return self._get("worker", key.namespace, key.name)

    async def apply_worker_status(self, key: Key, uid: str, status: Manifest) -> Manifest:
        self._request("apply status")
        self._get("worker", key.namespace, key.name)
        stored = self._objects["worker", key.namespace, key.name]
        if stored.manifest["metadata"]["uid"] != uid:
            raise refusal(409, "Precondition failed: UID in precondition")
        self.statuses.append(copy.deepcopy(status))
        self._change(stored, {**stored.manifest, "status": copy.deepcopy(status)})
        return copy.deepcopy(stored.manifest)

    async def write_worker_replicas(self, key: Key, version: str, replicas: int | None) -> Manifest:
        self._request("write replicas")
        manifest = self._get("worker", key.namespace, key.name)
        if manifest["metadata"]["resourceVersion"] != version:
            raise refusal(409, "the object has been modified")
        return self.edit("worker", key.namespace, key.name, {"spec": {"replicas": replicas}})

    async def get_object(self, kind: Kind, key: Key) -> Manifest | None:
        self._request(f"get {_singular(kind)}")
        stored = self._objects.get((kind.plural, key.namespace, key.name))
        return copy.deepcopy(stored.manifest) if stored else None

    async def apply_object(self, kind: Kind, manifest: Manifest, *, uid: str | None) -> Manifest:
        self._request(f"apply {_singular(kind)}")
        place = (kind.plural, manifest["metadata"]["namespace"], manifest["metadata"]["name"])
        stored = self._objects.get(place)
        if uid and (stored is None or stored.manifest["metadata"]["uid"] != uid):
            there = stored.manifest["metadata"]["uid"] if stored else ""
            raise refusal(
                409, f"Precondition failed: UID in precondition: {uid}, UID in object meta: {there}"
            )
        if stored and not uid and (conflicts := _conflicts(stored.manifest, stored.applied, manifest)):
            raise refusal(
                409, f'Apply failed with {len(conflicts)} conflicts with "somebody": {", ".join(conflicts)}'
            )
        if kind.plural == "deployments":
            _validate_template(manifest)
        if stored is None:
            return self._create(kind.plural, {**copy.deepcopy(manifest), "status": {}}, applied=manifest)
        kept = _without(stored.manifest, stored.applied, manifest)
        stored.applied = copy.deepcopy(manifest)
        applied = _over(kept, manifest, lists=True)
        if others := applied["metadata"].pop("managedFields", []):
            # Where two say the same, both are its managers.
            taken = _fields(_difference(stored.manifest, manifest))
            left = [(entry, _fields_but(entry["fieldsV1"], taken)) for entry in others]
            applied["metadata"]["managedFields"] = [
                {**entry, "fieldsV1": fields} for entry, fields in left if fields
            ]
        self._change(stored, applied)
        return copy.deepcopy(stored.manifest)

    async def delete_object(self, kind: Kind, key: Key, uid: str) -> None:
        self._request(f"delete {_singular(kind)}")
        stored = self._objects.get((kind.plural, key.namespace, key.name))
        if stored and stored.manifest["metadata"]["uid"] == uid:
            self.delete(kind.plural, key.namespace, key.name)

    async def scale_deployment(self, key: Key, replicas: int) -> Manifest:
        self._request("scale deployment")
        self._get("deployments", key.namespace, key.name)
        stored = self._objects["deployments", key.namespace, key.name]
        self._change(stored, _over(stored.manifest, {"spec": {"replicas": replicas}}))
        return copy.deepcopy(stored.manifest)

    async def replace_pod_spec(self, key: Key, uid: str, spec: Manifest) -> Manifest:
        self._request("replace pod spec")
        if self._get("deployments", key.namespace, key.name)["metadata"]["uid"] != uid:
            raise refusal(422, "the test failed")
        stored = self._objects["deployments", key.namespace, key.name]
        manifest = copy.deepcopy(stored.manifest)
        manifest["spec"]["template"]["spec"] = copy.deepcopy(spec)
        taken: Manifest = {"f:spec": {"f:template": {"f:spec": {}}}}
        managed = manifest["metadata"].pop("managedFields", [])
        left = [(entry, _fields_but(entry["fieldsV1"], taken)) for entry in managed]
        manifest["metadata"]["managedFields"] = [
            {**entry, "fieldsV1": fields} for entry, fields in left if fields
        ]
        self._change(stored, manifest)
        return copy.deepcopy(stored.manifest)

    async def list_autoscalers(self, namespace: str) -> list[Manifest]:
        self._request("list autoscalers")
        return self._of_kind("horizontalpodautoscalers", namespace)

    async def list_pods(self, namespace: str, label_selector: str) -> list[Manifest]:
        self._request("list pods")
        wanted = dict(part.split("=") for part in label_selector.split(","))
        return [
            copy.deepcopy(stored.manifest)
            for (kind, where, _), stored in self._objects.items()
            if (kind, where) == ("pods", namespace)
            and wanted.items() <= stored.manifest["metadata"]["labels"].items()
        ]

    async def annotate_pod(
        self, namespace: str, name: str, uid: str, annotations: dict[str, str | None]
    ) -> Manifest:
        self._request(f"annotate {name}")
        await asyncio.sleep(0)  # others may ask meanwhile
        if self._get("pods", namespace, name)["metadata"]["uid"] != uid:
            raise refusal(409, "the UID in the precondition does not match")
        if self.after_annotating:
            self.after_annotating.pop(0)()
        return self.edit("pods", namespace, name, {"metadata": {"annotations": annotations}})

    async def get_secret(self, namespace: str, name: str) -> Manifest:
        self._request("get secret")
        await asyncio.sleep(0)  # an answer takes a moment, in which others may ask too
        if (namespace, name) in self.forbidden_secrets:
            raise refusal(403, f'secrets "{name}" is forbidden')
        return self._get("secrets", namespace, name)

    async def create_secret(self, key: Key, data: dict[str, str]) -> Manifest:
        self._request("create secret")
        await asyncio.sleep(0)  # others may be quicker
        if ("secrets", key.namespace, key.name) in self._objects:
            raise refusal(409, f'secrets "{key.name}" already exists')
        metadata = {"name": key.name, "namespace": key.namespace}
        return self._create("secrets", {"metadata": metadata, "data": dict(data)})

    async def list_events(self, namespace: str, reason: str, *, about: str = "") -> list[Manifest]:
        self._request("list events")
        return [
            copy.deepcopy(event)
            for event in self.events
            if (event["metadata"]["namespace"], event["reason"]) == (namespace, reason)
            and about in {"", event["regarding"].get("uid", "")}
        ]

    async def create_event(self, namespace: str, event: Manifest) -> None:
        self._request("create event")
        if len(event["note"].encode()) > 1024:
            raise refusal(422, "note: can have at most 1024 characters")
        assert event["metadata"]["namespace"] == namespace == event["regarding"]["namespace"]
        self.events.append(copy.deepcopy(event))

    # What users, controllers and kubelets do.

    def create(self, kind: str, manifest: Manifest) -> Manifest:
        """Create an object; ``kind`` is worker, or a plural such as pods."""
        return self._create(kind, copy.deepcopy(manifest))

    def edit(
        self, kind: str, namespace: str, name: str, change: Manifest, *, by: Manifest | None = None
    ) -> Manifest:
        """Merge a change into an object, as ``kubectl edit`` would: null removes a field.

        ``by`` becomes the entry in managedFields, except for the fields.
        """
        stored = self._objects[kind, namespace, name]
        changed = _over(stored.manifest, change)
        if by:
            entry = {"operation": "Update", **by, "fieldsV1": _fields(change)}
            others = changed["metadata"].get("managedFields", [])
            changed["metadata"] = {**changed["metadata"], "managedFields": [*others, entry]}
        self._change(stored, changed)
        return copy.deepcopy(stored.manifest)

    def delete(self, kind: str, namespace: str, name: str) -> None:
        manifest = self._objects.pop((kind, namespace, name)).manifest
        manifest["metadata"]["resourceVersion"] = str(next(self._versions))
        self._tell(kind, manifest, None)

    def read(self, kind: str, namespace: str, name: str) -> Manifest | None:
        stored = self._objects.get((kind, namespace, name))
        return copy.deepcopy(stored.manifest) if stored else None

    def run_deployment(self, namespace: str, name: str, *, ready: int | None = None) -> None:
        """Do what the Deployment's controller and the kubelets would have done after a while."""
        deployment = self._objects["deployments", namespace, name].manifest
        replicas = deployment["spec"]["replicas"]
        status = {
            "observedGeneration": deployment["metadata"]["generation"],
            "replicas": replicas,
            "updatedReplicas": replicas,
            "readyReplicas": replicas if ready is None else ready,
        }
        self.edit("deployments", namespace, name, {"status": status})

    def run_pods(
        self, namespace: str, name: str, count: int, *, revision: str = "5d9f", **status: Any
    ) -> list[str]:
        """Make a ReplicaSet of a Deployment as it is now, and pods of it that run; return their names."""
        deployment = self._objects["deployments", namespace, name].manifest
        template = copy.deepcopy(deployment["spec"]["template"])
        template["metadata"]["labels"]["pod-template-hash"] = revision
        replica_set = f"{name}-{revision}"
        made = self.read("replicasets", namespace, replica_set) or self.create(
            "replicasets",
            {
                "metadata": {
                    "name": replica_set,
                    "namespace": namespace,
                    "labels": template["metadata"]["labels"],
                    "ownerReferences": [_controlled_by("Deployment", deployment)],
                },
                "spec": {"template": template},
            },
        )
        names = [f"{replica_set}-pod{letter}x" for letter in "abcdefghijklmnopqrstuvwxyz"[:count]]
        for pod in names:
            self.create(
                "pods",
                {
                    "metadata": {
                        "name": pod,
                        "namespace": namespace,
                        "labels": template["metadata"]["labels"],
                        "ownerReferences": [_controlled_by("ReplicaSet", made)],
                    },
                    "spec": {"nodeName": "node-1"},
                    "status": {**running_status(), **status},
                },
            )
        return names

    def run_job(
        self,
        namespace: str,
        name: str,
        *,
        complete: bool = False,
        failed: str | None = None,
        words: str = "",
        attempts: int = 0,
        injected: bool = False,
        **container: object,
    ) -> None:
        """Do what the Job's controller and the kubelets would have done after a while.

        ``attempts`` pods failed with ``words``; ``container`` is the state of one more pod's, if any, and
        ``injected`` lets a container that nobody ended run beside it.
        """
        job = self._objects["jobs", namespace, name].manifest
        metadata = job["metadata"]
        states: list[Any] = [
            (
                "Failed",
                {"terminated": {"exitCode": 1, "message": words, "finishedAt": "2026-01-01T00:00:00Z"}},
            )
        ] * attempts
        if container:
            runs = "running" in container or injected
            states.append(("Running" if runs else "Pending", container))
        mesh = {
            "name": "mesh",
            "image": "mesh:1",
            "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
        }
        for place in [
            place
            for place, stored in self._objects.items()
            if place[0] == "pods"
            and stored.manifest["metadata"].get("ownerReferences", [{}])[0].get("uid") == metadata["uid"]
        ]:
            self.delete(*place)
        for number, (phase, state) in enumerate(states):
            self._create(
                "pods",
                {
                    "metadata": {
                        "name": f"{name}-{metadata['uid']}-{number}",
                        "namespace": namespace,
                        "creationTimestamp": f"2026-01-01T00:00:{number:02}Z",
                        "labels": job["spec"]["template"]["metadata"]["labels"],
                        "ownerReferences": [
                            {"kind": "Job", "name": name, "uid": metadata["uid"], "controller": True}
                        ],
                    },
                    "status": {
                        "phase": phase,
                        "containerStatuses": [
                            *([mesh] if injected else ()),
                            {"name": "worker", "image": "shop:1", "state": state},
                        ],
                    },
                },
            )
        ended = {"Complete": "" if complete else None, "Failed": failed}
        conditions = [
            {"type": kind, "status": "True", "message": message}
            for kind, message in ended.items()
            if message is not None
        ]
        self.edit("jobs", namespace, name, {"status": {"conditions": conditions}})

    def feed(self, cache: Watched[Any]) -> None:
        """Put objects into a cache, now and whenever one changes, without a watch."""
        kind, label = cache.kind.plural, _label(cache.selector)
        self._caches.append((kind, label, cache))
        cache.synced.set()
        for listed in cache.listed.values():
            listed.set()
        for (of_kind, _, _), stored in self._objects.items():
            if of_kind == kind and _is_managed(stored.manifest, label):
                cache.put(copy.deepcopy(stored.manifest))

    # How a server stores objects.

    def _request(self, name: str) -> None:
        self.requests.append(name)
        if self.down:
            raise self.down
        if waiting := self.refuse.get(name):
            raise waiting.pop(0)

    def _get(self, kind: str, namespace: str, name: str) -> Manifest:
        stored = self._objects.get((kind, namespace, name))
        if stored is None:
            raise refusal(404, f'{kind} "{name}" not found')
        return copy.deepcopy(stored.manifest)

    def _create(self, kind: str, manifest: Manifest, applied: Manifest | None = None) -> Manifest:
        metadata = manifest["metadata"]
        place = (kind, metadata["namespace"], metadata["name"])
        assert place not in self._objects, f"{place} exists"
        metadata.setdefault("uid", f"uid-{next(self._uids)}")
        metadata.setdefault("generation", 1)
        metadata["resourceVersion"] = str(next(self._versions))
        self._objects[place] = _Stored(manifest, copy.deepcopy(applied or {}))
        self._tell(kind, None, manifest)
        return copy.deepcopy(manifest)

    def _change(self, stored: _Stored, manifest: Manifest) -> None:
        if manifest == stored.manifest:
            return
        before, manifest = stored.manifest, copy.deepcopy(manifest)
        if manifest.get("spec") != before.get("spec"):
            manifest["metadata"]["generation"] += 1
        manifest["metadata"]["resourceVersion"] = str(next(self._versions))
        stored.manifest = manifest
        (kind,) = (place[0] for place, one in self._objects.items() if one is stored)
        self._tell(kind, before, manifest)

    def _of_kind(self, kind: str, namespace: str | None) -> list[Manifest]:
        return [
            copy.deepcopy(stored.manifest)
            for (of_kind, where, _), stored in self._objects.items()
            if of_kind == kind and namespace in {None, where}
        ]

    def _watch(self, kind: str, label: str | None) -> asyncio.Queue[tuple[str, Manifest]]:
        told: asyncio.Queue[tuple[str, Manifest]] = asyncio.Queue()
        self._watches.append((kind, label, told))
        return told

    def _tell(self, kind: str, before: Manifest | None, after: Manifest | None) -> None:
        """Tell all watches what an object was, and what it is now."""
        for of_kind, label, told in self._watches:
            if of_kind == kind and (event := _event(label, before, after)):
                told.put_nowait(event)
        for of_kind, label, cache in self._caches:
            if of_kind == kind and (event := _event(label, before, after)):
                what, manifest = event
                (cache.drop if what == "DELETED" else cache.put)(manifest)


def _event(label: str | None, before: Manifest | None, after: Manifest | None) -> tuple[str, Manifest] | None:
    """The event of a watch with a label selector: for an object that has lost the label, a deletion."""
    was = before if before and (label is None or _is_managed(before, label)) else None
    now = after if after and (label is None or _is_managed(after, label)) else None
    if now:
        return ("MODIFIED" if was else "ADDED"), copy.deepcopy(now)
    if was:
        gone = copy.deepcopy(was)
        gone["metadata"]["resourceVersion"] = (after or was)["metadata"]["resourceVersion"]
        return "DELETED", gone
    return None


def _label(selector: str) -> str:
    """The label in a selector of the operator, other than managed-by."""
    return selector.rpartition(",")[2].partition("=")[0]


def _singular(kind: Kind) -> str:
    return kind.plural.removesuffix("s")


def running_status(*, since: datetime = EPOCH, restarts: int = 0, ended: datetime | None = None) -> Manifest:
    """The status of a pod whose worker container runs."""
    last = {"lastState": {"terminated": {"exitCode": 137, "finishedAt": _time(ended)}}} if ended else {}
    running = {"running": {"startedAt": _time(since)}}
    container = {"name": "worker", "restartCount": restarts, "state": running, **last}
    return {
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [container],
    }


def _time(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def _controlled_by(kind: str, manifest: Manifest) -> Manifest:
    metadata = manifest["metadata"]
    return {"kind": kind, "name": metadata["name"], "uid": metadata["uid"], "controller": True}


def _is_managed(manifest: Manifest, label: str = WORKER_LABEL) -> bool:
    labels = manifest["metadata"].get("labels", {})
    return labels.get("app.kubernetes.io/managed-by") == "django-task-operator" and label in labels


# The keys by which an apply distinguishes the entries of lists; any other list is one field.
LIST_KEYS = {
    "containers": "name",
    "env": "name",
    "imagePullSecrets": "name",
    "initContainers": "name",
    "ownerReferences": "uid",
    "volumeMounts": "mountPath",
    "volumes": "name",
}
IDENTITY = {"apiVersion", "kind", "name", "namespace", "uid"}


def _entries(field: str, value: Any) -> dict[str, Any] | None:
    """The entries of a list that an apply merges by key, or the fields of an object; None for others."""
    if isinstance(value, dict):
        return value
    if isinstance(value, list) and (key := LIST_KEYS.get(field)):
        return {entry[key]: entry for entry in value}
    return None


def _conflicts(stored: Any, ours: Any, wanted: Any, path: tuple[str, ...] = ()) -> list[str]:
    """The fields that an apply without force would change although somebody else has set them."""
    there, entries = (_entries(path[-1] if path else "", value) for value in (stored, wanted))
    if there is None or entries is None:
        is_ours = stored == ours
        return [] if is_ours or stored in (wanted, None) else ["." + ".".join(path)]
    of_ours = _entries(path[-1] if path else "", ours) or {}
    return [
        conflict
        for name, value in entries.items()
        if len(path) > 1 or name not in IDENTITY
        for conflict in _conflicts(there.get(name), of_ours.get(name), value, (*path, name))
    ]


def _validate_template(manifest: Manifest) -> None:
    spec = manifest["spec"]["template"]["spec"]
    volumes = {volume["name"] for volume in spec.get("volumes", ())}
    everyone = [
        (f"spec.template.spec.{kind}[{number}]", container)
        for kind in ("containers", "initContainers")
        for number, container in enumerate(spec.get(kind, ()))
    ]
    for place, container in everyone:
        if not container.get("image"):
            raise refusal(422, f"Deployment is invalid: {place}.image: Required value")
        for mount in container.get("volumeMounts", ()):
            if mount["name"] not in volumes:
                raise refusal(
                    422, f'Deployment is invalid: {place}.volumeMounts[0].name: Not found: "{mount["name"]}"'
                )
        if "unknownField" in container:
            # The real server's answer to an apply whose fields it does not know is a 500.
            raise refusal(
                500,
                f"failed to create typed patch object: .{place}.unknownField: field not declared in schema",
            )


def _over(base: Any, change: Any, field: str = "", *, lists: bool = False) -> Any:
    """``change`` merged into ``base``; with ``lists``, lists whose entries have names are merged too."""
    if isinstance(change, list) and isinstance(base, list) and lists and field in LIST_KEYS:
        there, entries = _entries(field, base) or {}, _entries(field, change) or {}
        return list(_over(there, entries, lists=True).values())
    if not isinstance(change, dict):
        return copy.deepcopy(change)
    merged = {**base} if isinstance(base, dict) else {}
    for name, value in change.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = _over(merged.get(name), value, name, lists=lists)
    return merged


def _fields(change: Any) -> Manifest:
    """The fields of a change, as managedFields has them; a list is one field here."""
    if not isinstance(change, dict):
        return {}
    return {f"f:{name}": _fields(value) for name, value in change.items()}


def _difference(before: Any, wanted: Any) -> Any:
    """The part of ``wanted`` that differs from before."""
    if not (isinstance(before, dict) and isinstance(wanted, dict)):
        return wanted
    return {
        name: _difference(before.get(name), value)
        for name, value in wanted.items()
        if before.get(name) != value
    }


def _fields_but(fields: Manifest, taken: Manifest) -> Manifest:
    """The fields that nobody has taken over."""
    left = {
        name: inner if name not in taken else _fields_but(inner, taken[name])
        for name, inner in fields.items()
    }
    return {name: inner for name, inner in left.items() if inner or name not in taken}


def _without(manifest: Any, applied: Any, wanted: Any, field: str = "") -> Any:
    """``manifest`` without the fields that were applied before and no longer are."""
    there, before, after = (_entries(field, value) for value in (manifest, applied, wanted))
    if there is None or before is None or after is None:
        return manifest
    left = {
        name: _without(value, before.get(name), after.get(name), name)
        for name, value in there.items()
        if name not in before or name in after
    }
    return left if isinstance(manifest, dict) else list(left.values())


class FakeDatabases:
    """Databases that are sampled when a test says so; the subscriptions are real."""

    def __init__(self) -> None:
        self.subscriptions: list[tuple[DatabaseURL, Subscription]] = []
        self.rows: list[RunningRow] = []
        self.at = EPOCH
        self.listings = 0
        self.max_ages: list[float] = []
        self.listing_seconds = 0.001
        self.complete = True
        self.trouble: BaseException | None = None
        self.refused: BaseException | None = None
        self.settled: list[tuple[RunningRow, Settlement]] = []
        self._samples = itertools.count(1)
        self.is_closed = False

    async def close(self) -> None:
        self.is_closed = True

    def subscribe(
        self,
        url: DatabaseURL,
        selection: Selection,
        *,
        secret: tuple[str, str],
        limit: int,
        poll_seconds: float,
        wake: Callable[[], None],
        measures: bool = False,
    ) -> Subscription:
        subscription = Subscription(
            selection, secret=secret, limit=limit, poll_seconds=poll_seconds, wake=wake, measures=measures
        )
        subscription.join(self)  # type: ignore[arg-type]
        self.subscriptions.append((url, subscription))
        return subscription

    async def running(self, max_age: float) -> Listing:
        """Called by a subscription that is asked for the RUNNING rows."""
        self.listings += 1
        self.max_ages.append(max_age)
        await asyncio.sleep(0)
        if self.trouble:
            raise self.trouble
        return Listing(self.at, self.listing_seconds, tuple(self.rows), self.complete)

    async def settle(self, row: RunningRow, settlement: Settlement) -> bool:
        """Called by a subscription to settle a row, if it is still as it was listed."""
        await asyncio.sleep(0)
        if error := self.trouble or self.refused:
            raise error
        if row not in self.rows:
            return False
        self.rows.remove(row)
        self.settled.append((row, settlement))
        return True

    def run(self, worker_id: str, *, age: float = 10, attempts: int = 1, **more: Any) -> RunningRow:
        """Add a row that this worker id has been running for ``age`` seconds."""
        key = uuid.UUID(int=next(self._samples))
        started_at = more.pop("started_at", self.at - timedelta(seconds=age))
        row = RunningRow(key, "orders.tasks.send", "default", worker_id, attempts, started_at)
        self.rows.append(row)
        return row

    def leave(self, subscription: Subscription) -> None:
        """Called by a subscription that is closed."""
        self.subscriptions = [entry for entry in self.subscriptions if entry[1] is not subscription]

    def sample(self, ready: int, running: int = 0, *, oldest: float = 0.0, seconds: float = 0.001) -> None:
        """Poll every database successfully, with the same tasks for all workers."""
        at = EPOCH + timedelta(seconds=next(self._samples))
        for _, subscription in self.subscriptions:
            due = at - timedelta(seconds=oldest) if ready else None
            part = QueueDemand(min(ready, subscription.limit), running, due)
            queue = {"*": "default"}.get(name := subscription.selection.queues[0], name)
            demand = SelectionDemand(part.ready, running, due, {queue: part} if ready or running else {})
            subscription.observe(Observation(demand, None, at, seconds))

    def fail(self, error: Any) -> None:
        """Let a poll of every database fail."""
        for _, subscription in self.subscriptions:
            subscription.observe(replace(subscription.observation, error=error))

    def warn(self, queues: Iterable[UnservedQueue]) -> None:
        for _, subscription in self.subscriptions:
            subscription.warn(frozenset(queues))
