"""What the operator sees of the objects that it applies, and of their ReplicaSets, as small frozen values."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from django_task_operator.observed.pods import controller_of
from django_task_operator.redaction import Foreign, OfSpec
from django_task_operator.resources.labels import (
    CLEANUP_LABEL,
    MANAGER,
    MIGRATION_LABEL,
    WORKER_LABEL,
    WORKER_UID_ANNOTATION,
)
from django_task_operator.resources.migration import MIGRATED_ANNOTATION
from django_task_operator.resources.rotation import (
    NO_ROTATION,
    URL_HASH_ANNOTATION,
    URL_MARK_ANNOTATION,
    Rotation,
)
from django_task_operator.resources.upgrade import RECORD_ANNOTATION, RESTARTED_ANNOTATION, Record
from django_task_operator.spec import KIND, Key, Manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# The label by which the ReplicaSets of a Deployment tell their pods apart.
TEMPLATE_HASH = "pod-template-hash"


@dataclass(frozen=True, slots=True)
class OwnedObject:
    """An object that the operator applies, or another one with the same name.

    Args:
        name: its name.
        uid: which object of that name.
        controller_kind: the kind of the object that controls it, if any.
        controller_uid: the uid of that object.
        labels: its labels.
        revision: changes whenever its spec changes.
    """

    name: str
    uid: str
    controller_kind: str | None
    controller_uid: str | None
    labels: frozenset[tuple[str, str]]
    revision: str

    def belongs_to(self, worker_uid: str) -> bool:
        """Whether it was created for that worker."""
        return self.controller_uid == worker_uid

    def may_be_applied_by(self, worker_uid: str, labels: frozenset[tuple[str, str]]) -> bool:
        """Whether it belongs to that worker, or may: it has the worker's ``labels`` and no owner.

        ``kubectl delete --cascade=orphan`` leaves such objects behind, and their pods may be running tasks.
        """
        return self.belongs_to(worker_uid) or (self.controller_uid is None and self.labels >= labels)

    @property
    def is_left_over(self) -> bool:
        """Whether it belongs to a worker: if not to this one, then to a deleted one of the same name."""
        return self.controller_kind == KIND


@dataclass(frozen=True, slots=True)
class Edit:
    """Who last changed an object's spec, according to its managedFields.

    Args:
        manager: the client's own name, such as kubectl-edit or the name of a controller; empty if unknown.
        time: when, in the API's format.
        scaled: whether it wrote the scale subresource, that is, only the replicas.
        updated: whether it updated the object (operation Update), instead of applying a manifest.
    """

    manager: str
    time: str
    scaled: bool = False
    updated: bool = True

    @property
    def is_rollback(self) -> bool:
        """Whether it is `kubectl rollout undo`: the other commands are called kubectl-edit and so on."""
        return self.manager == "kubectl" and self.updated and not self.scaled

    @classmethod
    def last_of(cls, manifest: Manifest, *, but: str, of_scale: bool = False) -> Self | None:
        """Find the last edit by another manager than ``but``; ``of_scale``: only edits that scaled it.

        Clients whose fields an apply has since taken over no longer appear. So a client that appears has
        either changed something that has not been reverted yet, or added something that no other client owns.
        """
        managed = manifest["metadata"].get("managedFields") or ()
        own = [each for each in managed if each.get("manager") == but]
        others = [each for each in managed if each.get("manager") != but and "f:spec" in _fields_of(each)]
        scales = [each for each in others if each.get("subresource") == "scale"]
        is_scaled = bool(own) and not any("f:replicas" in _fields_of(each).get("f:spec", {}) for each in own)
        if is_scaled and not manifest["spec"].get("replicas", 1):
            # A scale to zero omits the field, so it has no manager: the only trace is that we are none any
            # more (Kubernetes 1.34).
            return cls("", "", scaled=True)
        if of_scale:
            others = scales
        elif own:
            # The entry of a scale has no time, so it cannot be compared. If we manage the replicas as well,
            # they are as we want them.
            others = (scales if is_scaled else ()) or [each for each in others if each not in scales]
        if not others:
            return None
        last = max(others, key=lambda each: each.get("time") or "")
        return cls(
            manager=last.get("manager") or "",
            time=last.get("time") or "",
            scaled=last.get("subresource") == "scale",
            updated=last.get("operation") == "Update",
        )


@dataclass(frozen=True, slots=True)
class Deployment(OwnedObject):
    """A Deployment that has the operator's labels, or the name of a worker."""

    wanted_replicas: int
    rolled_out: bool
    replicas: int
    ready_replicas: int
    failure: str | None
    # Whether its new pods failed to become ready within the progress deadline.
    overdue: bool = False
    # A hash of its pod template.
    template: str = ""
    # The hash of the migration for its current template.
    migrated: str | None = None
    # What it says of its database's URL.
    rotation: Rotation = NO_ROTATION
    # What it says of the runtime that its pods have injected; None if they have none.
    runtime: Record | None = None
    # When it was last restarted (`kubectl rollout restart`), in the API's format; empty if it never was.
    restarted: str = ""
    # Who else than the operator has changed its spec last.
    edit: Edit | None = None
    # Who else has scaled it last, and has not been overridden since.
    scaled: Edit | None = None

    @classmethod
    def of(cls, manifest: Manifest) -> Deployment:
        """Digest an object of the API."""
        metadata, spec, status = manifest["metadata"], manifest["spec"], manifest.get("status", {})
        annotations = metadata.get("annotations", {})
        of_pods = spec.get("template", {}).get("metadata", {}).get("annotations") or {}
        failures = [
            condition.get("message", "")
            for condition in status.get("conditions", ())
            if condition["type"] == "ReplicaFailure" and condition["status"] == "True"
        ]
        overdue = any(
            condition["type"] == "Progressing" and condition.get("reason") == "ProgressDeadlineExceeded"
            for condition in status.get("conditions", ())
        )
        return cls(
            **_owned(manifest) | {"revision": str(metadata["generation"])},
            wanted_replicas=spec.get("replicas", 1),
            rolled_out=(
                status.get("observedGeneration", 0) >= metadata["generation"]
                and status.get("updatedReplicas", 0) == status.get("replicas", 0) == spec.get("replicas", 1)
            ),
            replicas=status.get("replicas", 0),
            ready_replicas=status.get("readyReplicas", 0),
            failure=failures[0] if failures else None,
            overdue=overdue,
            template=_hash_of(spec.get("template", {})),
            migrated=annotations.get(MIGRATED_ANNOTATION),
            rotation=Rotation(annotations.get(URL_HASH_ANNOTATION), of_pods.get(URL_MARK_ANNOTATION)),
            runtime=Record.read(annotations.get(RECORD_ANNOTATION), spec.get("template", {})),
            restarted=of_pods.get(RESTARTED_ANNOTATION, ""),
            edit=Edit.last_of(manifest, but=MANAGER),
            scaled=Edit.last_of(manifest, but=MANAGER, of_scale=True),
        )

    @property
    def is_healthy(self) -> bool:
        """Whether all its pods are of the current template, and ready."""
        return self.rolled_out and self.ready_replicas >= self.wanted_replicas

    def redacted(self, redact: Callable[[str], str]) -> Self:
        """Return the same without secrets: what refuses pods may quote their environment."""
        return replace(self, failure=redact(OfSpec(self.failure))) if self.failure else self


