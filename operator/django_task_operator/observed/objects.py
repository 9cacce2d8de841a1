"""What the operator sees of a worker's Deployment and pods, as small frozen values."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from django_task_operator.observed.pods import PodLife, controller_of
from django_task_operator.redaction import Foreign
from django_task_operator.resources.labels import MIGRATION_LABEL, WORKER_LABEL
from django_task_operator.resources.migration import MIGRATED_ANNOTATION
from django_task_operator.resources.pod_template import CONTAINER
from django_task_operator.spec import KIND, Key, Manifest

if TYPE_CHECKING:
    from collections.abc import Callable

# A container that was restarted is believed once it has run for so long: between two crashes it
# looks healthy for a moment.
CRASH_MEMORY_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class ObjectState:
    """Whose an object is that the operator applies, or that stands where one should."""

    name: str
    uid: str
    controller_kind: str | None
    controller_uid: str | None
    labels: frozenset[tuple[str, str]]

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
class DeploymentState(ObjectState):
    """A Deployment that carries the operator's labels, or stands where one should."""

    generation: int
    wanted_replicas: int
    rolled_out: bool
    replicas: int
    ready_replicas: int
    failure: str | None
    # Whether its new pods are not ready within the time that Kubernetes gives them.
    overdue: bool = False
    # What was migrated for the template that it has.
    migrated: str | None = None

    @classmethod
    def of(cls, manifest: Manifest) -> DeploymentState:
        """Digest an object of the API."""
        metadata, spec, status = manifest["metadata"], manifest["spec"], manifest.get("status", {})
        owner = controller_of(manifest)
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
            name=metadata["name"],
            uid=metadata["uid"],
            controller_kind=owner.get("kind"),
            controller_uid=owner.get("uid"),
            generation=metadata["generation"],
            labels=frozenset(metadata.get("labels", {}).items()),
            wanted_replicas=spec.get("replicas", 1),
            rolled_out=(
                status.get("observedGeneration", 0) >= metadata["generation"]
                and status.get("updatedReplicas", 0) == status.get("replicas", 0) == spec.get("replicas", 1)
            ),
            replicas=status.get("replicas", 0),
            ready_replicas=status.get("readyReplicas", 0),
            failure=failures[0] if failures else None,
            overdue=overdue,
            migrated=metadata.get("annotations", {}).get(MIGRATED_ANNOTATION),
        )


@dataclass(frozen=True, slots=True)
class ChildState(ObjectState):
    """An object beside the Deployment, and what tells whether somebody has changed it.

    ``spec`` is a hash of what the API server made of the spec, defaults included: not every kind has a
    generation.
    """

    spec: str

    @classmethod
    def of(cls, manifest: Manifest) -> ChildState:
        """Digest an object of the API."""
        metadata = manifest["metadata"]
        return cls(
            name=metadata["name"],
            uid=metadata["uid"],
            controller_kind=controller_of(manifest).get("kind"),
            controller_uid=controller_of(manifest).get("uid"),
            labels=frozenset(metadata.get("labels", {}).items()),
            spec=hashlib.sha256(json.dumps(manifest.get("spec"), sort_keys=True).encode()).hexdigest(),
        )


@dataclass(frozen=True, slots=True)
class AutoscalerState:
    """How a HorizontalPodAutoscaler fares, by its own conditions.

    ``counts`` says whether it got its metric last; None while it sleeps, or has not looked yet.
    ``trouble`` is the reason and the words of what keeps it from scaling.
    """

    uid: str
    controller_uid: str | None
    counts: bool | None
    trouble: tuple[str, str] | None

    @classmethod
    def of(cls, manifest: Manifest) -> AutoscalerState:
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
            uid=manifest["metadata"]["uid"],
            controller_uid=controller_of(manifest).get("uid"),
            counts=None if asleep else active["status"] == "True",
            trouble=failing[0] if failing else None,
        )


class PodTrouble(StrEnum):
    """Why a pod does not work, most telling first: the reason of the condition and the event."""

    IMAGE_PULL_FAILED = "ImagePullFailed"
    CONTAINER_CONFIG_INVALID = "ContainerConfigInvalid"
    CRASH_LOOPING = "CrashLooping"
    UNSCHEDULABLE = "PodUnschedulable"


