"""What the operator sees of a pod, as small frozen values: whether it is alive, and what is wrong with it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from django_task_operator.observed.deaths import disruption_of, is_evicted, shortage_of
from django_task_operator.redaction import Foreign, OfSpec
from django_task_operator.resources.migration import MIGRATE
from django_task_operator.resources.pod_template import CONTAINER
from django_task_operator.resources.runtime import INJECTION

if TYPE_CHECKING:
    from collections.abc import Callable

    from django_task_operator.observed.deaths import Shortage
    from django_task_operator.spec import Manifest

# What a VerticalPodAutoscaler says of the pods whose resources it has set, in whichever of its modes
# (kubernetes/autoscaler, vertical-pod-autoscaler/pkg/admission-controller/resource/pod/patch).
_RESIZED_ANNOTATION = "vpaUpdates"
_RESIZED = re.compile(r"Pod resources updated by (?P<name>[a-z0-9.-]{1,253}): ")

DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"

# The containers with the commands of a Job.
_OF_A_JOB = {MIGRATE, CONTAINER}

# A restarted container counts as healthy only after it has run for this long: between two crashes it
# looks healthy for a moment.
CRASH_MEMORY_SECONDS = 60.0


# A container's status, and its state or how that ended.
type _Named = tuple[dict[str, Any], dict[str, Any]]


class PodTrouble(StrEnum):
    """Why a pod does not work, most important first: the reason of the condition and the event."""

    IMAGE_PULL_FAILED = "ImagePullFailed"
    CONTAINER_CONFIG_INVALID = "ContainerConfigInvalid"
    CRASH_LOOPING = "CrashLooping"
    UNSCHEDULABLE = "PodUnschedulable"


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod of a worker, and the container in it that runs tasks.

    Args:
        name: the pod's name.
        uid: its uid.
        replica_set: the ReplicaSet that created it; empty if none did.
        cost: its deletion cost.
        scheduled: whether it has a node.
        phase: Pending, Running, Succeeded, Failed or Unknown.
        ready: whether it is ready.
        terminating: whether it is being deleted.
        restarts: how often the container was restarted.
        running_since: when the running container was started; None if none is running.
        ended_at: when the previous container, or the last one, ended; None if none has.
        began_at: when that container had started.
        out_of_memory: whether that container was killed because it had no memory left.
        shortage: whose memory that was, if its worker had said so.
        disruption: who ends or ended the pod for a reason that is not of its own making, worded to follow
            "the pod"; empty if nobody does.
        is_evicted: whether that is somebody who had the API server evict it.
        resized_by: the name of the VerticalPodAutoscaler that has set its resources; empty if none has.
        trouble: what keeps one of its containers from running, if anything does.
        detail: details of the trouble.
        crashed_at: when one of its containers last ended with an error and was restarted.
        crash: how that container ended.
        words: the last log line of a container that crashed.
        lacks_runtime: whether the image cannot be pulled from which its runtime is copied.
    """

    name: str
    uid: str = ""
    replica_set: str = ""
    cost: int = 0
    scheduled: bool = True
    phase: str = "Running"
    ready: bool = True
    terminating: bool = False
    restarts: int = 0
    running_since: datetime | None = None
    ended_at: datetime | None = None
    began_at: datetime | None = None
    out_of_memory: bool = False
    shortage: Shortage | None = None
    disruption: str = ""
    is_evicted: bool = False
    resized_by: str = ""
    trouble: PodTrouble | None = None
    detail: str = ""
    crashed_at: datetime | None = None
    crash: str = ""
    words: str = ""
    lacks_runtime: bool = False

    @classmethod
    def of(cls, manifest: Manifest) -> Pod:
        """Digest an object of the API."""
        metadata, status = manifest["metadata"], manifest.get("status", {})
        conditions = {each["type"]: each["status"] for each in status.get("conditions", ())}
        owner = controller_of(manifest)
        containers = (each for each in status.get("containerStatuses", ()) if each["name"] == CONTAINER)
        container: dict[str, Any] = next(containers, {})
        state = container.get("state", {})
        ended = state.get("terminated") or container.get("lastState", {}).get("terminated") or {}
        return cls(
            name=metadata["name"],
            uid=metadata.get("uid", ""),
            replica_set=owner.get("name", "") if owner.get("kind") == "ReplicaSet" else "",
            cost=_cost(metadata),
            scheduled=bool(manifest.get("spec", {}).get("nodeName")),
            phase=status.get("phase", "Pending"),
            ready=conditions.get("Ready") == "True",
            terminating="deletionTimestamp" in metadata,
            restarts=container.get("restartCount", 0),
            running_since=_time((state.get("running") or {}).get("startedAt")),
            ended_at=_time(ended.get("finishedAt")),
            began_at=_time(ended.get("startedAt")),
            out_of_memory=ended.get("reason") == "OOMKilled",
            shortage=shortage_of(ended),
            disruption=disruption_of(status),
            is_evicted=is_evicted(status),
            resized_by=_resized_by(metadata),
            lacks_runtime=any(_lacks_runtime(each) for each in status.get("initContainerStatuses", ())),
            **_trouble(status)._asdict(),
        )

    @property
    def has_ended(self) -> bool:
        """Whether none of its containers will run again."""
        return self.phase in {"Succeeded", "Failed"}

    @property
    def is_replica(self) -> bool:
        """Whether its ReplicaSet counts it."""
        return not (self.terminating or self.has_ended)

    @property
    def rank(self) -> int:
        """Its place in the order of removal at a scale-in, before its cost is considered: lower goes first.

        This is the order of ActivePodsWithRanks in Kubernetes' controllers.
        """
        phase = {"Pending": 0, "Unknown": 1}.get(self.phase, 2)
        return 6 * self.scheduled + 2 * phase + self.ready

    def redacted(self, redact: Callable[[str], str]) -> Pod:
        """Return the same without secrets: the last log line of a worker may quote its database URL."""
        own = self.trouble in {None, PodTrouble.CRASH_LOOPING}
        detail = self.detail if own else redact(OfSpec(self.detail))
        return replace(self, detail=detail, words=redact(self.words))

    def trouble_at(self, now: datetime) -> tuple[PodTrouble, str] | None:
        """Return what is wrong with the pod at that time, and the details."""
        if self.trouble:
            return self.trouble, self.told
        if self.crashed_at and (now - self.crashed_at).total_seconds() < CRASH_MEMORY_SECONDS:
            return PodTrouble.CRASH_LOOPING, self._with_words(self.crash)
        return None

    @property
    def told(self) -> str:
        """Details of what is wrong with the pod now."""
        return self._with_words(self.detail)

    def _with_words(self, how: str) -> str:
        return f"{how}, last log line: {self.words}" if self.words else how