@dataclass(frozen=True, slots=True)
class Child(OwnedObject):
    """An object of a worker other than the Deployment."""

    @classmethod
    def of(cls, manifest: Manifest) -> Self:
        """Digest an object of the API."""
        return cls(**_owned(manifest))


@dataclass(frozen=True, slots=True)
class Autoscaler(Child):
    """A HorizontalPodAutoscaler, and its state according to its own conditions.

    ``counts`` says whether it last got its metric; None while it is inactive, or has not asked yet.
    ``trouble`` is the reason and the message of the condition that keeps it from scaling.
    """

    counts: bool | None
    trouble: tuple[str, str] | None

    @classmethod
    def of(cls, manifest: Manifest) -> Self:
        """Digest an object of the API."""
        conditions = {each["type"]: each for each in manifest.get("status", {}).get("conditions") or ()}
        active = conditions.get("ScalingActive", {})
        asleep = active.get("reason") in {None, "ScalingDisabled"}
        failing = [
            (each["reason"], each.get("message", ""))
            for kind in ("AbleToScale", "ScalingActive")
            if (each := conditions.get(kind, {})).get("status") == "False"
            and each["reason"] != "ScalingDisabled"
        ]
        return cls(
            **_owned(manifest),
            counts=None if asleep else active["status"] == "True",
            trouble=failing[0] if failing else None,
        )


