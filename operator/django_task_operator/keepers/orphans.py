"""Finds rows that stay RUNNING although the pod that ran them is gone, proves it, and settles them once."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from django_task_operator import telemetry
from django_task_operator.cluster.api_errors import API_ERRORS, describe
from django_task_operator.contract import EventReason
from django_task_operator.due import Due
from django_task_operator.harmless import harmless_name, harmless_names
from django_task_operator.keepers.evidence import Fate, own_replica_sets, traces
from django_task_operator.keepers.excuses import excused
from django_task_operator.observed.pods import Pod
from django_task_operator.resources.labels import MANAGED_SELECTOR
from django_task_operator.spec import OrphanPolicy
from django_task_operator.tasktable import DatabaseError, Failed, PermissionDenied, Requeued
from django_task_operator.turn import Event

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from django_task_operator.keepers.evidence import Trace
    from django_task_operator.observed.objects import Deployment
    from django_task_operator.spec import Orphans, Worker
    from django_task_operator.tasktable import Listing, Settlement, Subscription
    from django_task_operator.world import World

log = logging.getLogger(__name__)

# How often the rows of running tasks are listed even if no pod has changed.
LISTING_SECONDS = 10.0
# After a slow listing they are made rarely, with a pause after each.
SLOW_LISTING_SECONDS = 60.0
REST_PER_WORK = 10
# The minimum time between two listings, whatever happens to pods.
LISTING_PAUSE_SECONDS = 0.5
# After a listing that failed.
RETRY_SECONDS = 5.0
# The database user may be granted a missing permission later.
DENIED_SECONDS = 60.0
# How many rows are settled in a turn, so that a thousand do not delay the scaling.
MOST_AT_ONCE = 200
LEFT_OVER_SECONDS = 2.0
# How many get an event of their own.
MOST_EVENTS = 3

# What the worker's supervisor stores if a process dies while it runs a task; every image can import it.
EXCEPTION = "builtins.ChildProcessError"

NEXT_LISTING = "rows are listed to find orphans"

DENIED = (
    "{number} of the RUNNING tasks ran on pods that are gone, and the URL's user may not update their rows. "
    "Grant it UPDATE on django_tasks_database_dbtaskresult, or set spec.orphans.policy to Ignore."
)

# A row, and which claim of it: the same row may be claimed again.
type _Claim = tuple[object, datetime | None]


@dataclass(frozen=True, slots=True)
class Findings:
    """What is known about a worker's rows.

    Args:
        orphaned: how many rows no process runs any more and are not settled; None if that is not known.
        stuck: how many rows have been RUNNING for too long on a live pod; None if that is not known.
        due: when the rows are listed next; None if only a change makes that necessary.
        events: events to post.
    """

    orphaned: int | None = None
    stuck: int | None = None
    due: Due | None = None
    events: tuple[Event, ...] = ()


class OrphanKeeper:
    """Settles the rows of one worker's pods that no process runs any more."""

    def __init__(self, world: World, uid: str) -> None:
        """Manage the rows of the DjangoTaskWorker with that uid."""
        self._world = world
        self._uid = uid
        # Since when each claim is known to be orphaned, by our own clock: a restart starts over.
        self._since: dict[_Claim, float] = {}
        self._ignored: set[_Claim] = set()
        self._working: frozenset[tuple[str, datetime]] = frozenset()
        # Pods that are gone, or whose container ended, since the last listing, and when that was reported.
        self._went: dict[str, float] = {}
        self._found = Findings()
        self._next_listing = float("-inf")
        self._has_listed = False
        self._rest_until = float("-inf")
        self._denied_until = float("-inf")

    async def settle(
        self,
        worker: Worker,
        deployment: Deployment | None,
        subscription: Subscription | None,
        running: int | None,
    ) -> Findings:
        """List the rows if that is due, and settle those whose grace period is over.

        ``running`` is how many rows the last sample counted; None if that is not known.
        """
        self._notice_pods(worker)
        if (
            subscription is None
            or running is None
            or deployment is None
            or not self._sees(worker, deployment)
        ):
            # If something is unknown, no row counts as orphaned.
            return replace(self._found, due=None, events=())
        must_list = bool(self._went) or not self._has_listed
        if not (must_list or running or self._since):
            self._found = Findings(0, 0)
            return self._found
        now = self._world.clock()
        due = max(self._rest_until, now if must_list else self._next_listing)
        if due > now:
            return replace(self._found, due=Due(due - now, NEXT_LISTING), events=())
        try:
            self._found = await self._list_and_settle(worker, deployment, subscription)
        except DatabaseError as error:
            log.info("rows not seen", extra={"worker": str(worker.key), "reason": error.reason})
        except API_ERRORS as error:
            log.info("pods not seen", extra={"worker": str(worker.key), "error": describe(error)})
        else:
            return self._found
        self._rest_until = now + RETRY_SECONDS
        return replace(self._found, due=Due(RETRY_SECONDS, "the rows could not be listed"), events=())

    def _notice_pods(self, worker: Worker) -> None:
        working = frozenset(
            (pod.name, pod.running_since)
            for pod in self._world.caches.pods.of(worker.key)
            if pod.running_since and not pod.has_ended
        )
        now = self._world.clock()
        self._went |= {pod: now for pod, _ in self._working - working}
        self._working = working

    def _sees(self, worker: Worker, deployment: Deployment) -> bool:
        pods = self._world.caches.pods
        return deployment.belongs_to(self._uid) and pods.is_current(worker.key.namespace)

    async def _list_and_settle(
        self, worker: Worker, deployment: Deployment, subscription: Subscription
    ) -> Findings:
        policy, stuck_after = worker.spec.orphans, worker.spec.stuck_after_seconds
        # The listing must include tasks that a pod started in its last moment.
        listing = await subscription.running(fresh=bool(self._went))
        own = own_replica_sets(self._world.caches.replica_sets.of(worker.key), deployment.uid, self._uid)
        pods = {pod.name: pod for pod in self._world.caches.pods.of(worker.key)}
        found = traces(listing.rows, pods, own)
        now = self._world.clock()
        dead = {_claim(trace): trace for trace in found if trace.fate is not Fate.ALIVE}
        self._since = {
            claim: self._since.get(claim, self._went.get(trace.pod, now)) for claim, trace in dead.items()
        }
        self._went.clear()
        self._has_listed = True
        self._ignored &= dead.keys()
        ripe = {claim for claim, since in self._since.items() if now - since >= policy.grace_seconds}
        orphans = await self._proven(worker, listing, own, ripe) if ripe else []
        events = tuple(await self._deal_with(worker, orphans, subscription)) if orphans else ()
        self._plan_next(policy, listing, now)
        ages = [
            (listing.at - trace.row.since).total_seconds()
            for trace in found
            if trace.fate is Fate.ALIVE and trace.row.since
        ]
        return Findings(
            orphaned=sum(_claim(trace) in self._since for trace in orphans),
            stuck=sum(age >= stuck_after for age in ages) if stuck_after else 0,
            due=Due(max(self._next_listing, self._rest_until) - now, NEXT_LISTING) if found else None,
            events=events,
        )

    def _plan_next(self, policy: Orphans, listing: Listing, now: float) -> None:
        self._rest_until = now + (REST_PER_WORK * listing.seconds if listing.slow else LISTING_PAUSE_SECONDS)
        dues = [now + (SLOW_LISTING_SECONDS if listing.slow else LISTING_SECONDS)]
        for since in self._since.values():
            ripe_at = since + policy.grace_seconds
            if ripe_at > now:
                dues.append(ripe_at)
            elif policy.policy is not OrphanPolicy.IGNORE:
                # Left over: too many for one turn, or impossible to settle now.
                dues.append(max(now + LEFT_OVER_SECONDS, self._denied_until))
        self._next_listing = min(dues)

    async def _proven(
        self, worker: Worker, listing: Listing, own: frozenset[str], ripe: set[_Claim]
    ) -> list[Trace]:
        """Return the traces whose process is gone according to the API server, not only to the watches.

        The rows were listed before, so a pod that does not exist now will not appear again with one of them.
        """
        if ripe == self._ignored and worker.spec.orphans.policy is OrphanPolicy.IGNORE:
            pods = {pod.name: pod for pod in self._world.caches.pods.of(worker.key)}
        else:
            selector = f"{MANAGED_SELECTOR}={worker.key.name}"
            manifests = await self._world.kube.list_pods(worker.key.namespace, selector)
            pods = {pod.name: pod for pod in map(Pod.of, manifests)}
        judged = traces(listing.rows, pods, own)
        dead = [trace for trace in judged if trace.fate is not Fate.ALIVE and _claim(trace) in ripe]
        departed = {
            trace.pod: pod
            for trace in dead
            if trace.fate is Fate.GONE and (pod := self._world.caches.pods.departed(worker.key, trace.pod))
        }
        return excused(dead, pods | departed)

    async def _deal_with(
        self, worker: Worker, orphans: list[Trace], subscription: Subscription
    ) -> list[Event]:
        """Handle proven orphans according to the policy; those that are settled are no longer suspects."""
        counter = telemetry.ORPHANS
        key, policy = worker.key, worker.spec.orphans
        if policy.policy is OrphanPolicy.IGNORE:
            new = [trace for trace in orphans if _claim(trace) not in self._ignored]
            self._ignored |= {_claim(trace) for trace in new}
            counter.labels(key.namespace, key.name, "Ignored").inc(len(new))
            return []
        if self._world.clock() < self._denied_until or self._world.permit.seconds() <= 0:
            # Another operator may be the leader by now: then rows must not be written, just like objects.
            return []
        settled: list[tuple[Trace, Settlement]] = []
        events: list[Event] = []
        try:
            for trace in orphans[:MOST_AT_ONCE]:
                settlement = settlement_of(trace, policy)
                if await subscription.settle(trace.row, settlement):
                    settled.append((trace, settlement))
                del self._since[_claim(trace)]
        except PermissionDenied:
            self._denied_until = self._world.clock() + DENIED_SECONDS
            events.append(
                Event("Warning", EventReason.ORPHANS_NOT_SETTLED, DENIED.format(number=len(orphans)))
            )
        except DatabaseError as error:
            log.info("orphans not settled", extra={"worker": str(key), "reason": error.reason})
        for outcome, number in Counter(type(settlement).__name__ for _, settlement in settled).items():
            counter.labels(key.namespace, key.name, outcome).inc(number)
        return [*events, *told(settled)]


