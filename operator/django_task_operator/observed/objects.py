"""What the operator sees of the objects that it applies, and of their ReplicaSets, as small frozen values."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from django_task_operator.observed.pods import controller_of
from django_task_operator.redaction import Foreign
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
from django_task_operator.spec import KIND, Key, Manifest

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class OwnedObject:
    """An object that the operator applies, or that stands where one should.

    Args:
        name: its name.
        uid: which object of that name.
        controller_kind: the kind of what controls it, if anything does.
        controller_uid: which object that is.
        labels: its labels.
        revision: changes whenever somebody changes its spec.
    """

    name: str
    uid: str
    controller_kind: str | None
    controller_uid: str | None
    labels: frozenset[tuple[str, str]]
    revision: str

    def belongs_to(self, worker_uid: str) -> bool:
        """Whether that worker's operator made it."""
        return self.controller_uid == worker_uid

    def may_be_applied_by(self, worker_uid: str, labels: frozenset[tuple[str, str]]) -> bool:
        """Whether it belongs to that worker, or may: it has the worker's ``labels`` and no owner.

        Such a one was left behind by ``kubectl delete --cascade=orphan``, and its pods may be at work.
        """
        return self.belongs_to(worker_uid) or (self.controller_uid is None and self.labels >= labels)

    @property
    def is_left_over(self) -> bool:
        """Whether it belongs to a worker: if not to this one, to one of the same name that is deleted."""
        return self.controller_kind == KIND


@dataclass(frozen=True, slots=True)
class Edit:
    """Who changed an object's spec last, as its managedFields tell.

    Args:
        manager: what the client calls itself: kubectl-edit, say, or the name of a controller.
        time: when, in the API's own form.
        scaled: whether it wrote the scale subresource, which has the replicas alone.
        updated: whether it wrote what it liked (operation Update), and did not apply a manifest.
    """

    manager: str
    time: str
    scaled: bool = False
    updated: bool = True

    @classmethod
    def last_of(cls, manifest: Manifest, *, but: str, of_scale: bool = False) -> Self | None:
        """Find the last one by anybody else than the manager ``but``; ``of_scale``: of those who scaled it.

        Those whose fields an apply has taken over since are not there any more, so that who is there either
        has changed something that nobody has put back yet, or has added something that is nobody else's.
        """
        entries = [
            each
            for each in manifest["metadata"].get("managedFields") or ()
            if each.get("manager") != but
            and "f:spec" in each.get("fieldsV1", ())
            and (each.get("subresource") == "scale" or not of_scale)
        ]
        if not entries:
            return None
        last = max(entries, key=lambda each: each.get("time") or "")
        return cls(
            manager=last.get("manager") or "",
            time=last.get("time") or "",
            scaled=last.get("subresource") == "scale",
            updated=last.get("operation") == "Update",
        )


@dataclass(frozen=True, slots=True)
class Deployment(OwnedObject):
    """A Deployment that carries the operator's labels, or stands where one should."""

    wanted_replicas: int
    rolled_out: bool
    replicas: int
    ready_replicas: int
    failure: str | None
    # Whether its new pods are not ready within the time that Kubernetes gives them.
    overdue: bool = False
    # What was migrated for the template that it has.
    migrated: str | None = None
    # What it says of its database's URL.
    rotation: Rotation = NO_ROTATION
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
            migrated=annotations.get(MIGRATED_ANNOTATION),
            rotation=Rotation(annotations.get(URL_HASH_ANNOTATION), of_pods.get(URL_MARK_ANNOTATION)),
            edit=Edit.last_of(manifest, but=MANAGER),
            scaled=Edit.last_of(manifest, but=MANAGER, of_scale=True),
        )


@dataclass(frozen=True, slots=True)
class Child(OwnedObject):
    """An object beside the Deployment."""

    @classmethod
    def of(cls, manifest: Manifest) -> Self:
        """Digest an object of the API."""
        return cls(**_owned(manifest))


@dataclass(frozen=True, slots=True)
class Autoscaler(Child):
    """A HorizontalPodAutoscaler, and how it fares by its own conditions.

    ``counts`` says whether it got its metric last; None while it sleeps, or has not looked yet.
    ``trouble`` is the reason and the words of what keeps it from scaling.
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
        name: its name, with which the names of its pods begin.
        controller_uid: the Deployment that it belongs to.
        worker_uid: the DjangoTaskWorker that its pod template was built for.
    """

    name: str
    controller_uid: str | None
    worker_uid: str | None

    @classmethod
    def of(cls, manifest: Manifest) -> ReplicaSet:
        """Digest an object of the API."""
        metadata, template = manifest["metadata"], manifest["spec"].get("template", {})
        annotations = template.get("metadata", {}).get("annotations") or {}
        return cls(
            name=metadata["name"],
            controller_uid=controller_of(manifest).get("uid"),
            worker_uid=annotations.get(WORKER_UID_ANNOTATION),
        )


@dataclass(frozen=True, slots=True)
class Job(OwnedObject):
    """A Job that migrates: what it migrates, and whether that went well.

    ``failed`` says how it failed, once it is not tried any more.
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
        """Whether it ended, well or badly."""
        return self.complete or self.failed is not None


def owner_of(manifest: Manifest) -> Key:
    """Tell which worker an object with the operator's labels belongs to."""
    metadata = manifest["metadata"]
    labels = metadata["labels"]
    name = next(
        labels[label] for label in (WORKER_LABEL, MIGRATION_LABEL, CLEANUP_LABEL) if labels.get(label)
    )
    return Key(namespace=metadata["namespace"], name=name)


def _owned(manifest: Manifest) -> dict[str, Any]:
    """Read the fields of an OwnedObject."""
    metadata, controller = manifest["metadata"], controller_of(manifest)
    # What the API server made of the spec, defaults included: not every kind has a generation.
    spec = json.dumps(manifest.get("spec"), sort_keys=True)
    return {
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller_kind": controller.get("kind"),
        "controller_uid": controller.get("uid"),
        "labels": frozenset(metadata.get("labels", {}).items()),
        "revision": hashlib.sha256(spec.encode()).hexdigest(),
    }
