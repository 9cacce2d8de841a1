"""Remembers what the API server has refused, so that it does not get the same request every second."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from django_task_operator.backoff import Backoff
from django_task_operator.cluster.api_errors import describe, has_status, is_passing, says_no
from django_task_operator.errors import ApiUnavailable, ObjectNameTaken, ObjectRejected

if TYPE_CHECKING:
    from collections.abc import Callable

    from django_task_operator.errors import WorkerError

# The cause of a refusal may be fixed elsewhere: a quota, an admission webhook.
REFUSED_SECONDS = 30.0
# For an answer that may pass by itself, such as "too many requests", the delay doubles between these: turns
# come with every change of the tasks, and must not ask as often.
PASSING_SECONDS = (1.0, REFUSED_SECONDS)


@dataclass(frozen=True, slots=True)
class _Refusal:
    # None is anything.
    asked: object
    error: WorkerError
    until: float


class Refusals:
    """The last refusal for each of one worker's objects of a kind, by the object's name."""

    def __init__(self, kind: str, clock: Callable[[], float]) -> None:
        """Count seconds by ``clock``; ``kind`` is the kind in a manifest."""
        self._kind = kind
        self._clock = clock
        self._refusals: dict[str, _Refusal] = {}
        self._passing: dict[str, Backoff] = {}

    def explain(self, error: BaseException, name: str, asked: object, *, new: bool) -> WorkerError:
        """Return the error that an object's failed apply means, and remember it if it was a refusal.

        ``new`` says whether the object was to be created: a conflict then means that the name is taken.
        """
        if new and has_status(error, HTTPStatus.CONFLICT):
            return ObjectNameTaken(kind=self._kind, name=name)
        if is_passing(error):
            return self.postpone(
                error, name, None, ApiUnavailable(action=self._kind, problem=describe(error))
            )
        rejected = ObjectRejected(kind=self._kind, problem=describe(error))
        self._refusals[name] = _Refusal(asked, rejected, self._clock() + REFUSED_SECONDS)
        return rejected

    def postpone(self, error: BaseException, name: str, asked: object, meaning: WorkerError) -> WorkerError:
        """Remember for a while what an error means for ``asked`` (None: for anything), if it is an answer."""
        if says_no(error):
            delay = self._passing.setdefault(name, Backoff(*PASSING_SECONDS)).next()
            self._refusals[name] = _Refusal(asked, meaning, self._clock() + delay)
        return meaning

    def standing(self, name: str, asked: object) -> WorkerError | None:
        """Return the refusal because of which ``asked`` must not be retried yet; None if it may be."""
        refusal = self._refusals.get(name)
        if refusal and refusal.asked in (None, asked) and self._clock() < refusal.until:
            return refusal.error
        return None

    def forget(self, name: str) -> None:
        """Note that the object was accepted."""
        self._refusals.pop(name, None)
        self._passing.pop(name, None)