@dataclass(frozen=True, slots=True)
class JobPod:
    """A pod of a Job: what keeps it from starting, and how it ended.

    Args:
        pod: what is known about every pod.
        job: the name of its Job.
        job_uid: the uid of its Job.
        created: when it was created.
        running: whether a container with a command of the Job is running.
        lingers: whether the last of these has ended, but injected ones, such as a service mesh's, keep the
            pod running. The Job then sees neither success nor failure.
        failure: how it failed, if it did.
        words: the end of its log, if it failed.
    """

    pod: Pod
    job: str
    job_uid: str
    created: str
    running: bool
    lingers: bool
    failure: str | None
    words: str

    @property
    def has_done_it(self) -> bool:
        """Whether it lingers after a success."""
        return self.lingers and self.failure is None

    @classmethod
    def of(cls, manifest: Manifest) -> JobPod:
        """Digest an object of the API."""
        metadata, status = manifest["metadata"], manifest.get("status", {})
        states = [(each, each.get("state", {})) for each in _containers(status)]
        ended = [
            (each, state["terminated"])
            for each, state in states
            if (state.get("terminated") or {}).get("exitCode")
        ]
        # A sidecar that was ended after the command, and says so, is not the reason.
        ended.sort(key=lambda each: each[0]["name"] not in _OF_A_JOB)
        beside = [each for each in status.get("containerStatuses", ()) if each["name"] != CONTAINER]
        lingers = any(state.get("terminated") for each, state in states if each["name"] == CONTAINER) and any(
            each.get("state", {}).get("running") for each in beside
        )
        failed = status.get("phase") == "Failed" or (
            lingers and any(each["name"] == CONTAINER for each, _ in ended)
        )
        job = controller_of(manifest)
        return cls(
            pod=Pod.of(manifest),
            job=job.get("name", ""),
            job_uid=job.get("uid", ""),
            created=metadata.get("creationTimestamp", ""),
            running=any(state.get("running") for each, state in states if each["name"] in _OF_A_JOB),
            lingers=lingers,
            failure=_failure(status, states, ended) if failed else None,
            words=ended[0][1].get("message", "") if failed and ended else "",
        )


