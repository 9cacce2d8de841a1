"""What a pod's status says about its end: which task took the memory, or who else ended the pod."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

# What the worker's supervisor writes to its container's termination message while memory is short
# (worker-image/django_db_worker/shortage.py). The whole message must be this line: with
# FallbackToLogsOnError, it is otherwise the end of a log, which may quote the line of an earlier shortage.
_TASK = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_PROCESS = rf"process \d+ takes \d+ MiB for tasks? {_TASK}(?:, {_TASK})*"
_SHORTAGE = re.compile(rf"(?P<line>Short of memory \(\d+ of \d+ MiB\): {_PROCESS}(?:; {_PROCESS})*\.)\s*")

EVICTED = "EvictionByEvictionAPI"
# Reasons of the condition DisruptionTarget (k8s.io/api/core/v1 and the controllers that set it), in words
# that follow "the pod".
_DISRUPTIONS = {
    "PreemptionByScheduler": "was preempted by a pod of higher priority",
    "DeletionByTaintManager": "was removed from its node because of a taint",
    EVICTED: "was evicted through the API",
    "DeletionByPodGC": "was on a node that no longer exists",
}
# The kubelet gives all its reasons to end a pod the same condition, and tells them apart in status.reason.
# "Evicted" is left out: what it evicts a pod for, such as memory or disk space, the pod may have used itself.
_BY_KUBELET = {
    "Terminated": "was on a node that shut down",
    "Preempting": "was preempted by a critical pod",
}


@dataclass(frozen=True, slots=True)
class Shortage:
    """A container that was killed when it had no memory left, after its worker had said who took it.

    Args:
        tasks: ids of the tasks whose processes took most of it; never empty.
        words: the same for people, without anything that others wrote.
    """

    tasks: frozenset[str]
    words: str


def shortage_of(terminated: Mapping[str, Any]) -> Shortage | None:
    """Read how a container ended; None if it was not for a lack of memory, or if nobody knows whose."""
    found = _SHORTAGE.fullmatch(terminated.get("message") or "")
    if terminated.get("reason") != "OOMKilled" or not found:
        return None
    return Shortage(frozenset(re.findall(_TASK, found["line"])), found["line"])


def is_evicted(status: Mapping[str, Any]) -> bool:
    """Whether somebody had the API server evict the pod, as a drain and a VerticalPodAutoscaler do."""
    return _disrupted_for(status) == EVICTED


def disruption_of(status: Mapping[str, Any]) -> str:
    """Return who ends or ended a pod that cannot be to blame for it, worded to follow "the pod"; else ""."""
    reason = _disrupted_for(status)
    if reason == "TerminationByKubelet":
        return _BY_KUBELET.get(status.get("reason", ""), "")
    return _DISRUPTIONS.get(reason, "")


def _disrupted_for(status: Mapping[str, Any]) -> str:
    """The reason of the condition DisruptionTarget, if that is True."""
    reasons = (
        str(condition.get("reason", ""))
        for condition in status.get("conditions", ())
        if (condition["type"], condition["status"]) == ("DisruptionTarget", "True")
    )
    return next(reasons, "")