def settlement_of(trace: Trace, policy: Orphans) -> Settlement:
    """Return how a proven orphan is settled, with the message of its task's error."""
    requeues = trace.row.attempts - 1
    if policy.policy is OrphanPolicy.REQUEUE and (trace.excuse or requeues < policy.max_requeues):
        return Requeued(counted=not trace.excuse)
    words = f"The pod {trace.pod} that ran this task {trace.fate}, and the task had not finished."
    if policy.policy is OrphanPolicy.REQUEUE:
        words += (
            f" It was started {trace.row.attempts} times, and is not started again: "
            f"spec.orphans.maxRequeues is {policy.max_requeues}."
        )
    return Failed(EXCEPTION, f"{EXCEPTION.rpartition('.')[2]}: {words}\n")


def _claim(trace: Trace) -> _Claim:
    return trace.row.key, trace.row.since


def _counted(settlement: Settlement) -> bool | None:
    return settlement.counted if isinstance(settlement, Requeued) else None


def told(settled: list[tuple[Trace, Settlement]]) -> Iterator[Event]:
    """Return events for settled rows: one for each of the first ones, and one for the rest."""
    for counted, kind, reason, became in (
        (None, "Warning", EventReason.TASK_FAILED, "FAILED"),
        (True, "Normal", EventReason.TASK_REQUEUED, "READY again"),
        (False, "Normal", EventReason.TASK_REQUEUED, "READY again"),
    ):
        these = [trace for trace, settlement in settled if _counted(settlement) is counted]
        for trace in these[:MOST_EVENTS]:
            note = (
                f"{harmless_name(trace.row.task_path)} ({trace.row.id}) is {became}: "
                f"the pod {trace.pod} that ran it {trace.fate}."
            )
            if counted is False:
                note += f" This attempt does not count, because {trace.excuse}."
            yield Event(kind, reason, note)  # type: ignore[arg-type]  # of a Literal in a tuple
        if more := these[MOST_EVENTS:]:
            paths = harmless_names(sorted({trace.row.task_path for trace in more}))
            note = f"{len(more)} more tasks are {became} because their pods are gone: {paths}"
            if counted is False:
                causes = "; ".join(sorted({trace.excuse for trace in more}))
                note += f". These attempts do not count, because {causes}."
            yield Event(kind, reason, note)  # type: ignore[arg-type]
