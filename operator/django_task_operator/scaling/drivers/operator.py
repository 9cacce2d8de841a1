"""Driver Operator: the operator alone decides, from the pending and running tasks, and their pace."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from django_task_operator.due import Due
from django_task_operator.scaling.decision import (
    Decision,
    Reason,
    count_message,
    delay_over,
    hold,
    maximum_message,
)
from django_task_operator.scaling.drivers.driver import ScalingDriver
from django_task_operator.scaling.prediction import predict

if TYPE_CHECKING:
    from django_task_operator.scaling.decision import Demand, Policy, Situation
    from django_task_operator.scaling.pace import Pace

# The age of the oldest task is only as recent as the last sample: deciding sooner would be from the same.
TARGET_CHECK_SECONDS = 1.0
# While nothing waits, the estimated load follows the running tasks, even if their number does not change.
LOAD_CHECK_SECONDS = 10.0
LOAD_TOLERANCE = 0.1


def decide_operator(situation: Situation) -> Decision:
    """Decide the replicas: up immediately, down to the highest demand within the scale-down delay."""
    policy, demand, current, now = situation.policy, situation.demand, situation.current, situation.now
    if demand is None:
        return hold(situation, "the demand is not known")
    need, why = _need(situation, demand)
    wanted = policy.clamp(need)
    if wanted > need:
        why = f"{why}, minReplicas is {wanted}"
    history = situation.wanting(wanted)

    due = _target_due(policy, demand, situation.pace)
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
    reason, why = _unchanged(policy, demand, need, wanted, replicas, why)
    return Decision(current, replicas, reason, why, history, due)


def _unchanged(
    policy: Policy, demand: Demand, need: int, wanted: int, replicas: int, why: str
) -> tuple[Reason, str]:
    """Return why ``replicas`` stay as they are."""
    if replicas > wanted:
        return Reason.STABILIZING, f"{why} want {wanted}; scaleDownDelaySeconds keeps {replicas} for now"
    if need > policy.max_replicas or demand.ready >= policy.limit:
        return Reason.AT_MAXIMUM, maximum_message(policy, why)
    if policy.target_latency_seconds and demand.tasks:
        why = f"{why}: {replicas} {'replica' if replicas == 1 else 'replicas'}"
    return Reason.DEMAND_MET, why


def _need(situation: Situation, demand: Demand) -> tuple[int, str]:
    """Return the replicas that the tasks need, before the bounds, and why."""
    policy = situation.policy
    by_count = math.ceil(demand.tasks / policy.tasks_per_replica)
    if not policy.target_latency_seconds:
        return by_count, count_message(policy, demand)
    need = predict(policy, demand, situation.pace, by_count)
    return min(max(need.replicas, situation.current), need.most), need.words


def _target_due(policy: Policy, demand: Demand, pace: Pace) -> Due | None:
    """Return when a worker with a target is due, although its tasks have not changed."""
    if not policy.target_latency_seconds or not demand.tasks:
        return None
    if demand.ready:
        return Due(TARGET_CHECK_SECONDS, "less time is left for targetLatencySeconds")
    if abs(pace.load - demand.running) > LOAD_TOLERANCE:
        return Due(LOAD_CHECK_SECONDS, "the load is another than a moment ago")
    return None


OPERATOR = ScalingDriver(
    decide=decide_operator,
    # A number that has no effect would mislead its readers.
    write=lambda _decided, _asked: None,
    children=lambda _worker: [],
    needs_demand=True,
)
