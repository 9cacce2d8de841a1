"""Takes replicas away so that no pod that runs a task goes, whoever decided that there be fewer."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from kubernetes.aio.client.exceptions import ApiException

from django_task_operator import scaling
from django_task_operator.cluster.kube import API_ERRORS, CONFLICT, NOT_FOUND, describe
from django_task_operator.keepers.evidence import is_own, own_replica_sets, pod_of
from django_task_operator.observed.pods import DELETION_COST
from django_task_operator.tasktable import DatabaseError

if TYPE_CHECKING:
    from django_task_operator.observed.objects import Deployment
    from django_task_operator.observed.pods import Pod
    from django_task_operator.spec import Key
    from django_task_operator.tasktable import Subscription
    from django_task_operator.world import World

log = logging.getLogger(__name__)

# While busy pods are kept, this is how soon it is tried again even if nothing is told to have changed.
AGAIN_SECONDS = 2.0
# A pod may begin a task while the marks are set, and then another is chosen: so often, and then later.
PLANS = 3
# After a listing that took long, where the table has no index.
SLOW_SECONDS = 0.1
REST_PER_WORK = 4


class ScaleIn:
    """Chooses the pods of one worker that go."""

    def __init__(self, world: World, key: Key, uid: str) -> None:
        """Work for the DjangoTaskWorker with that key and uid."""
        self._world = world
        self._key = key
        self._uid = uid
        self._rest_until = float("-inf")

    async def spare_busy_pods(
        self,
        decision: scaling.Decision,
        deployment: Deployment | None,
        subscription: Subscription | None,
    ) -> scaling.Decision:
        """What to write of a decision now: a scale-in goes only as far as there are idle pods.

        These are marked as the first to go when this returns.
        """
        # One without a controller is about to be taken over, with pods that may be at work.
        if deployment is None or deployment.controller_uid not in {self._uid, None}:
            return decision
        if decision.replicas >= deployment.wanted_replicas:
            await self._tidy(deployment)
            return decision
        if not self._world.pods.is_current:
            return self._held(decision, deployment, "the pods are not known for sure")
        try:
            return await self._go_down(decision, deployment, subscription)
        except API_ERRORS as error:
            why = f"pods cannot be marked as the ones to go: {describe(error)}"
            return self._held(decision, deployment, why)

    async def _go_down(
        self, decision: scaling.Decision, deployment: Deployment, subscription: Subscription | None
    ) -> scaling.Decision:
        if subscription is None:
            return await self._spare_started(decision, deployment, "it is not known which pods run tasks")
        if self._world.clock() < self._rest_until:
            return self._held(decision, deployment, "the running tasks were listed a moment ago")
        try:
            return await self._spare(decision, deployment, subscription)
        except DatabaseError as error:
            why = f"it cannot be seen which pods run tasks. {error.message}"
            return await self._spare_started(decision, deployment, why)

    async def _spare_started(
        self, decision: scaling.Decision, deployment: Deployment, why: str
    ) -> scaling.Decision:
        """Where rows cannot be listed: a pod whose container runs may run a task, and no other does."""
        pods = self._pods()
        candidates = self._candidates(pods, deployment)
        if candidates is None:
            return self._held(decision, deployment, "the pods are not known for sure")
        started = {pod.name for pod in pods.values() if pod.is_replica and pod.running_since}
        plan = scaling.plan(decision.replicas, deployment.wanted_replicas, candidates, started)
        await self._mark(pods, plan.mark, plan.unmark)
        return self._held(decision, deployment, why, at=plan.replicas) if plan.kept else decision

    async def _spare(
        self, decision: scaling.Decision, deployment: Deployment, subscription: Subscription
    ) -> scaling.Decision:
        wanted, current = decision.replicas, deployment.wanted_replicas
        for _ in range(PLANS):
            listing = await subscription.running(fresh=True)
            if listing.seconds > SLOW_SECONDS:
                self._rest_until = self._world.clock() + REST_PER_WORK * listing.seconds
            if not listing.complete:
                return self._held(decision, deployment, "too many tasks run to see which pods do")
            pods, replica_sets = self._pods(), self._world.replica_sets.of(self._key)
            candidates = self._candidates(pods, deployment)
            if candidates is None:
                return self._held(decision, deployment, "the pods are not known for sure")
            own = own_replica_sets(replica_sets, deployment.uid, self._uid)
            rows = {pod_of(row.worker_id) for row in listing.rows}
            # A pod that is about to go has its grace period and is no replica any more.
            leaving = {pod.name for pod in pods.values() if not pod.is_replica}
            busy = {name for name in rows if name in pods or is_own(name, own)} - leaving
            plan = scaling.plan(wanted, current, candidates, busy)
            if not (plan.mark or plan.unmark) or plan.replicas == current:
                return self._kept(decision, plan)
            # Seen by the controller before the replicas are (kubernetes#126138).
            await self._mark(pods, plan.mark, plan.unmark)
        return self._held(decision, deployment, "the idle pods keep beginning tasks")

    def _pods(self) -> dict[str, Pod]:
        return {pod.name: pod for pod in self._world.pods.of(self._key)}

    def _candidates(self, pods: dict[str, Pod], deployment: Deployment) -> list[scaling.Candidate] | None:
        """The Deployment's replicas; None while a pod is known and its ReplicaSet is not yet."""
        replica_sets = {each.name: each.controller_uid for each in self._world.replica_sets.of(self._key)}
        there = [pod for pod in pods.values() if pod.is_replica and pod.replica_set]
        if any(pod.replica_set not in replica_sets for pod in there):
            return None
        return [
            scaling.Candidate(pod.name, pod.replica_set, pod.rank, pod.cost)
            for pod in there
            if replica_sets[pod.replica_set] == deployment.uid
        ]

    async def _tidy(self, deployment: Deployment) -> None:
        """Take the marks off pods that stayed: they are no worse than others any more."""
        pods = self._pods()
        candidates = self._candidates(pods, deployment) or []
        marked = tuple(pod.name for pod in candidates if pod.is_marked)
        if marked and self._world.pods.is_current and len(candidates) <= deployment.wanted_replicas:
            # A mark too many does no harm that a later turn could not mend.
            with suppress(*API_ERRORS):
                await self._mark(pods, (), marked)

    async def _mark(self, pods: dict[str, Pod], mark: tuple[str, ...], unmark: tuple[str, ...]) -> None:
        costs = {**dict.fromkeys(mark, str(scaling.VICTIM_COST)), **dict.fromkeys(unmark)}
        await asyncio.gather(*(self._annotate(pods[name], cost) for name, cost in costs.items()))

    async def _annotate(self, pod: Pod, cost: str | None) -> None:
        try:
            answer = await self._world.kube.annotate_pod(
                self._key.namespace, pod.name, pod.uid, {DELETION_COST: cost}
            )
        except ApiException as refused:
            # Gone already.
            if refused.status not in {NOT_FOUND, CONFLICT}:
                raise
        else:
            self._world.pods.put(answer)

    def _kept(self, decision: scaling.Decision, plan: scaling.ScaleIn) -> scaling.Decision:
        if not plan.kept:
            return decision
        more = f"{plan.kept} more {'pods' if plan.kept > 1 else 'pod'}"
        they = "they run tasks" if plan.kept > 1 else "it runs a task"
        return self._instead(
            decision,
            plan.replicas,
            scaling.Reason.BUSY_PODS_KEPT,
            f"{decision.replicas} wanted; {more} kept because {they}",
        )

    def _held(
        self, decision: scaling.Decision, deployment: Deployment, why: str, *, at: int | None = None
    ) -> scaling.Decision:
        kept = deployment.wanted_replicas if at is None else at
        message = f"{decision.replicas} wanted; {kept} kept because {why}"
        return self._instead(decision, kept, scaling.Reason.HELD, message)

    def _instead(
        self, decision: scaling.Decision, replicas: int, reason: scaling.Reason, message: str
    ) -> scaling.Decision:
        again = max(AGAIN_SECONDS, self._rest_until - self._world.clock())
        wake_after = min(again, decision.wake_after) if decision.wake_after is not None else again
        return replace(decision, replicas=replicas, reason=reason, message=message, wake_after=wake_after)
