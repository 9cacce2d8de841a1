"""Which attempts were ended by something that their own task cannot be blamed for, and so do not count.

``maxRequeues`` stops a task that kills its pods. Without proof of the opposite, every task of a dead pod may
be the one. Proof is what the worker wrote before its container ran out of memory, and the pod's condition
DisruptionTarget. A death for a lack of memory never goes uncounted: it excuses nobody unless one of the tasks
that are blamed for it is among those that it ended.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

from django_task_operator.keepers.evidence import SECOND, Fate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from django_task_operator.keepers.evidence import Trace
    from django_task_operator.observed.pods import Pod
    from django_task_operator.tasktable import RunningRow


def excused(traces: Sequence[Trace], pods: Mapping[str, Pod]) -> list[Trace]:
    """Return the same traces of dead processes, with an excuse for those that have one.

    ``pods`` are the pods in their last known state, including those that are gone.
    """
    ended: dict[str, set[str]] = defaultdict(set)
    for trace in traces:
        if trace.pod in pods and _container_ended(trace, pods[trace.pod]):
            ended[trace.pod].add(trace.row.id)
    return [
        replace(trace, excuse=_excuse(trace, pods[trace.pod], ended[trace.pod]))
        if trace.pod in pods
        else trace
        for trace in traces
    ]


def _excuse(trace: Trace, pod: Pod, ended: set[str]) -> str:
    if trace.row.id in ended and pod.out_of_memory:
        blamed = sorted(pod.shortage.tasks & ended) if pod.shortage else []
        if not blamed or trace.row.id in blamed:
            return ""
        return f"another task ({', '.join(blamed)}) had taken the memory of its container"
    with_pod = trace.fate in {Fate.GONE, Fate.ENDED}
    ran_last = trace.row.id in ended or (pod.running_since and _is_of(trace.row, pod.running_since, pod))
    return f"the pod {pod.disruption}" if pod.disruption and with_pod and ran_last else ""


def _container_ended(trace: Trace, pod: Pod) -> bool:
    """Whether the row was claimed in the container whose end the pod's status describes."""
    if trace.fate in {Fate.GONE, Fate.ENDED} and pod.running_since:
        return False
    return pod.ended_at is not None and _is_of(trace.row, pod.began_at, pod)


def _is_of(row: RunningRow, began: datetime | None, pod: Pod) -> bool:
    """Whether a row was claimed in the container that began then, and not in one before it."""
    if not pod.restarts:
        return True
    # Kubernetes truncates times: in the second of the start, the row may be of the container before.
    return bool(row.started_at and began and row.started_at >= began + SECOND)
