"""Which of several operators is the leader: the one that holds a Lease.

A leader's right to write ends ``RENEW_SECONDS`` after the beginning of its last successful renewal, by its
own clock. No other operator takes the Lease within ``LEASE_SECONDS`` after having seen it renewed, by its
own clock. That is always later, whatever the two clocks show, because a renewal is seen after it began. The
speeds of the clocks must not differ by more than a quarter.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING

from kubernetes.aio.client.exceptions import ApiException

from django_task_operator.cluster.api_errors import API_ERRORS, describe, has_status
from django_task_operator.spec import GROUP, Key
from django_task_operator.telemetry import LEADER

if TYPE_CHECKING:
    from collections.abc import Callable

    from django_task_operator.cluster.kube import Kube
    from django_task_operator.spec import Manifest

log = logging.getLogger(__name__)

LEASE_SECONDS = 5.0
RENEW_SECONDS = 3.0
RETRY_SECONDS = 1.0
# How often a standby reads the Lease: it notices a renewal or a release at most this much later.
LOOK_SECONDS = 0.5
# The timeout of a request: there must be time for a second one before the right to write ends.
REQUEST_SECONDS = 1.0
# How long the release of the Lease waits for a write in progress on an orderly stop.
LAST_WRITE_SECONDS = 1.0

# On the leader's pod, with the Lease's name as its value: the Services select it.
LEADER_LABEL = f"{GROUP}/leader"


@dataclass(frozen=True, slots=True)
class Sighting:
    """A Lease's content, and since when it has been seen unchanged, by the observer's clock.

    ``seconds`` is how long after that time its holder may still be active.
    """

    holder: str
    version: str
    seconds: float
    since: float


def sight(lease: Manifest | None, before: Sighting | None, now: float) -> Sighting:
    """Return the sighting of a Lease's current content."""
    if lease is None:
        # Deleting a Lease does not stop its holder.
        seen = replace(before, version="", since=now) if before else Sighting("", "", LEASE_SECONDS, now)
    else:
        spec = lease.get("spec", {})
        # Another release of the operator may hold it for longer than this one would.
        seconds = max(LEASE_SECONDS, spec.get("leaseDurationSeconds", 0))
        seen = Sighting(spec.get("holderIdentity") or "", lease["metadata"]["resourceVersion"], seconds, now)
    return before if before and before.version == seen.version else seen


def may_take(seen: Sighting, me: str, now: float) -> bool:
    """Return whether no other operator can be active any more.

    A holder with this pod's name is this container before its restart: pod names are not reused, and a
    container starts only when the previous one is dead.
    """
    return seen.holder in {"", me} or now - seen.since >= seen.seconds


def look_again_in(seen: Sighting, now: float) -> float:
    """Return for how many seconds a standby need not read the Lease."""
    return min(LOOK_SECONDS, max(0.0, seen.since + seen.seconds - now))


def permit(renewed_at: float, now: float) -> float:
    """Return for how many seconds a write that begins now may take effect; 0 if it must not begin."""
    if now - renewed_at >= RENEW_SECONDS:
        return 0.0
    return renewed_at + LEASE_SECONDS - now


def held(lease: Manifest | None, key: Key, me: str, now: datetime) -> Manifest:
    """Build the Lease as its holder writes it; the times in it are for people."""
    spec = lease.get("spec", {}) if lease else {}
    stamp = now.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    if spec.get("holderIdentity") != me:
        transitions = spec.get("leaseTransitions", 0) + 1 if lease else 0
        spec = {**spec, "holderIdentity": me, "acquireTime": stamp, "leaseTransitions": transitions}
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": lease["metadata"] if lease else {"name": key.name, "namespace": key.namespace},
        "spec": {**spec, "leaseDurationSeconds": int(LEASE_SECONDS), "renewTime": stamp},
    }


def released(lease: Manifest) -> Manifest:
    """Build the Lease that any operator may take."""
    return {**lease, "spec": {**lease["spec"], "holderIdentity": ""}}


