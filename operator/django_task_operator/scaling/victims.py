"""Decides which pods go when there are to be fewer, so that a pod that runs a task is none of them.

Kubernetes chooses the victims, in an order of its own: pods without a node, pending ones, ones that are
not ready, and then those of the lowest deletion cost
(https://kubernetes.io/docs/concepts/workloads/controllers/replicaset/#scaling-down-a-replicaset). Only
the cost is ours. So pods go as far as that order, with the idle ones marked, meets a busy one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

# Below whatever a user may have given pods, and not the very lowest, which a user might.
VICTIM_COST = -(2**31) + 47


@dataclass(frozen=True, slots=True)
class Candidate:
    """A pod that counts as a replica: neither ended nor about to be.

    Args:
        name: the pod's name.
        group: of pods that a rollout replaces together: their ReplicaSet.
        rank: when it goes, as Kubernetes sees it without the cost: lower goes first.
        cost: its deletion cost.
    """

    name: str
    group: str
    rank: int
    cost: int = 0

    @property
    def is_marked(self) -> bool:
        """Whether it was chosen to go."""
        return self.cost == VICTIM_COST


@dataclass(frozen=True, slots=True)
class ScaleIn:
    """How far to go down now.

    Args:
        replicas: to write now.
        mark: pods that are to get ``VICTIM_COST`` first; none where all go.
        unmark: pods that have it and are to stay.
        kept: how many more pods stay than are wanted.
    """

    replicas: int
    mark: tuple[str, ...] = ()
    unmark: tuple[str, ...] = ()
    kept: int = 0


def plan(wanted: int, current: int, pods: Iterable[Candidate], busy: Collection[str]) -> ScaleIn:
    """Plan the way down from ``current`` to ``wanted`` replicas.

    Args:
        wanted: fewer than ``current``.
        current: the replicas that the Deployment is asked for.
        pods: its pods.
        busy: the names of pods that run a task. One that is not among ``pods`` is thought to be there,
            and to go last.
    """
    pods = sorted(pods, key=lambda pod: (pod.rank, pod.name in busy, not pod.is_marked, pod.name))
    unseen = len(set(busy) - {pod.name for pod in pods})
    free = next((number for number, pod in enumerate(pods) if pod.name in busy), len(pods))
    if free < len(pods) and len({pod.group for pod in pods}) > 1:
        # In the middle of a rollout Kubernetes spreads the victims over old and new pods as it likes.
        free = 0
    replicas = min(current, max(wanted, len(pods) - free + unseen))
    going = pods[: max(0, len(pods) - replicas)] if replicas < current else []
    staying = pods[len(going) :]
    return ScaleIn(
        replicas,
        # Whoever goes by its rank now may be ready in a moment, and then goes by its mark.
        mark=tuple(pod.name for pod in going if staying and not pod.is_marked),
        unmark=tuple(pod.name for pod in staying if pod.is_marked),
        kept=replicas - wanted,
    )
