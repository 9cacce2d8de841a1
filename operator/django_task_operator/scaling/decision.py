"""What a decision about a worker's replicas is made from, and what it says: plain values."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from django_task_operator.contract import EventReason
from django_task_operator.due import Due
from django_task_operator.scaling.pace import UNKNOWN

if TYPE_CHECKING:
    from django_task_operator.scaling.pace import Pace
    from django_task_operator.spec import WorkerSpec


# With a latency target, tasks are counted up to this number at least: one pod can run thousands of short
# tasks within the target, and how many replicas are enough depends on all of them. It takes about 10 ms.
COUNTED_FOR_TARGET = 10_000


class Reason(StrEnum):
    """Why the replicas are what they are: the reason of the condition ScalingActive."""

    SCALED_UP = "ScaledUp"
    SCALED_DOWN = "ScaledDown"
    DEMAND_MET = "DemandMet"
    STABILIZING = "Stabilizing"
    AT_MAXIMUM = "AtMaximum"
    HELD = "Held"
    ASKED = "ReplicasAsked"
    BUSY_PODS_KEPT = "BusyPodsKept"
    CONFLICT = "ScalingConflict"


@dataclass(frozen=True, slots=True)
class Policy:
    """The user's scaling settings; durations are in seconds, ``slots`` are the tasks a pod runs at a time."""

    min_replicas: int
    max_replicas: int
    tasks_per_replica: int
    target_latency_seconds: float
    scale_down_delay_seconds: float
    slots: int = 1

    @classmethod
    def of(cls, spec: WorkerSpec) -> Policy:
        """Read them from a worker's spec, which includes the defaults."""
        return cls(
            min_replicas=spec.scaling.min_replicas,
            max_replicas=spec.scaling.max_replicas,
            tasks_per_replica=spec.tasks_per_replica,
            target_latency_seconds=spec.scaling.target_latency_seconds,
            scale_down_delay_seconds=spec.scaling.scale_down_delay_seconds,
            slots=spec.processes * spec.threads,
        )

    @property
    def limit(self) -> int:
        """How many pending tasks are worth counting: more would not change the decision."""
        most = self.max_replicas * self.tasks_per_replica
        return max(most, COUNTED_FOR_TARGET) if self.target_latency_seconds else most

    def clamp(self, replicas: int) -> int:
        """``replicas`` inside the bounds."""
        return max(self.min_replicas, min(self.max_replicas, replicas))


@dataclass(frozen=True, slots=True)
class Demand:
    """The tasks that need pods now: those that are due and waiting, and those that are running."""

    ready: int
    running: int
    oldest_ready_seconds: float = 0.0

    @property
    def tasks(self) -> int:
        """Ready and running: ready alone would scale to zero under a long task."""
        return self.ready + self.running


@dataclass(frozen=True, slots=True)
class History:
    """What was recently wanted: ``(until when, replicas)``, oldest first, with decreasing replicas.

    The number that was last wanted has been wanted ever since, so the next decision extends it to its own
    time. A point that a later one reaches or exceeds can never again be the highest in the window, and is
    dropped.
    """

    wanted: tuple[tuple[float, int], ...] = ()

    def with_point(self, now: float, replicas: int, window: float) -> History:
        """Add what is wanted now; drop points that are older than ``window`` seconds."""
        *older, last = self.wanted or ((now, replicas),)
        points = (*older, (now, last[1]))
        kept = (point for point in points if point[0] > now - window and point[1] > replicas)
        return History((*kept, (now, replicas)))

    @property
    def highest(self) -> tuple[float, int]:
        """Return the highest point of the window, and until when it was wanted."""
        return self.wanted[0]