@dataclass(frozen=True, slots=True)
class PodState:
    """One pod of a worker.

    ``crashed_at`` is when its container last ended with an error and was started again, ``crash`` how it
    ended, and ``words`` the last line of a container that crashes. ``life`` is what choosing victims and
    finding orphans need.
    """

    name: str
    trouble: PodTrouble | None = None
    detail: str = ""
    crashed_at: datetime | None = None
    crash: str = ""
    words: str = ""
    life: PodLife | None = None

    @classmethod
    def of(cls, manifest: Manifest) -> PodState:
        """Digest an object of the API."""
        return replace(cls._in_trouble(manifest), life=PodLife.of(manifest))

    @classmethod
    def _in_trouble(cls, manifest: Manifest) -> PodState:
        name, status = manifest["metadata"]["name"], manifest.get("status", {})
        for container in _containers(status):
            found = _waiting(container)
            if found:
                trouble, detail, words = found
                return cls(name, trouble, detail, words=words)
        for condition in status.get("conditions", ()):
            if condition["type"] == "PodScheduled" and condition.get("reason") == "Unschedulable":
                return cls(name, PodTrouble.UNSCHEDULABLE, condition.get("message", ""))
        for container in _containers(status):
            ended = container.get("lastState", {}).get("terminated") or {}
            if ended.get("exitCode") and ended.get("finishedAt"):
                at = datetime.fromisoformat(ended["finishedAt"])
                crash, words = _crash(container, ended)
                return cls(name, crashed_at=at, crash=crash, words=words)
        return cls(name)

    def redacted(self, redact: Callable[[str], str]) -> PodState:
        """The same without what must not be told: a worker's last words may quote its database URL."""
        own = self.trouble in {None, PodTrouble.CRASH_LOOPING}
        return replace(self, detail=self.detail if own else redact(self.detail), words=redact(self.words))

    def trouble_at(self, now: datetime) -> tuple[PodTrouble, str] | None:
        """What is wrong with the pod, and the details, as far as one can say at that time."""
        if self.trouble:
            return self.trouble, self.told
        if self.crashed_at and (now - self.crashed_at).total_seconds() < CRASH_MEMORY_SECONDS:
            return PodTrouble.CRASH_LOOPING, self._with_words(self.crash)
        return None

    @property
    def told(self) -> str:
        """What there is to say of the trouble that the pod is in now."""
        return self._with_words(self.detail)

    def _with_words(self, how: str) -> str:
        return f"{how}, last words: {self.words}" if self.words else how


@dataclass(frozen=True, slots=True)
class JobState:
    """A Job that migrates: what it migrates, and whether that went well.

    ``failed`` says how it failed, once it is not tried any more.
    """

    name: str
    uid: str
    controller_uid: str | None
    migrates: str | None
    complete: bool
    failed: str | None

    @classmethod
    def of(cls, manifest: Manifest) -> JobState:
        """Digest an object of the API."""
        metadata, status = manifest["metadata"], manifest.get("status", {})
        ended = {
            condition["type"]: condition.get("message") or condition.get("reason", "")
            for condition in status.get("conditions", ())
            if condition["status"] == "True"
        }
        return cls(
            name=metadata["name"],
            uid=metadata["uid"],
            controller_uid=controller_of(manifest).get("uid"),
            migrates=metadata.get("annotations", {}).get(MIGRATED_ANNOTATION),
            complete="Complete" in ended,
            failed=Foreign(ended["Failed"]) if "Failed" in ended else None,
        )

    @property
    def is_over(self) -> bool:
        """Whether it ended, well or badly."""
        return self.complete or self.failed is not None


@dataclass(frozen=True, slots=True)
class JobPodState:
    """A pod of a Job: what keeps it from starting, and how it ended if it failed.

    ``words`` is what it said last: the end of its log.
    """

    pod: PodState
    job_uid: str
    created: str
    running: bool
    failure: str | None
    words: str

    @classmethod
    def of(cls, manifest: Manifest) -> JobPodState:
        """Digest an object of the API."""
        metadata, status = manifest["metadata"], manifest.get("status", {})
        states = [(each, each.get("state", {})) for each in _containers(status)]
        ended = [
            (each, state["terminated"])
            for each, state in states
            if (state.get("terminated") or {}).get("exitCode")
        ]
        failed = status.get("phase") == "Failed"
        return cls(
            pod=PodState.of(manifest),
            job_uid=controller_of(manifest).get("uid", ""),
            created=metadata.get("creationTimestamp", ""),
            running=any(state.get("running") for each, state in states if each["name"] == CONTAINER),
            failure=(_ending(*ended[0]) if ended else Foreign(status.get("message", ""))) if failed else None,
            words=ended[0][1].get("message", "") if failed and ended else "",
        )


def owner_of(manifest: Manifest) -> Key:
    """Tell which worker an object with the operator's labels belongs to."""
    metadata = manifest["metadata"]
    labels = metadata["labels"]
    return Key(namespace=metadata["namespace"], name=labels.get(WORKER_LABEL) or labels[MIGRATION_LABEL])


def _containers(status: dict[str, Any]) -> list[dict[str, Any]]:
    return [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]


def _waiting(container: dict[str, Any]) -> tuple[PodTrouble, str, str] | None:
    """What keeps a container from running, the details, and its last words."""
    waiting = container.get("state", {}).get("waiting") or {}
    reason, message = waiting.get("reason", ""), waiting.get("message", "")
    if reason in {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}:
        return PodTrouble.IMAGE_PULL_FAILED, f"{container['image']}: {message or reason}", ""
    if reason in {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}:
        return PodTrouble.CONTAINER_CONFIG_INVALID, message or reason, ""
    ended = (
        container.get("lastState", {}).get("terminated") or container.get("state", {}).get("terminated") or {}
    )
    # The kubelet calls it a crash loop as well when a worker ends after its maxTasks.
    if reason == "CrashLoopBackOff" and ended.get("exitCode", 1) != 0:
        return PodTrouble.CRASH_LOOPING, *_crash(container, ended)
    return None


def _ending(container: dict[str, Any], ended: dict[str, Any]) -> str:
    which = "" if container["name"] == CONTAINER else f"container {container['name']} "
    how = (
        "killed for using too much memory"
        if ended.get("reason") == "OOMKilled"
        else f"exit code {ended.get('exitCode', '?')}"
    )
    return f"{which}{how}"


def _crash(container: dict[str, Any], ended: dict[str, Any]) -> tuple[str, str]:
    lines = [line.strip() for line in (ended.get("message") or "").splitlines() if line.strip()]
    # The whole line: of a password that is cut off, the rest could not be found and hidden any more.
    return _ending(container, ended), lines[-1] if lines else ""
