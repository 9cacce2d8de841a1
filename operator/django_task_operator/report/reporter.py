"""Reports what a turn saw and did: status, events, metrics."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING

from django_task_operator import telemetry
from django_task_operator.backoff import Backoff
from django_task_operator.cluster.api_errors import API_ERRORS, describe, has_status, says_no
from django_task_operator.due import Due
from django_task_operator.errors import WorkerGone
from django_task_operator.report.events import build_event, transitions
from django_task_operator.report.status import build_status, conditions_of, differs, steady_part

if TYPE_CHECKING:
    from django_task_operator.spec import Key, Manifest
    from django_task_operator.turn import Event, Turn
    from django_task_operator.world import World

log = logging.getLogger(__name__)

# Counts that change with every task are available as metrics; in the status they may be this old.
STATUS_SECONDS = 10.0
# A failed write is retried after a delay that doubles between these bounds.
RETRY_SECONDS = (2.0, 30.0)


class Reporter:
    """Writes the status and the events of one worker."""

    def __init__(self, world: World, key: Key, uid: str, stored: Manifest) -> None:
        """``stored`` is the status that the API server has."""
        self._kube = world.kube
        self._instance = world.instance
        self._clock = world.clock
        self._key = key
        self._uid = uid
        self._status = stored
        self._written_at = float("-inf")
        self._refused_until = float("-inf")
        self._backoff = Backoff(*RETRY_SECONDS)

    @property
    def has_reported(self) -> bool:
        """Whether the worker has a status, from this operator or a previous one."""
        return bool(self._status)

    async def report(self, turn: Turn) -> Due | None:
        """Post the turn's events and write what has changed; return when a write that was put off is due.

        Raises:
            WorkerGone: the DjangoTaskWorker is deleted.
        """
        for event in turn.events:
            await self._tell(event)
        now = datetime.now(UTC)
        status = build_status(turn, conditions_of(turn, now), self._status, now)
        telemetry.observe(self._key.namespace, self._key.name, status)
        if turn.queues is not None:
            telemetry.observe_queues(self._key.namespace, self._key.name, _figures(turn))
        if not differs(status, self._status):
            return None
        refused = self._refused_until - self._clock()
        if refused > 0:
            return Due(refused, "the status was refused")
        waited = self._clock() - self._written_at
        if steady_part(status) == steady_part(self._status) and waited < STATUS_SECONDS:
            return Due(STATUS_SECONDS - waited, "the status has old counts")
        try:
            await self._kube.apply_worker_status(self._key, self._uid, status)
        except API_ERRORS as error:
            if has_status(error, HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT):
                raise WorkerGone from None
            log.warning("status not written", extra={"worker": str(self._key), "error": describe(error)})
            delay = self._backoff.next()
            if says_no(error):
                self._refused_until = self._clock() + delay
            return Due(delay, "the status could not be written")
        self._backoff.reset()
        before, self._status, self._written_at = self._status, status, self._clock()
        for event in transitions(before, status):
            await self._tell(event)
        return None

    async def _tell(self, event: Event) -> None:
        """Write an event. One that cannot be written is logged and dropped."""
        level = logging.WARNING if event.kind == "Warning" else logging.INFO
        log.log(level, event.note, extra={"worker": str(self._key), "reason": event.reason})
        try:
            for about in (None, event.autoscaler) if event.autoscaler else (None,):
                built = build_event(self._key, self._uid, event, self._instance, autoscaler=about)
                await self._kube.create_event(self._key.namespace, built)
        except API_ERRORS as error:
            log.warning("event not written", extra={"worker": str(self._key), "error": describe(error)})


def _figures(turn: Turn) -> dict[str, telemetry.QueueFigures]:
    """What the turn knows of each queue; both times of an age are from the database's clock."""

    def age(since: datetime | None) -> float:
        return max(0.0, (turn.sampled_at - since).total_seconds()) if since and turn.sampled_at else 0.0

    return {
        name: telemetry.QueueFigures(queue.ready, queue.running, age(queue.oldest_ready))
        for name, queue in (turn.queues or {}).items()
    }
