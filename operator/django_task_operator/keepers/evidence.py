"""Which RUNNING rows belong to a worker's own pods, and which of these no process runs any more.

Without proof of the opposite, a row is assumed to belong to another worker, and its pod to be alive.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from django_task_operator.observed.objects import ReplicaSet
    from django_task_operator.observed.pods import Pod
    from django_task_operator.tasktable import RunningRow

# Kubernetes names pods by their ReplicaSet and five characters. It truncates ReplicaSet names after 58
# characters, but those of workers have at most 51.
_POD_NAME = re.compile(r"(?P<replica_set>.+)-[a-z0-9]{5}")
# Kubernetes truncates times to the second.
SECOND = timedelta(seconds=1)


class Fate(StrEnum):
    """What happened to the process that ran a row, worded to follow "the pod"."""

    ALIVE = "runs"
    GONE = "is gone"
    ENDED = "has ended"
    STOPPED = "had its container stopped"
    RESTARTED = "had its container restarted"


@dataclass(frozen=True, slots=True)
class Trace:
    """A RUNNING row of a worker's own pods, and what happened to its process.

    Args:
        row: the row.
        pod: the name of the pod whose process claimed it.
        fate: what happened to that process.
        excuse: why that cannot be the fault of the row's task, worded to follow "because"; empty if it can.
    """

    row: RunningRow
    pod: str
    fate: Fate
    excuse: str = ""


def pod_of(worker_id: str) -> str:
    """Return the name of a worker id's pod: the runtimes append the slot after a slash."""
    return worker_id.partition("/")[0]


def own_replica_sets(
    replica_sets: Iterable[ReplicaSet], deployment_uid: str, worker_uid: str
) -> frozenset[str]:
    """Return the names of the ReplicaSets whose pods belong to this worker.

    The hash in the name is made from the pod template, which has the worker's uid, so no other worker and no
    other cluster on the same database has a ReplicaSet of that name. A ReplicaSet restored from another
    cluster's backup has the uid of another worker.
    """
    return frozenset(
        each.name
        for each in replica_sets
        if each.controller_uid == deployment_uid and each.worker_uid == worker_uid
    )


def is_own(pod: str, replica_sets: Collection[str]) -> bool:
    """Whether a pod, which may be long gone, was created by one of these ReplicaSets."""
    match = _POD_NAME.fullmatch(pod)
    return match is not None and match["replica_set"] in replica_sets


def traces(rows: Iterable[RunningRow], pods: Mapping[str, Pod], replica_sets: Collection[str]) -> list[Trace]:
    """Determine what happened to the processes of a worker's own rows.

    ``pods`` must be more recent than ``rows``: otherwise a pod created in between would be taken for gone.
    """
    own = [
        (row, pod)
        for row in rows
        if row.since is not None and is_own(pod := pod_of(row.worker_id), replica_sets)
    ]
    newest: dict[str, RunningRow] = {}
    for row, _ in own:
        known = newest.get(row.worker_id)
        if known is None or _started(row) > _started(known):
            newest[row.worker_id] = row
    return [Trace(row, pod, _fate(row, pods.get(pod), newest[row.worker_id])) for row, pod in own]


def _started(row: RunningRow) -> float:
    return row.since.timestamp() if row.since else 0.0


def _fate(row: RunningRow, pod: Pod | None, newest: RunningRow) -> Fate:
    """Compare times of the same node: the worker's for the row, the kubelet's for the container."""
    if pod is None:
        return Fate.GONE
    if pod.has_ended:
        return Fate.ENDED
    return _fate_in(pod, row, newest)


def _fate_in(pod: Pod, row: RunningRow, newest: RunningRow) -> Fate:
    started_at = row.started_at
    if started_at is None:
        return Fate.ALIVE
    if pod.running_since is None:
        # A row claimed by a container that the kubelet has not reported yet is more recent.
        has_stopped = pod.ended_at is not None and started_at < pod.ended_at + SECOND
        return Fate.STOPPED if has_stopped else Fate.ALIVE
    # Within the second in which one container ended and the next one started, it is not known which of them
    # claimed the row, unless the slot has claimed another since: a slot runs one task at a time.
    since = pod.running_since if row is newest else pod.running_since + SECOND
    return Fate.RESTARTED if pod.restarts and started_at < since else Fate.ALIVE
