"""Decides a worker's replicas from its demand, and says why."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum

# While the oldest task waits longer than it should, replicas grow by half, and then get this long
# to show their effect: the HorizontalPodAutoscaler's sync period.
LATENCY_STEP_SECONDS = 15.0
# The age of the oldest task is as old as its sample: to look again sooner is to see the same.
LATENCY_LOOK_SECONDS = 1.0


class Reason(StrEnum):
    """Why the replicas are what they are: the reason of the event and of the condition."""

    SCALED_UP = "ScaledUp"
    SCALED_DOWN = "ScaledDown"
    DEMAND_MET = "DemandMet"
    STABILIZING = "Stabilizing"
    AT_MAXIMUM = "AtMaximum"
    HELD = "Held"
    ASKED = "ReplicasAsked"
    BUSY_PODS_KEPT = "BusyPodsKept"


@dataclass(frozen=True, slots=True)
class Policy:
    """What the user asked of the scaling; seconds are seconds."""

    min_replicas: int = 0
    max_replicas: int = 10
    tasks_per_replica: int = 10
    target_latency_seconds: float = 0
    scale_down_delay_seconds: float = 60

    @property
    def limit(self) -> int:
        """How many tasks a decision can use: counting further changes nothing."""
        return self.max_replicas * self.tasks_per_replica

    def clamp(self, replicas: int) -> int:
        """``replicas`` inside the bounds."""
        return max(self.min_replicas, min(self.max_replicas, replicas))


@dataclass(frozen=True, slots=True)
class Demand:
    """The tasks that call for pods now: due and waiting, and running."""

    ready: int
    running: int
    oldest_ready_seconds: float = 0.0

    @property
    def tasks(self) -> int:
        """Ready and running: ready alone would scale to zero under a long task."""
        return self.ready + self.running


@dataclass(frozen=True, slots=True)
class History:
    """What was wanted lately: ``(until when, replicas)``, oldest first, replicas falling.

    What was wanted last has been wanted ever since, so the next decision extends it to its own
    time. A point that a later one reaches or exceeds can never be the highest of the window again
    and is dropped.
    """

    wanted: tuple[tuple[float, int], ...] = ()
    latency_step_at: float = field(default=-math.inf)

    def with_point(self, now: float, replicas: int, window: float) -> History:
        """Remember what is wanted now; forget what is older than ``window`` seconds."""
        *older, last = self.wanted or ((now, replicas),)
        points = (*older, (now, last[1]))
        kept = (point for point in points if point[0] > now - window and point[1] > replicas)
        return History((*kept, (now, replicas)), self.latency_step_at)

    @property
    def highest(self) -> tuple[float, int]:
        """The highest point of the window and until when it was wanted."""
        return self.wanted[0]


@dataclass(frozen=True, slots=True)
class Decision:
    """How many replicas, and why.

    ``wake_after`` is the number of seconds after which the same demand would be decided otherwise,
    or None if only a change can alter the decision.
    """

    replicas: int
    reason: Reason
    message: str
    history: History
    wake_after: float | None = None


def decide(policy: Policy, demand: Demand, history: History, current: int, now: float) -> Decision:
    """Decide the replicas: up at once, down to the highest demand of the scale-down delay.

    Args:
        policy: the worker's bounds and targets.
        demand: what the last sample counted, ``ready`` up to ``policy.limit``.
        history: what earlier decisions returned; empty for a worker that is new.
        current: the replicas that were decided last.
        now: seconds on a clock that never goes back.
    """
    by_count = math.ceil(demand.tasks / policy.tasks_per_replica)
    by_latency, stepped_at = _latency_step(policy, demand, history, current, now)
    wanted = policy.clamp(max(by_count, by_latency))
    why = _latency_message(policy, demand) if by_latency > by_count else count_message(policy, demand)
    if wanted > max(by_count, by_latency):
        why = f"{why}, minReplicas is {wanted}"
    history = History(history.wanted, stepped_at).with_point(now, wanted, policy.scale_down_delay_seconds)

    wake_after = _latency_wake(policy, demand, stepped_at, now)
    if wanted > current:
        return Decision(wanted, Reason.SCALED_UP, f"{why}: {current} -> {wanted}", history, wake_after)
    highest_at, highest = history.highest
    replicas = policy.clamp(min(current, highest))
    if highest > wanted:
        # One moment past the end of the window, where the point no longer counts.
        expires = highest_at + policy.scale_down_delay_seconds - now + 0.001
        wake_after = expires if wake_after is None else min(wake_after, expires)
    if replicas < current:
        if replicas == policy.max_replicas:
            why = f"maxReplicas is {replicas}"
        elif replicas > wanted:
            why = f"no more than {replicas} wanted within scaleDownDelaySeconds"
        return Decision(replicas, Reason.SCALED_DOWN, f"{why}: {current} -> {replicas}", history, wake_after)
    if replicas > wanted:
        message = f"{why} want {wanted}; scaleDownDelaySeconds keeps {replicas} for now"
        return Decision(replicas, Reason.STABILIZING, message, history, wake_after)
    if max(by_count, by_latency) > policy.max_replicas or demand.ready >= policy.limit:
        return Decision(replicas, Reason.AT_MAXIMUM, maximum_message(policy, why), history, wake_after)
    return Decision(replicas, Reason.DEMAND_MET, why, history, wake_after)


def hold(policy: Policy, history: History, current: int, why: str) -> Decision:
    """Keep the replicas where they are while the demand is not known, but inside the bounds.

    minReplicas is promised whatever the demand, and maxReplicas is never exceeded.
    """
    return Decision(policy.clamp(current), Reason.HELD, why, history)


def _is_late(policy: Policy, demand: Demand) -> bool:
    target = policy.target_latency_seconds
    return bool(target) and demand.ready > 0 and demand.oldest_ready_seconds >= target


def _latency_step(
    policy: Policy, demand: Demand, history: History, current: int, now: float
) -> tuple[int, float]:
    """The replicas that latency asks for (0 if it asks for none), and when it last took a step."""
    if not _is_late(policy, demand):
        return 0, history.latency_step_at
    # A pod that has no task to run makes nothing faster.
    most = demand.tasks
    if now - history.latency_step_at < LATENCY_STEP_SECONDS:
        return min(current, most), history.latency_step_at
    return min(current + max(1, current // 2), most), now


def _latency_wake(policy: Policy, demand: Demand, stepped_at: float, now: float) -> float | None:
    if _is_late(policy, demand):
        return max(0.0, stepped_at + LATENCY_STEP_SECONDS - now)
    if policy.target_latency_seconds and demand.ready:
        return max(LATENCY_LOOK_SECONDS, policy.target_latency_seconds - demand.oldest_ready_seconds)
    return None


def count_message(policy: Policy, demand: Demand) -> str:
    """Say how many tasks there are, for people."""
    if not demand.tasks:
        return "no tasks"
    more = " or more" if demand.ready >= policy.limit else ""
    return f"{demand.ready}{more} ready and {demand.running} running, {policy.tasks_per_replica} per replica"


def maximum_message(policy: Policy, why: str) -> str:
    """Say that maxReplicas is in the way, for people."""
    return f"{why} want more than maxReplicas {policy.max_replicas}"


def _latency_message(policy: Policy, demand: Demand) -> str:
    target = policy.target_latency_seconds
    return f"{demand.ready} ready, the oldest for more than {target:g} s (targetLatencySeconds)"