def controller_of(manifest: Manifest) -> Manifest:
    """Return the name of the owner that controls an object; empty if none does."""
    owners: list[Manifest] = manifest["metadata"].get("ownerReferences", [])
    return next((owner for owner in owners if owner.get("controller")), {})


class _Trouble(NamedTuple):
    """Return the fields of a pod that say what is wrong with it."""

    trouble: PodTrouble | None = None
    detail: str = ""
    crashed_at: datetime | None = None
    crash: str = ""
    words: str = ""


def _trouble(status: dict[str, Any]) -> _Trouble:
    for container in _containers(status):
        found = _waiting(container)
        if found:
            trouble, detail, words = found
            return _Trouble(trouble, detail, words=words)
    for condition in status.get("conditions", ()):
        if condition["type"] == "PodScheduled" and condition.get("reason") == "Unschedulable":
            return _Trouble(PodTrouble.UNSCHEDULABLE, condition.get("message", ""))
    for container in _containers(status):
        ended = container.get("lastState", {}).get("terminated") or {}
        if ended.get("exitCode") and ended.get("finishedAt"):
            crash, words = _crash(container, ended)
            return _Trouble(crashed_at=_time(ended["finishedAt"]), crash=crash, words=words)
    return _Trouble()


def _containers(status: dict[str, Any]) -> list[dict[str, Any]]:
    return [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]


def _waiting(container: dict[str, Any]) -> tuple[PodTrouble, str, str] | None:
    """Return what keeps a container from running, the details, and the last line of its log."""
    waiting = container.get("state", {}).get("waiting") or {}
    reason, message = waiting.get("reason", ""), waiting.get("message", "")
    if reason in {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}:
        return PodTrouble.IMAGE_PULL_FAILED, f"{_image(container)}: {message or reason}", ""
    if reason in {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}:
        return PodTrouble.CONTAINER_CONFIG_INVALID, message or reason, ""
    ended = (
        container.get("lastState", {}).get("terminated") or container.get("state", {}).get("terminated") or {}
    )
    # The kubelet also reports a crash loop when a container exits with code 0.
    if reason == "CrashLoopBackOff" and ended.get("exitCode", 1) != 0:
        return PodTrouble.CRASH_LOOPING, *_crash(container, ended)
    return None


def _lacks_runtime(container: dict[str, Any]) -> bool:
    trouble = _waiting(container)
    is_copy = container["name"] == INJECTION
    return is_copy and trouble is not None and trouble[0] is PodTrouble.IMAGE_PULL_FAILED


def _image(container: dict[str, Any]) -> str:
    """Return a container's image, and where whoever is to correct it finds it."""
    known = {
        CONTAINER: "spec.image",
        MIGRATE: "spec.image",
        INJECTION: "workerImage in the operator's chart",
    }
    where = known.get(container["name"], f"container {container['name']} of spec.podTemplate")
    return f"{container['image']} ({where})"


def _ending(container: dict[str, Any], ended: dict[str, Any]) -> str:
    which = "" if container["name"] in _OF_A_JOB else f"container {container['name']} "
    how = (
        "killed for using too much memory"
        if ended.get("reason") == "OOMKilled"
        else f"exit code {ended.get('exitCode', '?')}"
    )
    return f"{which}{how}"


def _failure(status: dict[str, Any], states: list[_Named], ended: list[_Named]) -> str:
    """Word how a Job's pod failed; if it is not `migrate` that failed, name the command after it."""
    if not ended:
        return Foreign(status.get("message", ""))
    container, how = ended[0]
    is_after = container["name"] == CONTAINER and any(each["name"] == MIGRATE for each, _ in states)
    return f"{'db_worker_setup: ' if is_after else ''}{_ending(container, how)}"


def _crash(container: dict[str, Any], ended: dict[str, Any]) -> tuple[str, str]:
    if shortage := shortage_of(ended):
        return f"{_ending(container, ended)}: {shortage.words}", ""
    lines = [line.strip() for line in (ended.get("message") or "").splitlines() if line.strip()]
    # The whole line: if a password were cut off, the rest of it could not be recognized and hidden.
    return _ending(container, ended), lines[-1] if lines else ""


def _resized_by(metadata: Manifest) -> str:
    found = _RESIZED.match((metadata.get("annotations") or {}).get(_RESIZED_ANNOTATION, ""))
    return found["name"] if found else ""


def _cost(metadata: Manifest) -> int:
    try:
        return int((metadata.get("annotations") or {}).get(DELETION_COST, 0))
    except ValueError:
        # The API server refuses values that are not numbers, and Kubernetes would treat them as 0.
        return 0


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