@dataclass(frozen=True, slots=True)
class Situation:
    """Everything that a decision is made from.

    Args:
        policy: the worker's bounds and targets.
        demand: what the last sample counted, ``ready`` up to ``policy.limit``; None while that is not known.
        history: what earlier decisions returned; empty for a worker that is new.
        current: the replicas that were last decided.
        asked: the value of ``spec.replicas``; None if it is not set.
        now: seconds on a monotonic clock.
        pace: how fast tasks come and go; only a latency target needs it.
    """

    policy: Policy
    demand: Demand | None
    history: History
    current: int
    asked: int | None
    now: float
    pace: Pace = UNKNOWN

    def wanting(self, replicas: int) -> History:
        """The history with what is wanted now."""
        return self.history.with_point(self.now, replicas, self.policy.scale_down_delay_seconds)


@dataclass(frozen=True, slots=True)
class Decision:
    """How many replicas, and why.

    Args:
        before: the replicas that were last decided.
        replicas: how many there should be.
        reason: the reason of the condition ScalingActive.
        why: the same for people, without the numbers before and after.
        history: what the next decision needs to know about this one.
        due: when the same demand would lead to another decision; None if only a change of it can.
        is_held: whether ``replicas`` differs from what the tasks or ``spec.replicas`` ask for.
    """

    before: int
    replicas: int
    reason: Reason
    why: str
    history: History
    due: Due | None = None
    is_held: bool = False

    @property
    def message(self) -> str:
        """The message of the condition."""
        return self.note if self.reason in {Reason.SCALED_UP, Reason.SCALED_DOWN} else self.why

    @property
    def note(self) -> str:
        """The note of the event, once the decision is carried out."""
        return f"{self.why}: {self.before} -> {self.replicas}"

    @property
    def event(self) -> EventReason | None:
        """The reason of the event, once the decision is carried out; None if there is no event."""
        if self.reason is Reason.CONFLICT:
            return None
        if self.replicas < self.before:
            return EventReason.SCALED_DOWN
        # If a higher number is held, another client has added pods, and they are kept for now.
        return EventReason.SCALED_UP if self.replicas > self.before and not self.is_held else None


def hold(situation: Situation, why: str, *, at: int | None = None) -> Decision:
    """Keep the replicas where they are, or ``at`` that number, but inside the bounds.

    minReplicas is promised whatever the demand, and maxReplicas is never exceeded.
    """
    replicas = situation.policy.clamp(situation.current if at is None else at)
    return Decision(situation.current, replicas, Reason.HELD, why, situation.history, is_held=True)


def pause(situation: Situation) -> Decision:
    """Keep the replicas exactly where they are, as ``spec.paused`` asks."""
    current = situation.current
    return Decision(current, current, Reason.HELD, "paused", situation.history, is_held=True)


def give_way(decision: Decision, rival: str, current: int, again: Due) -> Decision:
    """Leave the replicas at ``current``, which another autoscaler has written to the Deployment.

    If both wrote the number, they would alternately start and terminate pods, and the tasks in them. At zero
    an autoscaler is inactive: only the operator can scale up from there.
    """
    due = min(again, decision.due) if decision.due else again
    if current == 0:
        return replace(decision, due=due)
    why = f"{rival} scales the Deployment"
    return replace(decision, replicas=current, reason=Reason.CONFLICT, why=why, due=due, is_held=True)


def delay_over(policy: Policy, history: History, now: float) -> Due:
    """Return when the highest point of the window no longer counts: just after its end."""
    expires = history.highest[0] + policy.scale_down_delay_seconds - now + 0.001
    return Due(expires, "scaleDownDelaySeconds are over")


def count_message(policy: Policy, demand: Demand) -> str:
    """Describe the number of tasks, for people."""
    if not demand.tasks:
        return "no tasks"
    more = " or more" if demand.ready >= policy.limit else ""
    return f"{demand.ready}{more} ready and {demand.running} running, {policy.tasks_per_replica} per replica"


def maximum_message(policy: Policy, why: str) -> str:
    """Say that maxReplicas is the limit, for people."""
    return f"{why} want more than maxReplicas {policy.max_replicas}"
