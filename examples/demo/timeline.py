"""What was observed, and when: pure values for the screen, the picture and the verdict."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Counts:
    """Rows of the task table by state. Pending tasks are due; deferred ones are not due yet."""

    pending: int
    deferred: int
    running: int
    successful: int
    failed: int

    @property
    def unfinished(self) -> int:
        """Tasks that have not finished yet, including deferred ones."""
        return self.pending + self.deferred + self.running

    @property
    def finished(self) -> int:
        """Tasks that have finished, successfully or not."""
        return self.successful + self.failed


@dataclass(slots=True)
class Timeline:
    """Every observation with its time on this machine's monotonic clock.

    All times are taken here, on arrival: pods' start times in the API have a resolution of a second, and the
    clocks of two machines differ.
    """

    counts: list[tuple[float, Counts]] = field(default_factory=list)
    # The Deployments' spec.replicas by worker, all workers in each entry.
    replicas: list[tuple[float, dict[str, int]]] = field(default_factory=list)
    enqueued_at: float | None = None
    first_pod_at: float | None = None

    def count(self, now: float, counts: Counts) -> None:
        """Record the rows of the task table."""
        self.counts.append((now, counts))

    def scale(self, now: float, worker: str, replicas: int) -> None:
        """Record the replicas of one worker's Deployment."""
        before = self.replicas[-1][1] if self.replicas else {}
        if before.get(worker) != replicas:
            self.replicas.append((now, {**before, worker: replicas}))

    def pod_runs(self, now: float) -> None:
        """Record that a worker pod is running; only the first one after the enqueue matters."""
        if self.first_pod_at is None and self.enqueued_at is not None:
            self.first_pod_at = now

    def totals(self) -> list[tuple[float, int]]:
        """Total replicas of all workers, at each change."""
        return [(moment, sum(replicas.values())) for moment, replicas in self.replicas]

    @property
    def replicas_now(self) -> int:
        """Total replicas of all workers."""
        return self.totals()[-1][1]

    @property
    def replicas_at_enqueue(self) -> int:
        """Total replicas of all workers when the burst was committed."""
        return [total for moment, total in self.totals() if self.since_enqueue(moment) <= 0][-1]

    @property
    def counts_now(self) -> Counts:
        """The latest rows."""
        return self.counts[-1][1]

    def since_enqueue(self, moment: float) -> float:
        """Return the seconds from the enqueue's commit to a given time."""
        assert self.enqueued_at is not None
        return moment - self.enqueued_at
