"""Whether a user may read a namespace's metrics: the API server decides, by its own rules."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from django_task_operator.metrics_api.paths import GROUP, VERSION

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from django_task_operator.metrics_api.identity import User
    from django_task_operator.spec import Manifest

# As long as Kubernetes' own extension API servers cache an answer.
REMEMBER_SECONDS = 10.0
MOST_REMEMBERED = 1000


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether it is allowed, and the authorizer's explanation."""

    allowed: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class _Review:
    verdict: asyncio.Task[Verdict]
    until: float


class Access:
    """Requests SubjectAccessReviews, and caches the answers for a short time."""

    def __init__(self, review: Callable[[Manifest], Awaitable[Manifest]], clock: Callable[[], float]) -> None:
        """``review`` takes the spec of a SubjectAccessReview and returns its status."""
        self._review = review
        self._clock = clock
        self._reviews: dict[tuple[User, str, str], _Review] = {}

    async def may_list(self, user: User, namespace: str, metric: str) -> Verdict:
        """Whether a user may list a metric of a namespace.

        Raises:
            ApiException, aiohttp.ClientError, TimeoutError, OSError: the API server gives no answer.
        """
        asked, now = (user, namespace, metric), self._clock()
        known = self._reviews.get(asked)
        if known is None or known.until <= now:
            self._make_room(now)
            verdict = asyncio.create_task(self._ask(user, namespace, metric))
            known = self._reviews[asked] = _Review(verdict, now + REMEMBER_SECONDS)
        try:
            # Other requests may wait for the same answer.
            return await asyncio.shield(known.verdict)
        except BaseException:
            if known.verdict.done() and self._reviews.get(asked) is known:
                del self._reviews[asked]
            raise

    def _make_room(self, now: float) -> None:
        if len(self._reviews) >= MOST_REMEMBERED:
            self._reviews = {key: one for key, one in self._reviews.items() if one.until > now}
        if len(self._reviews) >= MOST_REMEMBERED:
            self._reviews.clear()

    async def _ask(self, user: User, namespace: str, metric: str) -> Verdict:
        status = await self._review(
            {
                "user": user.name,
                "uid": user.uid,
                "groups": list(user.groups),
                "extra": {key: list(values) for key, values in user.extra},
                "resourceAttributes": {
                    "namespace": namespace,
                    "verb": "list",
                    "group": GROUP,
                    "version": VERSION,
                    "resource": metric,
                },
            }
        )
        return Verdict(bool(status.get("allowed")) and not status.get("denied"), status.get("reason", ""))
