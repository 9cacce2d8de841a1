"""Whether a worker's pods live, as small frozen values: what choosing victims and finding orphans need."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from django_task_operator.resources.labels import WORKER_UID_ANNOTATION
from django_task_operator.resources.pod_template import CONTAINER

if TYPE_CHECKING:
    from django_task_operator.spec import Manifest

DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"


@dataclass(frozen=True, slots=True)
class PodLife:
    """A pod, and the container in it that runs tasks.

    Args:
        name: the pod's name.
        uid: which pod of that name.
        replica_set: the ReplicaSet that made it; empty where none did.
        cost: its deletion cost.
        scheduled: whether it has a node.
        phase: Pending, Running, Succeeded, Failed or Unknown.
        ready: whether it is ready.
        terminating: whether it is about to go.
        restarts: how often the container was started again.
        running_since: when the container that runs now was started; None while none runs.
        ended_at: when the container before it, or the last one, ended; None if none has.
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

    @classmethod
    def of(cls, manifest: Manifest) -> PodLife:
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
        )

    @property
    def has_ended(self) -> bool:
        """Whether nothing will ever run in it again."""
        return self.phase in {"Succeeded", "Failed"}

    @property
    def is_replica(self) -> bool:
        """Whether its ReplicaSet counts it."""
        return not (self.terminating or self.has_ended)

    @property
    def rank(self) -> int:
        """When it goes at a scale-in, before its cost is looked at: lower first.

        As ActivePodsWithRanks of Kubernetes' controllers sorts.
        """
        phase = {"Pending": 0, "Unknown": 1}.get(self.phase, 2)
        return 6 * self.scheduled + 2 * phase + self.ready


@dataclass(frozen=True, slots=True)
class ReplicaSetState:
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
    def of(cls, manifest: Manifest) -> ReplicaSetState:
        """Digest an object of the API."""
        metadata, template = manifest["metadata"], manifest["spec"].get("template", {})
        annotations = template.get("metadata", {}).get("annotations") or {}
        return cls(
            name=metadata["name"],
            controller_uid=controller_of(manifest).get("uid"),
            worker_uid=annotations.get(WORKER_UID_ANNOTATION),
        )


def controller_of(manifest: Manifest) -> Manifest:
    """Name the owner that controls an object; empty where none does."""
    owners: list[Manifest] = manifest["metadata"].get("ownerReferences", [])
    return next((owner for owner in owners if owner.get("controller")), {})


def _cost(metadata: Manifest) -> int:
    try:
        return int((metadata.get("annotations") or {}).get(DELETION_COST, 0))
    except ValueError:
        # The API server refuses what is no number, and Kubernetes would count it as none.
        return 0


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
