"""What the API server refused, remembered so that it is not asked the same thing every second."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from django_task_operator.cluster.kube import describe, has_status, is_passing
from django_task_operator.errors import ApiUnavailable, ObjectNameTaken, ObjectRejected

if TYPE_CHECKING:
    from collections.abc import Callable

    from django_task_operator.errors import WorkerError

# What made it refuse may be mended elsewhere: a quota, an admission webhook.
REFUSED_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class _Refusal:
    asked: object
    error: WorkerError
    until: float


class Refusals:
    """The last refusal for each object of one worker, by the object's kind and name."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Count seconds by ``clock``."""
        self._clock = clock
        self._refusals: dict[tuple[str, str], _Refusal] = {}

    def add(self, kind: str, name: str, asked: object, error: WorkerError) -> None:
        """Remember that ``asked`` was refused just now, as ``error`` says."""
        self._refusals[kind, name] = _Refusal(asked, error, self._clock() + REFUSED_SECONDS)

    def explain(self, error: BaseException, kind: str, name: str, asked: object, *, new: bool) -> WorkerError:
        """Say what an object's failed apply means, and remember it if it was a refusal.

        ``new`` says that the object was to be created: a conflict is then another's object of that name.
        """
        if new and has_status(error, HTTPStatus.CONFLICT):
            return ObjectNameTaken(kind=kind, name=name)
        if is_passing(error):
            return ApiUnavailable(action=kind, problem=describe(error))
        rejected = ObjectRejected(kind=kind, problem=describe(error))
        self.add(kind, name, asked, rejected)
        return rejected

    def standing(self, kind: str, name: str, asked: object) -> WorkerError | None:
        """Return why ``asked`` is not to be tried again yet; None where it may be."""
        refusal = self._refusals.get((kind, name))
        if refusal and refusal.asked == asked and self._clock() < refusal.until:
            return refusal.error
        return None

    def forget(self, kind: str, name: str) -> None:
        """Take note that the object was accepted."""
        self._refusals.pop((kind, name), None)
