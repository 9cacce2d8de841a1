"""Makes sure that no pod that runs a task is removed, whoever decided that there should be fewer pods."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from kubernetes.aio.client.exceptions import ApiException

from django_task_operator import scaling
from django_task_operator.cluster.api_errors import API_ERRORS, describe, has_status, says_no
from django_task_operator.due import Due
from django_task_operator.keepers.evidence import is_own, own_replica_sets, pod_of
from django_task_operator.observed.pods import DELETION_COST
from django_task_operator.tasktable import DatabaseError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from django_task_operator.observed.objects import Deployment
    from django_task_operator.observed.pods import Pod
    from django_task_operator.spec import Key
    from django_task_operator.tasktable import Listing, Subscription
    from django_task_operator.world import World

# While pods are kept that are not wanted, the scale-in is retried at this interval even if no change is
# reported.
AGAIN_SECONDS = 2.0
# A pod may start a task while the marks are set, and then another one is chosen: at most this often.
MOST_MARKINGS = 3
# The pause after a slow listing, as a multiple of the time that it took.
REST_PER_WORK = 4
# After the API server has refused a mark: turns come with every change of the tasks.
REFUSED_REST_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Marking:
    """How often marks were set within a turn, and why the last ones could not be set, if so."""

    times: int = 0
    refused: str | None = None


NOT_YET = Marking()


class _Unknown(Exception):
    """No pod can be chosen now; the message says why."""


@dataclass(frozen=True, slots=True)
class _Busy:
    """The pods that run a task; ``why_guessed`` says why the set is a guess, if so: pods that may run one."""

    pods: frozenset[str]
    why_guessed: str | None = None


class VictimKeeper:
    """Chooses and marks the pods of one worker that are to be removed."""

    def __init__(self, world: World, key: Key, uid: str) -> None:
        """Manage the pods of the DjangoTaskWorker with that key and uid."""
        self._world = world
        self._key = key
        self._uid = uid
        self._rest_until = float("-inf")
        self._why_rest = ""

    async def choose(
        self,
        decision: scaling.Decision,
        deployment: Deployment | None,
        subscription: Subscription | None,
        marking: Marking,
    ) -> tuple[scaling.Decision, scaling.Marks]:
        """Return how far a decision may be carried out now, and which pods to mark first.

        A scale-in removes idle pods only. ``marking`` describes the marks that were set for the previous
        decision in the same turn. This lists the RUNNING rows, and changes nothing.
        """
        # A Deployment without an owner is about to be taken over, with pods that may be running tasks.
        if deployment is None or deployment.controller_uid not in {self._uid, None}:
            return decision, scaling.NO_MARKS
        if decision.replicas >= deployment.wanted_replicas:
            # A superfluous mark does no harm, and a later turn removes it.
            return decision, self._stale_marks(deployment) if not marking.times else scaling.NO_MARKS
        current = deployment.wanted_replicas
        try:
            busy = await self._busy(deployment, subscription, marking)
            candidates = self._candidates(deployment)
        except _Unknown as unknown:
            return scaling.held_up(decision, current, str(unknown), self._again()), scaling.NO_MARKS
        scale_in = scaling.choose_victims(decision.replicas, current, candidates, busy.pods)
        marks = scale_in.marks if scale_in.replicas < current else scaling.NO_MARKS
        if busy.why_guessed and scale_in.kept:
            return scaling.held_up(decision, scale_in.replicas, busy.why_guessed, self._again()), marks
        return scaling.with_busy_kept(decision, scale_in, self._again()), marks

    async def mark(self, marks: scaling.Marks, before: Marking) -> Marking:
        """Set and remove marks. Returns when the API server has stored them, or has refused one."""
        pods = self._pods()
        costs = {
            **dict.fromkeys(marks.mark, str(scaling.VICTIM_COST)),
            **dict.fromkeys(marks.unmark),
        }
        try:
            await asyncio.gather(
                *(self._annotate(pods[name], cost) for name, cost in costs.items() if name in pods)
            )
        except API_ERRORS as error:
            refused = describe(error)
            if says_no(error):
                self._rest(REFUSED_REST_SECONDS, _not_marked(refused))
            return Marking(before.times + 1, refused=refused)
        return Marking(before.times + 1)

    async def _busy(
        self, deployment: Deployment, subscription: Subscription | None, marking: Marking
    ) -> _Busy:
        if not self._world.caches.pods.is_current(self._key.namespace):
            raise _Unknown("the pods are not known with certainty")
        if marking.refused:
            raise _Unknown(_not_marked(marking.refused))
        if marking.times == MOST_MARKINGS:
            raise _Unknown("idle pods keep starting tasks")
        if subscription is None:
            return self._started("it is not known which pods run tasks")
        now = self._world.clock()
        if now < self._rest_until and not marking.times:
            raise _Unknown(self._why_rest)
        try:
            listing = await subscription.running(fresh=True)
        except DatabaseError as error:
            return self._started(f"it cannot be determined which pods run tasks. {error.message}")
        if listing.slow:
            self._rest(REST_PER_WORK * listing.seconds, "the running tasks were listed only a moment ago")
        if not listing.complete:
            raise _Unknown("too many tasks are running to tell which pods run them")
        own = own_replica_sets(self._world.caches.replica_sets.of(self._key), deployment.uid, self._uid)
        return _Busy(busy_pods(listing, self._pods(), own))

    def _rest(self, seconds: float, why: str) -> None:
        self._rest_until, self._why_rest = self._world.clock() + seconds, why

    def _started(self, why: str) -> _Busy:
        """Guess if rows cannot be listed: pods with a running container may run a task, others do not."""
        started = (pod.name for pod in self._pods().values() if pod.is_replica and pod.running_since)
        return _Busy(frozenset(started), why)

    def _pods(self) -> dict[str, Pod]:
        return {pod.name: pod for pod in self._world.caches.pods.of(self._key)}

    def _candidates(self, deployment: Deployment) -> list[scaling.Candidate]:
        """Return the Deployment's replicas."""
        replica_sets = {
            each.name: each.controller_uid for each in self._world.caches.replica_sets.of(self._key)
        }
        there = [pod for pod in self._pods().values() if pod.is_replica and pod.replica_set]
        if any(pod.replica_set not in replica_sets for pod in there):
            # The pod has been reported, but its ReplicaSet has not.
            raise _Unknown("the pods are not known with certainty")
        return [
            scaling.Candidate(pod.name, pod.replica_set, pod.rank, pod.cost)
            for pod in there
            if replica_sets[pod.replica_set] == deployment.uid
        ]

    def _stale_marks(self, deployment: Deployment) -> scaling.Marks:
        if not self._world.caches.pods.is_current(self._key.namespace):
            return scaling.NO_MARKS
        try:
            candidates = self._candidates(deployment)
        except _Unknown:
            return scaling.NO_MARKS
        return scaling.stale_marks(deployment.wanted_replicas, candidates)

    async def _annotate(self, pod: Pod, cost: str | None) -> None:
        try:
            answer = await self._world.kube.annotate_pod(
                self._key.namespace, pod.name, pod.uid, {DELETION_COST: cost}
            )
        except ApiException as refused:
            # Already gone.
            if not has_status(refused, HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT):
                raise
        else:
            self._world.caches.pods.put(answer)

    def _again(self) -> Due:
        rest = self._rest_until - self._world.clock()
        return Due(max(AGAIN_SECONDS, rest), "pods that were kept may be idle")


def _not_marked(why: str) -> str:
    return f"pods cannot be marked for removal: {why}"


def busy_pods(listing: Listing, pods: Mapping[str, Pod], replica_sets: Collection[str]) -> frozenset[str]:
    """Return the names of the worker's pods that run a task, known or not, except those being deleted.

    A pod being deleted has its grace period, and is no longer a replica.
    """
    rows = {pod_of(row.worker_id) for row in listing.rows}
    leaving = {pod.name for pod in pods.values() if not pod.is_replica}
    return frozenset({name for name in rows if name in pods or is_own(name, replica_sets)} - leaving)