@dataclass(frozen=True, slots=True)
class Rival:
    """A HorizontalPodAutoscaler that scales a worker's Deployment, and not the worker.

    ``words`` name it, with the KEDA ScaledObject that it was made for, if any.
    """

    words: str

    @classmethod
    def among(cls, autoscalers: Iterable[Manifest], deployment: str) -> Self | None:
        """Find the first by name that scales the Deployment of that name."""
        for manifest in sorted(autoscalers, key=lambda each: each["metadata"]["name"]):
            target = manifest["spec"]["scaleTargetRef"]
            is_apps = target.get("apiVersion", "apps/v1").partition("/")[0] == "apps"
            if is_apps and (target["kind"], target["name"]) == ("Deployment", deployment):
                words = f"HorizontalPodAutoscaler {manifest['metadata']['name']}"
                owner = controller_of(manifest)
                if owner.get("kind") == "ScaledObject":
                    words = f"ScaledObject {owner['name']} ({words})"
                return cls(words)
        return None


@dataclass(frozen=True, slots=True)
class ReplicaSet:
    """A ReplicaSet of a worker's Deployment.

    Args:
        name: its name, which is a prefix of its pods' names.
        controller_uid: the uid of the Deployment that it belongs to.
        worker_uid: the uid of the DjangoTaskWorker that its pod template was built for.
        template: a hash of its pod template, which is that of a Deployment with the same template.
    """

    name: str
    controller_uid: str | None
    worker_uid: str | None
    template: str = ""

    @classmethod
    def of(cls, manifest: Manifest) -> ReplicaSet:
        """Digest an object of the API."""
        metadata, template = manifest["metadata"], manifest["spec"].get("template", {})
        annotations = template.get("metadata", {}).get("annotations") or {}
        return cls(
            name=metadata["name"],
            controller_uid=controller_of(manifest).get("uid"),
            worker_uid=annotations.get(WORKER_UID_ANNOTATION),
            template=_hash_of(template),
        )


def outdated(deployment: Deployment | None, replica_sets: Iterable[ReplicaSet]) -> frozenset[str]:
    """Return the names of a Deployment's ReplicaSets whose pods are of an earlier pod template.

    One that has not been reported yet is not among them: it can only be new.
    """
    return frozenset(
        each.name
        for each in replica_sets
        if deployment and each.controller_uid == deployment.uid and each.template != deployment.template
    )


@dataclass(frozen=True, slots=True)
class Job(OwnedObject):
    """A Job that runs a migration: which one, and whether it succeeded.

    ``failed`` says how it failed, once there are no more retries.
    """

    migrates: str | None
    complete: bool
    failed: str | None

    @classmethod
    def of(cls, manifest: Manifest) -> Job:
        """Digest an object of the API."""
        metadata, status = manifest["metadata"], manifest.get("status", {})
        ended = {
            condition["type"]: condition.get("message") or condition.get("reason", "")
            for condition in status.get("conditions", ())
            if condition["status"] == "True"
        }
        return cls(
            **_owned(manifest),
            migrates=metadata.get("annotations", {}).get(MIGRATED_ANNOTATION),
            complete="Complete" in ended,
            failed=Foreign(ended["Failed"]) if "Failed" in ended else None,
        )

    @property
    def is_over(self) -> bool:
        """Whether it has ended, successfully or not."""
        return self.complete or self.failed is not None


def _fields_of(entry: Manifest) -> Manifest:
    """Return the fields of an entry of managedFields."""
    fields: Manifest = entry.get("fieldsV1") or {}
    return fields


def owner_of(manifest: Manifest) -> Key:
    """Return the worker that an object with the operator's labels belongs to."""
    metadata = manifest["metadata"]
    labels = metadata["labels"]
    name = next(
        labels[label] for label in (WORKER_LABEL, MIGRATION_LABEL, CLEANUP_LABEL) if labels.get(label)
    )
    return Key(namespace=metadata["namespace"], name=name)


def _hash_of(template: Manifest) -> str:
    """Hash a pod template without the label that only a ReplicaSet's has.

    Kubernetes' own controller finds the current ReplicaSet of a Deployment by the same comparison
    (EqualIgnoreHash in kubernetes/pkg/controller/deployment/util).
    """
    metadata = template.get("metadata") or {}
    labels = {name: value for name, value in (metadata.get("labels") or {}).items() if name != TEMPLATE_HASH}
    compared = template | {"metadata": metadata | {"labels": labels}}
    return hashlib.sha256(json.dumps(compared, sort_keys=True).encode()).hexdigest()


def _owned(manifest: Manifest) -> dict[str, Any]:
    """Read the fields of an OwnedObject."""
    metadata, controller = manifest["metadata"], controller_of(manifest)
    # The spec as stored, defaults included, because not every kind has a generation.
    spec = json.dumps(manifest.get("spec"), sort_keys=True)
    return {
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller_kind": controller.get("kind"),
        "controller_uid": controller.get("uid"),
        "labels": frozenset(metadata.get("labels", {}).items()),
        "revision": hashlib.sha256(spec.encode()).hexdigest(),
    }
