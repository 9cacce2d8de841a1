"""Queries of a task table, and their results, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from django_task_operator.tasktable.errors import DatabaseError

EVERY_QUEUE = "*"
# With an index, a listing takes a few milliseconds; without it, one of a large table takes a second.
SLOW_SECONDS = 0.1
# A task that takes no time at all would stand for any number of others: a claim takes about this long.
LEAST_TASK_SECONDS = 0.001


@dataclass(frozen=True, slots=True)
class Selection:
    """The rows that a worker's pods would claim.

    Args:
        backend: alias in the project's ``TASKS`` setting; rows carry it.
        queues: names of queues; ``"*"`` means every queue.
        exclude_queues: names of queues to leave out.
    """

    backend: str
    queues: tuple[str, ...]
    exclude_queues: tuple[str, ...] = ()

    @property
    def is_every_queue(self) -> bool:
        """Whether all queues are taken, except the excluded ones."""
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
        ready: due READY rows, counted up to the limit.
        running: all RUNNING rows.
        oldest_ready: when the oldest of the ready rows became due; None if there are none.
        queues: the same by queue, for queues with rows; the limit applies to each. If there are too many
            queues to name, all rows are under ``""``.
    """

    ready: int
    running: int
    oldest_ready: datetime | None
    queues: Mapping[str, QueueDemand] = field(default_factory=dict)

    def within(self, limit: int) -> SelectionDemand:
        """Return the same as if the ready rows had been counted up to ``limit``."""
        if self.ready <= limit:
            return self
        queues = {name: replace(queue, ready=min(queue.ready, limit)) for name, queue in self.queues.items()}
        return replace(self, ready=limit, queues=queues)


@dataclass(frozen=True, slots=True)
class Durations:
    """How long tasks took, those that were seen running by looks at the table.

    Args:
        tasks: how many tasks those that were seen stand for.
        seconds: how long those took together.
        running_for: how long the tasks that are seen now have been running, on average; 0 if there are none.
    """

    tasks: float = 0.0
    seconds: float = 0.0
    running_for: float = 0.0

    def plus(self, seconds: float, apart: float) -> Durations:
        """Add a task that took ``seconds``, and that looks ``apart`` seconds from each other have seen.

        A task that takes less than that is seen only by chance, and stands for those that are not.
        """
        seconds = max(seconds, LEAST_TASK_SECONDS)
        return replace(
            self, tasks=self.tasks + max(1.0, apart / seconds), seconds=self.seconds + max(seconds, apart)
        )

    def after(self, earlier: Durations) -> Durations:
        """Return the sum, of which this is the later part."""
        return replace(self, tasks=earlier.tasks + self.tasks, seconds=earlier.seconds + self.seconds)


@dataclass(frozen=True, slots=True)
class Sample:
    """The counts of a table at one moment, for all selections together.

    Args:
        at: the database's clock, UTC.
        seconds: how long the statement took, without connecting.
        demands: what each selection has.
        indexed: whether the table has the index of ``docs/database.md``.
    """

    at: datetime
    seconds: float
    demands: Mapping[Selection, SelectionDemand]
    indexed: bool = True


@dataclass(frozen=True, slots=True)
class Observation:
    """The results of the polls so far for one subscriber.

    Args:
        demand: that of the last successful poll; None before the first.
        error: that of the last poll; None if it succeeded.
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
        """How long the oldest ready row had waited when it was sampled; 0 if there is none.

        Both times are from the database's clock, so the operator's own clock does not matter.
        """
        if self.demand is None or self.demand.oldest_ready is None or self.sampled_at is None:
            return 0.0
        return max(0.0, (self.sampled_at - self.demand.oldest_ready).total_seconds())


@dataclass(frozen=True, slots=True)
class RunningRow:
    """A RUNNING row: which task, and which worker id has had it since when.

    Args:
        key: the row's id as the database returned it, to find the row again.
        task_path: the task's function.
        queue: the task's queue.
        worker_id: who claimed it last; empty if the row does not say.
        attempts: how often it was claimed.
        started_at: when it was last claimed, by the clock of the worker, UTC; None if the row does not say,
            or if the time zone is not known.
        reading: the same as stored in the row, if the time zone is not known: it distinguishes and orders the
            claims of the row, but must not be compared with any clock.
        earlier: the worker ids of the earlier claims, oldest first.
    """

    key: Any
    task_path: str
    queue: str
    worker_id: str
    attempts: int
    started_at: datetime | None
    reading: datetime | None = None
    earlier: tuple[str, ...] = ()

    @property
    def since(self) -> datetime | None:
        """What distinguishes this claim of the row from others: ``started_at``, or else ``reading``."""
        return self.started_at or self.reading

    @property
    def id(self) -> str:
        """The id for people, as in Django's own API."""
        return str(UUID(str(self.key)))


@dataclass(frozen=True, slots=True)
class Listing:
    """The RUNNING rows of a table at one moment.

    Args:
        at: the database's clock, UTC.
        seconds: how long the statement took.
        rows: all rows, or the first ones up to a limit.
        complete: whether these are all.
        asked_at: when the listing was requested, on the event loop's clock.
    """

    at: datetime
    seconds: float
    rows: tuple[RunningRow, ...]
    complete: bool = True
    asked_at: float = 0.0

    @property
    def slow(self) -> bool:
        """Whether the table probably has no index, so that a listing reads all of it and has to be rare."""
        return self.seconds > SLOW_SECONDS


@dataclass(frozen=True, slots=True)
class Failed:
    """A settled row becomes FAILED, with an exception's class and text as upstream stores them."""

    exception_class_path: str
    traceback: str


@dataclass(frozen=True, slots=True)
class Requeued:
    """A settled row becomes READY again; its worker ids show how often it was claimed.

    Args:
        counted: whether the claim that ends here stays among the worker ids. If not, the row is as it was
            before that claim.
    """

    counted: bool = True


type Settlement = Failed | Requeued


@dataclass(frozen=True, slots=True, order=True)
class UnservedQueue:
    """A queue with due rows that no subscriber of the database serves."""

    backend: str
    queue: str
