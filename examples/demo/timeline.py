"""What was seen, and when. Pure values: the screen, the picture and the verdict are made of them."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Counts:
    """Rows of the task table by state. Pending is due; deferred waits for its time."""

    pending: int
    deferred: int
    running: int
    successful: int
    failed: int

    @property
    def unfinished(self) -> int:
        """Tasks that are not done yet, deferred ones included."""
        return self.pending + self.deferred + self.running

    @property
    def finished(self) -> int:
        """Tasks that have ended, one way or the other."""
        return self.successful + self.failed


@dataclass(slots=True)
class Timeline:
    """Every observation with its second on this machine's monotonic clock.

    All times are taken here, when the news arrives: pods' start times in the API have a resolution of
    a second, and the clocks of two machines differ.
    """

    counts: list[tuple[float, Counts]] = field(default_factory=list)
    # The Deployments' spec.replicas by worker, all workers in each entry.
    replicas: list[tuple[float, dict[str, int]]] = field(default_factory=list)
    enqueued_at: float | None = None
    first_pod_at: float | None = None

    def count(self, now: float, counts: Counts) -> None:
        """Note the rows of the task table."""
        self.counts.append((now, counts))

    def scale(self, now: float, worker: str, replicas: int) -> None:
        """Note the replicas of one worker's Deployment."""
        before = self.replicas[-1][1] if self.replicas else {}
        if before.get(worker) != replicas:
            self.replicas.append((now, {**before, worker: replicas}))

    def pod_runs(self, now: float) -> None:
        """Note that a worker pod runs; only the first one after the enqueue matters."""
        if self.first_pod_at is None and self.enqueued_at is not None:
            self.first_pod_at = now

    def totals(self) -> list[tuple[float, int]]:
        """Replicas of all workers together, at each change."""
        return [(moment, sum(replicas.values())) for moment, replicas in self.replicas]

    @property
    def replicas_now(self) -> int:
        """Replicas of all workers together."""
        return self.totals()[-1][1]

    @property
    def replicas_at_enqueue(self) -> int:
        """Replicas of all workers together when the burst was committed."""
        return [total for moment, total in self.totals() if self.since_enqueue(moment) <= 0][-1]

    @property
    def counts_now(self) -> Counts:
        """The latest rows."""
        return self.counts[-1][1]

    def since_enqueue(self, moment: float) -> float:
        """Seconds from the enqueue's commit to a moment."""
        assert self.enqueued_at is not None
        return moment - self.enqueued_at
