"""What is asked of a task table, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from django_task_operator.tasktable.errors import DatabaseError

EVERY_QUEUE = "*"


@dataclass(frozen=True, slots=True)
class Selection:
    """The rows that a worker's pods would claim.

    Args:
        backend: alias in the project's ``TASKS`` setting; rows carry it.
        queues: names of queues; ``"*"`` among them is every queue.
        exclude_queues: names that are left out again.
    """

    backend: str
    queues: tuple[str, ...]
    exclude_queues: tuple[str, ...] = ()

    @property
    def is_every_queue(self) -> bool:
        """Whether all queues are taken, but for the excluded ones."""
        return EVERY_QUEUE in self.queues


@dataclass(frozen=True, slots=True)
class QueueDemand:
    """The part of a selection's work that is in one queue; the fields are those of ``SelectionDemand``."""

    ready: int = 0
    running: int = 0
    oldest_ready: datetime | None = None


@dataclass(frozen=True, slots=True)
class SelectionDemand:
    """The work that one selection has.

    Args:
        ready: due READY rows, counted no further than the limit that was asked for.
        running: RUNNING rows, all of them.
        oldest_ready: when the oldest of the ready rows became due; None without one.
        queues: the same by queue, of the queues that have any; the limit holds for each. Rows of
            queues that are too many to name are under ``""``.
    """

    ready: int
    running: int
    oldest_ready: datetime | None
    queues: Mapping[str, QueueDemand] = field(default_factory=dict)

    def within(self, limit: int) -> SelectionDemand:
        """The same, had the ready rows been counted up to ``limit``."""
        if self.ready <= limit:
            return self
        queues = {name: replace(queue, ready=min(queue.ready, limit)) for name, queue in self.queues.items()}
        return replace(self, ready=limit, queues=queues)


@dataclass(frozen=True, slots=True)
class Sample:
    """What a table has at one moment, for all selections at once.

    Args:
        at: the database's clock, UTC.
        seconds: how long the statement took, connecting not counted.
        demands: what each selection has.
        indexed: whether the table has the index of ``docs/database.md``.
    """

    at: datetime
    seconds: float
    demands: Mapping[Selection, SelectionDemand]
    indexed: bool = True


@dataclass(frozen=True, slots=True)
class Observation:
    """What the polls so far said to one subscriber.

    Args:
        demand: of the last successful poll; None before the first.
        error: of the last poll; None if it succeeded.
        sampled_at: the database's clock at the last successful poll, UTC.
        sample_seconds: how long the last successful poll's statement took.
        indexed: whether the table had the index of ``docs/database.md`` then.
    """

    demand: SelectionDemand | None = None
    error: DatabaseError | None = None
    sampled_at: datetime | None = None
    sample_seconds: float = 0.0
    indexed: bool = True

    @property
    def oldest_ready_seconds(self) -> float:
        """How long the oldest ready row had waited when it was sampled; 0 without one.

        Both ends are the database's clock, so a skewed clock of ours does not matter.
        """
        if self.demand is None or self.demand.oldest_ready is None or self.sampled_at is None:
            return 0.0
        return max(0.0, (self.sampled_at - self.demand.oldest_ready).total_seconds())


@dataclass(frozen=True, slots=True)
class RunningRow:
    """A RUNNING row: which task, and which worker id has had it since when.

    Args:
        key: the row's id as the database gave it, to find the row again.
        task_path: what runs.
        queue: where it was.
        worker_id: who claimed it last; empty where the row does not say.
        attempts: how often it was claimed.
        started_at: when it was claimed last, by the clock of who did, UTC; None where the row does not say,
            or says it in a time zone that is not known.
        reading: the same as the row has it, if that is no certain instant: it tells one claim of the row
            from another, and which came first, and is not to be compared with any clock.
    """

    key: Any
    task_path: str
    queue: str
    worker_id: str
    attempts: int
    started_at: datetime | None
    reading: datetime | None = None

    @property
    def since(self) -> datetime | None:
        """What tells this claim of the row from others: ``started_at``, or else the ``reading``."""
        return self.started_at or self.reading

    @property
    def id(self) -> str:
        """The id for people, as Django's own API writes it."""
        return str(UUID(str(self.key)))


@dataclass(frozen=True, slots=True)
class Listing:
    """The RUNNING rows of a table at one moment.

    Args:
        at: the database's clock, UTC.
        seconds: how long the statement took.
        rows: all of them, or the first so many.
        complete: whether they are all.
        asked_at: when it was asked for, on the event loop's clock.
    """

    at: datetime
    seconds: float
    rows: tuple[RunningRow, ...]
    complete: bool = True
    asked_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Failed:
    """What a settled row becomes: FAILED, with the class and text that upstream stores of an exception."""

    exception_class_path: str
    traceback: str


@dataclass(frozen=True, slots=True)
class Requeued:
    """What a settled row becomes: READY again; its worker ids tell how often it was claimed."""


type Settlement = Failed | Requeued


@dataclass(frozen=True, slots=True, order=True)
class UnservedQueue:
    """A queue with due rows that no subscriber of the database takes."""

    backend: str
    queue: str