def clock() -> float:
    """Return monotonic seconds, which also count while the machine is suspended."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class LeasePermit:
    """The right to write that comes from a Lease: an ``Elector`` grants it, and writers check it."""

    def __init__(self, clock: Callable[[], float] = clock) -> None:
        """Permit nothing before the first ``grant``; ``clock`` returns monotonic seconds."""
        self.clock = clock
        self.renewed_at = float("-inf")
        self._granted = False

    def grant(self, renewed_at: float) -> None:
        """Permit writes because of a renewal that began at that time."""
        self.renewed_at, self._granted = renewed_at, True

    def withdraw(self) -> None:
        """Permit no more writes."""
        self._granted = False

    def seconds(self) -> float:
        """For how many seconds a write that begins now may take effect; at 0 it must not begin."""
        return permit(self.renewed_at, self.clock()) if self._granted else 0.0


class Elector:
    """Takes part in the election, and grants a permit to write while it is the leader."""

    def __init__(self, kube: Kube, lease: Key, me: str, permit: LeasePermit) -> None:
        """``me`` is the name of this pod, which is in the namespace of the Lease."""
        self._kube = kube
        self._key = lease
        self._me = me
        self._permit = permit
        self._clock = permit.clock
        self._lease: Manifest | None = None
        self._trouble = ""
        self.leading = asyncio.Event()
        self.standing_by = asyncio.Event()

    async def run(self) -> None:
        """Stand by, lead, and return when that is over: the process must then exit, and may be restarted."""
        await self._unlabel()
        await self._campaign()
        LEADER.set(1)
        labelling = asyncio.create_task(self._label())
        try:
            why = await self._keep()
        finally:
            labelling.cancel()
        # First of all: no request in flight may arrive after another leader has started.
        self._step_down()
        await self._kube.cut()
        log.error("stepped down", extra={"lease": str(self._key), "reason": why})

    async def resign(self) -> None:
        """Let another operator lead immediately; to be called after ``run`` was cancelled."""
        valid = self._permit.seconds() > 0
        self._step_down()
        if not valid:
            return
        if not await self._kube.written(LAST_WRITE_SECONDS):
            log.warning("not released", extra={"lease": str(self._key), "error": "a write is in progress"})
            return
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                given = await self._write(lambda lease: released(self._mine(lease)))
        except API_ERRORS as error:
            log.warning("not released", extra={"lease": str(self._key), "error": describe(error)})
        else:
            log.info("released" if given else "not held", extra={"lease": str(self._key)})

    def _step_down(self) -> None:
        self._permit.withdraw()
        self.leading.clear()
        LEADER.set(0)

    async def _campaign(self) -> None:
        seen: Sighting | None = None
        while True:
            wait = LOOK_SECONDS
            try:
                async with asyncio.timeout(REQUEST_SECONDS):
                    lease = await self._kube.get_lease(self._key)
                before, seen = seen, sight(lease, seen, self._clock())
                if may_take(seen, self._me, self._clock()):
                    started = self._clock()
                    async with asyncio.timeout(REQUEST_SECONDS):
                        self._lease = await self._kube.put_lease(self._mine(lease))
                    self._permit.grant(started)
                    self.leading.set()
                    log.info("leading", extra={"lease": str(self._key), "after": seen.holder})
                    return
            except API_ERRORS as error:
                # Another operator was faster, which is not a problem.
                if not has_status(error, HTTPStatus.CONFLICT):
                    self._tell("lease not available", error)
            else:
                self._trouble = ""
                wait = look_again_in(seen, self._clock())
                self.standing_by.set()
                if before is None or before.holder != seen.holder:
                    log.info("standing by", extra={"lease": str(self._key), "leader": seen.holder})
            await asyncio.sleep(wait)

    async def _keep(self) -> str:
        """Renew the Lease until that has failed for too long; return why."""
        attempted_at = self._permit.renewed_at
        while True:
            await asyncio.sleep(
                min(attempted_at + RETRY_SECONDS, self._permit.renewed_at + RENEW_SECONDS) - self._clock()
            )
            left = self._permit.renewed_at + RENEW_SECONDS - self._clock()
            if left <= 0:
                return "not renewed in time"
            attempted_at = self._clock()
            try:
                async with asyncio.timeout(min(left, REQUEST_SECONDS)):
                    if not await self._write(self._mine):
                        return "another holds the Lease"
            except API_ERRORS as error:
                self._tell("not renewed", error)
            else:
                self._permit.grant(attempted_at)
                self._trouble = ""

    async def _write(self, build: Callable[[Manifest | None], Manifest]) -> bool:
        """Write the Lease; return False if it belongs to another operator."""
        try:
            self._lease = await self._kube.put_lease(build(self._lease))
        except ApiException as refused:
            if not has_status(refused, HTTPStatus.CONFLICT, HTTPStatus.NOT_FOUND):
                raise
            # It was edited or deleted, or this is a renewal whose response was lost.
            lease = await self._kube.get_lease(self._key)
            if lease and lease.get("spec", {}).get("holderIdentity") != self._me:
                return False
            self._lease = await self._kube.put_lease(build(lease))
        return True

    def _mine(self, lease: Manifest | None) -> Manifest:
        return held(lease, self._key, self._me, datetime.now(UTC))

    async def _unlabel(self) -> None:
        # If this fails, the next leader does it.
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                await self._kube.unlabel_pod(self._pod(self._me), LEADER_LABEL)
        except API_ERRORS as error:
            self._tell("pod not unlabelled", error)

    async def _label(self) -> None:
        """Make the Services select this pod, and no other."""
        trouble = ""
        while True:
            try:
                selector = f"{LEADER_LABEL}={self._key.name}"
                for pod in await self._kube.list_pods(self._key.namespace, selector):
                    if pod["metadata"]["name"] != self._me:
                        await self._drop_label(pod["metadata"]["name"])
                await self._kube.label_pod(self._pod(self._me), LEADER_LABEL, self._key.name)
            except API_ERRORS as error:
                if trouble != (trouble := describe(error)):
                    log.warning("pods not labelled", extra={"error": trouble})
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return

    async def _drop_label(self, pod: str) -> None:
        try:
            await self._kube.label_pod(self._pod(pod), LEADER_LABEL, None)
        except ApiException as refused:
            if not has_status(refused, HTTPStatus.NOT_FOUND):
                raise

    def _pod(self, name: str) -> Key:
        return Key(namespace=self._key.namespace, name=name)

    def _tell(self, what: str, error: BaseException) -> None:
        """Log a problem once, however often it occurs."""
        problem = describe(error)
        if self._trouble != problem:
            self._trouble = problem
            log.warning(what, extra={"lease": str(self._key), "error": problem})
