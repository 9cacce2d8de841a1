"""Checks the promises. Every number in the last line is measured; none is taken from the plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from examples.demo.timeline import Timeline

# What a task that fails by design raises.
BY_DESIGN = "orders.outside.CardDeclinedError"


@dataclass(frozen=True, slots=True)
class Plan:
    """What the demo enqueues."""

    orders: int = 60
    tasks_per_order: int = 5
    declined: int = 15
    review_after_seconds: int = 15

    @property
    def tasks(self) -> int:
        """All tasks of the burst."""
        return self.orders * self.tasks_per_order


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of the plan."""

    plan: Plan
    successful: int
    failed: Mapping[str, int]
    replicas_before: int
    replicas_peak: int
    replicas_after: int
    first_pod_seconds: float | None

    @classmethod
    def of(cls, plan: Plan, timeline: Timeline, successful: int, failed: Mapping[str, int]) -> Verdict:
        """Evaluate a timeline and the results of its tasks, with failures by exception."""
        first_pod = timeline.first_pod_at
        return cls(
            plan=plan,
            successful=successful,
            failed=failed,
            replicas_before=timeline.replicas_at_enqueue,
            replicas_peak=max(total for _, total in timeline.totals()),
            replicas_after=timeline.replicas_now,
            first_pod_seconds=None if first_pod is None else timeline.since_enqueue(first_pod),
        )

    def missing(self) -> list[str]:
        """Return what is not as promised; empty if everything is."""
        finished = self.successful + sum(self.failed.values())
        by_design = self.failed.get(BY_DESIGN, 0)
        others = {name: count for name, count in self.failed.items() if name != BY_DESIGN}
        promises = [
            (finished == self.plan.tasks, f"{finished} tasks finished, not {self.plan.tasks}"),
            (
                by_design == self.plan.declined,
                f"{by_design} tasks failed by design, not {self.plan.declined}",
            ),
            (not others, f"tasks failed for other reasons: {others}"),
            (self.replicas_before == 0, f"{self.replicas_before} replicas before the burst, not 0"),
            (self.replicas_peak > 0, "no worker was scaled up"),
            (self.replicas_after == 0, f"{self.replicas_after} replicas in the end, not 0"),
            (self.first_pod_seconds is not None, "no worker pod was seen running"),
        ]
        return [broken for kept, broken in promises if not kept]

    def __str__(self) -> str:
        by_design = self.failed.get(BY_DESIGN, 0)
        first_pod = "never" if self.first_pod_seconds is None else f"after {self.first_pod_seconds:.1f} s"
        return (
            f"demo: {self.successful + sum(self.failed.values())} of {self.plan.tasks} tasks finished"
            f" ({self.successful} successful, {by_design} failed by design),"
            f" replicas {self.replicas_before} -> {self.replicas_peak} -> {self.replicas_after},"
            f" first pod {first_pod}"
        )
