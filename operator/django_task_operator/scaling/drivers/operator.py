"""Driver Operator: the operator alone decides, from the pending and running tasks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from django_task_operator.due import Due
from django_task_operator.scaling.decision import (
    Decision,
    History,
    Reason,
    count_message,
    delay_over,
    hold,
    maximum_message,
)
from django_task_operator.scaling.drivers.driver import ScalingDriver

if TYPE_CHECKING:
    from django_task_operator.scaling.decision import Demand, Policy, Situation

# While the oldest task waits longer than the target, the replicas grow by half, and then have this long
# to take effect: the HorizontalPodAutoscaler's sync period.
LATENCY_STEP_SECONDS = 15.0
# The age of the oldest task is only as recent as the last sample: checking sooner would show the same.
LATENCY_CHECK_SECONDS = 1.0


def decide_operator(situation: Situation) -> Decision:
    """Decide the replicas: up immediately, down to the highest demand within the scale-down delay."""
    policy, demand, current, now = situation.policy, situation.demand, situation.current, situation.now
    if demand is None:
        return hold(situation, "the demand is not known")
    by_count = math.ceil(demand.tasks / policy.tasks_per_replica)
    by_latency, stepped_at = _latency_step(policy, demand, situation.history, current, now)
    wanted = policy.clamp(max(by_count, by_latency))
    why = _latency_message(policy, demand) if by_latency > by_count else count_message(policy, demand)
    if wanted > max(by_count, by_latency):
        why = f"{why}, minReplicas is {wanted}"
    history = History(situation.history.wanted, stepped_at)
    history = history.with_point(now, wanted, policy.scale_down_delay_seconds)

    due = _latency_due(policy, demand, stepped_at, now)
    if wanted > current:
        return Decision(current, wanted, Reason.SCALED_UP, why, history, due)
    replicas = policy.clamp(min(current, history.highest[1]))
    if history.highest[1] > wanted:
        due = min(filter(None, (due, delay_over(policy, history, now))))
    if replicas < current:
        if replicas == policy.max_replicas:
            why = f"maxReplicas is {replicas}"
        elif replicas > wanted:
            why = f"no more than {replicas} wanted within scaleDownDelaySeconds"
        return Decision(current, replicas, Reason.SCALED_DOWN, why, history, due)
    if replicas > wanted:
        why = f"{why} want {wanted}; scaleDownDelaySeconds keeps {replicas} for now"
        return Decision(current, replicas, Reason.STABILIZING, why, history, due)
    if max(by_count, by_latency) > policy.max_replicas or demand.ready >= policy.limit:
        return Decision(current, replicas, Reason.AT_MAXIMUM, maximum_message(policy, why), history, due)
    return Decision(current, replicas, Reason.DEMAND_MET, why, history, due)


def _is_late(policy: Policy, demand: Demand) -> bool:
    target = policy.target_latency_seconds
    return bool(target) and demand.ready > 0 and demand.oldest_ready_seconds >= target


def _latency_step(
    policy: Policy, demand: Demand, history: History, current: int, now: float
) -> tuple[int, float]:
    """Return the replicas that the latency target asks for (0 if none), and when it last took a step."""
    if not _is_late(policy, demand):
        return 0, history.latency_step_at
    # A pod without a task to run would not speed anything up.
    most = demand.tasks
    if now - history.latency_step_at < LATENCY_STEP_SECONDS:
        return min(current, most), history.latency_step_at
    return min(current + max(1, current // 2), most), now


def _latency_due(policy: Policy, demand: Demand, stepped_at: float, now: float) -> Due | None:
    if _is_late(policy, demand):
        rest = max(0.0, stepped_at + LATENCY_STEP_SECONDS - now)
        return Due(rest, "the last step for targetLatencySeconds has had its time")
    if policy.target_latency_seconds and demand.ready:
        rest = max(LATENCY_CHECK_SECONDS, policy.target_latency_seconds - demand.oldest_ready_seconds)
        return Due(rest, "the oldest task may have waited for targetLatencySeconds")
    return None


def _latency_message(policy: Policy, demand: Demand) -> str:
    target = policy.target_latency_seconds
    return f"{demand.ready} ready, the oldest for more than {target:g} s (targetLatencySeconds)"


OPERATOR = ScalingDriver(
    decide=decide_operator,
    # A number that has no effect would mislead its readers.
    write=lambda _decided, _asked: None,
    children=lambda _worker: [],
    needs_demand=True,
)
