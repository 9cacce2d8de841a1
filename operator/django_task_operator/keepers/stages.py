"""Whose turn it is to get the operator's runtime, of all workers that ask for it in stages."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from django_task_operator.cluster.cache import Watched
    from django_task_operator.observed.objects import Deployment
    from django_task_operator.spec import Key

# How long all pods of one worker have to be ready before the next worker's are replaced: some errors of a
# runtime show only when it runs tasks.
SOAK_SECONDS = 10.0


class Stages:
    """One worker after the other, across all namespaces that the operator watches.

    Which worker is being upgraded is read from the Deployments, so that another operator can continue.
    """

    def __init__(self, deployments: Watched[Deployment], clock: Callable[[], float]) -> None:
        """Begin no stage at once, because one may have ended just before this operator started."""
        self._deployments = deployments
        self._clock = clock
        self._busy_at: float | None = None

    def obstacle(self, worker: Key, runtime: str) -> str | None:
        """Return why a worker has to wait for ``runtime`` (a hash), for people; None if it is its turn."""
        now = self._clock()
        self._busy_at = now if self._busy_at is None else self._busy_at
        for other, deployment in self._deployments.everyones():
            record = deployment.runtime
            # One that nobody owns any more will be upgraded by nobody.
            is_in_stage = record and record.staged and record.hash == runtime and deployment.controller_uid
            if other != worker and is_in_stage and not deployment.is_healthy:
                self._busy_at = now
                return f"the pods of DjangoTaskWorker {other} are being replaced"
        if now - self._busy_at < SOAK_SECONDS:
            return "the pods of another DjangoTaskWorker have just been replaced"
        return None

    def begin(self) -> None:
        """Note that a worker begins: no other may before the Deployments show it."""
        self._busy_at = self._clock()
