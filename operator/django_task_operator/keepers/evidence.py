"""Which RUNNING rows are of a worker's own pods, and which of these nobody runs any more.

What is not proven is not so: a row is somebody else's, and its pod lives, until the opposite is known.
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

# A ReplicaSet's name and five characters: how Kubernetes names its pods. Names of workers are short
# enough that nothing is cut off (58 characters, and a ReplicaSet's name here has at most 51).
_POD_NAME = re.compile(r"(?P<replica_set>.+)-[a-z0-9]{5}")
# Kubernetes cuts its times off to the second.
_SECOND = timedelta(seconds=1)


class Fate(StrEnum):
    """What became of the process that ran a row, as people read it after "the pod"."""

    ALIVE = "runs"
    GONE = "is gone"
    ENDED = "has ended"
    STOPPED = "had its container stopped"
    RESTARTED = "had its container restarted"


@dataclass(frozen=True, slots=True)
class Trace:
    """A RUNNING row of a worker's own pods, and what became of its process."""

    row: RunningRow
    pod: str
    fate: Fate


def pod_of(worker_id: str) -> str:
    """Name the pod that a worker id is of: the runtimes append the slot after a slash."""
    return worker_id.partition("/")[0]


def own_replica_sets(
    replica_sets: Iterable[ReplicaSet], deployment_uid: str, worker_uid: str
) -> frozenset[str]:
    """Name the ReplicaSets whose pods are this very worker's.

    The worker's uid stands on the pod template, which makes the hash in the name, so that no other
    worker, and no other cluster on the same database, has a ReplicaSet of that name. One that a
    backup brought here from another cluster has another worker's uid.
    """
    return frozenset(
        each.name
        for each in replica_sets
        if each.controller_uid == deployment_uid and each.worker_uid == worker_uid
    )


def is_own(pod: str, replica_sets: Collection[str]) -> bool:
    """Whether a pod, which may be long gone, was made by one of these ReplicaSets."""
    match = _POD_NAME.fullmatch(pod)
    return match is not None and match["replica_set"] in replica_sets


def traces(rows: Iterable[RunningRow], pods: Mapping[str, Pod], replica_sets: Collection[str]) -> list[Trace]:
    """Judge the rows of a worker's own pods.

    ``pods`` must be younger than ``rows``: a pod that came later than both would be thought gone.
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
    """Times are the node's own: the worker's for the row, the kubelet's for the container."""
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
        # What a container has claimed that the kubelet has not yet told of is younger.
        has_stopped = pod.ended_at is not None and started_at < pod.ended_at + _SECOND
        return Fate.STOPPED if has_stopped else Fate.ALIVE
    # In the second in which one container ended and the next began it is not known whose the row is,
    # unless its slot has claimed another since: it runs one task at a time.
    since = pod.running_since if row is newest else pod.running_since + _SECOND
    return Fate.RESTARTED if pod.restarts and started_at < since else Fate.ALIVE
