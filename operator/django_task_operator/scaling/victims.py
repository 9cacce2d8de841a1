"""Decides which pods to remove at a scale-in, so that no pod that runs a task is among them.

Kubernetes chooses the victims, in its own order: pods without a node, pending ones, ones that are not
ready, and then those with the lowest deletion cost
(https://kubernetes.io/docs/concepts/workloads/controllers/replicaset/#scaling-down-a-replicaset). Only
the cost is ours. So pods go as far as that order, with the idle ones marked, meets a busy one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from django_task_operator.scaling.decision import Reason

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from django_task_operator.due import Due
    from django_task_operator.scaling.decision import Decision

# Lower than any cost a user is likely to set, but not the lowest possible value, which a user might use.
VICTIM_COST = -(2**31) + 47


@dataclass(frozen=True, slots=True)
class Candidate:
    """A pod that counts as a replica: neither ended nor about to be.

    Args:
        name: the pod's name.
        group: its ReplicaSet; a rollout replaces the pods of a group together.
        rank: Kubernetes' order of removal before the cost is considered: lower goes first.
        cost: its deletion cost.
    """

    name: str
    group: str
    rank: int
    cost: int = 0

    @property
    def is_marked(self) -> bool:
        """Whether it was chosen to be removed."""
        return self.cost == VICTIM_COST


@dataclass(frozen=True, slots=True)
class Marks:
    """Which pods to mark as the first to be removed.

    Args:
        mark: pods that are to get ``VICTIM_COST``; none if all pods are removed.
        unmark: pods that have it but are to stay.
    """

    mark: tuple[str, ...] = ()
    unmark: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.mark or self.unmark)


NO_MARKS = Marks()


@dataclass(frozen=True, slots=True)
class ScaleIn:
    """How far to scale in now.

    Args:
        replicas: the number to write now, after the ``marks`` are set.
        marks: which pods to mark for removal, and which to unmark.
        kept: how many more pods stay than are wanted.
    """

    replicas: int
    marks: Marks = NO_MARKS
    kept: int = 0


def choose_victims(wanted: int, current: int, pods: Iterable[Candidate], busy: Collection[str]) -> ScaleIn:
    """Plan the scale-in from ``current`` to ``wanted`` replicas.

    Args:
        wanted: fewer than ``current``.
        current: the replicas in the Deployment's spec.
        pods: its pods.
        busy: the names of pods that run a task. One that is not among ``pods`` is assumed to exist, and to
            be removed last.
    """
    pods = sorted(pods, key=lambda pod: (pod.rank, pod.name in busy, not pod.is_marked, pod.name))
    unseen = len(set(busy) - {pod.name for pod in pods})
    free = next((number for number, pod in enumerate(pods) if pod.name in busy), len(pods))
    if free < len(pods) and len({pod.group for pod in pods}) > 1:
        # During a rollout Kubernetes chooses for itself how to spread the victims over old and new pods.
        free = 0
    replicas = min(current, max(wanted, len(pods) - free + unseen))
    going = pods[: max(0, len(pods) - replicas)] if replicas < current else []
    staying = pods[len(going) :]
    return ScaleIn(
        replicas,
        Marks(
            # One that goes by its rank now may be ready in a moment, and then goes by its mark.
            mark=tuple(pod.name for pod in going if staying and not pod.is_marked),
            unmark=tuple(pod.name for pod in staying if pod.is_marked),
        ),
        kept=replicas - wanted,
    )


def stale_marks(replicas: int, pods: Collection[Candidate]) -> Marks:
    """Return the marks to remove once there are ``replicas`` pods: those of marked pods that stayed."""
    marked = tuple(pod.name for pod in pods if pod.is_marked)
    return Marks(unmark=marked) if len(pods) <= replicas else NO_MARKS


def with_busy_kept(decision: Decision, scale_in: ScaleIn, again: Due) -> Decision:
    """Return the decision as far as it can be carried out without ending a pod that runs a task."""
    if not scale_in.kept:
        return decision
    more = f"{scale_in.kept} more {'pods' if scale_in.kept > 1 else 'pod'}"
    they = "they run tasks" if scale_in.kept > 1 else "it runs a task"
    why = f"{decision.replicas} wanted; {more} kept because {they}"
    return _held(decision, scale_in.replicas, Reason.BUSY_PODS_KEPT, why, again)


def held_up(decision: Decision, replicas: int, why: str, again: Due) -> Decision:
    """Return the decision if it is not known which pods may be removed: ``replicas`` stay."""
    why = f"{decision.replicas} wanted; {replicas} kept because {why}"
    return _held(decision, replicas, Reason.HELD, why, again)


def _held(decision: Decision, replicas: int, reason: Reason, why: str, again: Due) -> Decision:
    due = min(again, decision.due) if decision.due else again
    return replace(decision, replicas=replicas, reason=reason, why=why, due=due, is_held=True)
