"""Driver HPA: a HorizontalPodAutoscaler decides, and the operator scales from and to zero, which it cannot.

Its decisions are added to the history, so that after a change of the driver no pods are removed before the
scale-down delay is over.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from django_task_operator.resources.hpa import build_autoscaler
from django_task_operator.scaling.decision import (
    Decision,
    Reason,
    count_message,
    delay_over,
    hold,
    maximum_message,
)
from django_task_operator.scaling.drivers.driver import ScalingDriver
from django_task_operator.scaling.drivers.operator import decide_operator

if TYPE_CHECKING:
    from django_task_operator.scaling.decision import Situation


def decide_hpa(situation: Situation) -> Decision:
    """Decide the replicas: above zero those of ``spec.replicas``, which the HorizontalPodAutoscaler writes.

    Until it has written a value, the last decided number is kept.
    """
    policy, demand, current = situation.policy, situation.demand, situation.current
    number = policy.clamp(current if situation.asked is None else situation.asked)
    if demand is None:
        return hold(situation, "the demand is not known", at=number)
    if number == 0:
        return _decide_asleep(situation)
    needed = number if demand.tasks or policy.min_replicas else 0
    history = situation.wanting(needed)
    if history.highest[1] == 0:
        reason = Reason.SCALED_DOWN if current else Reason.DEMAND_MET
        return Decision(current, 0, reason, "no tasks", history)
    if needed == 0:
        why = f"no tasks; the HorizontalPodAutoscaler keeps {number} until scaleDownDelaySeconds are over"
        due = delay_over(policy, history, situation.now)
        return Decision(current, number, Reason.STABILIZING, why, history, due)
    by_count = math.ceil(demand.tasks / policy.tasks_per_replica)
    if number == policy.max_replicas and (by_count > number or demand.ready >= policy.limit):
        why = maximum_message(policy, count_message(policy, demand))
        return Decision(current, number, Reason.AT_MAXIMUM, why, history)
    why = f"the HorizontalPodAutoscaler asks for {number} ({count_message(policy, demand)})"
    return Decision(current, number, Reason.ASKED, why, history)


def _decide_asleep(situation: Situation) -> Decision:
    """Decide at zero, where the HorizontalPodAutoscaler is inactive.

    The operator sets the number that the autoscaler would reach in the end, instead of letting it start from
    1 with a step every 15 s.
    """
    woken = decide_operator(replace(situation, current=0))
    before = situation.current
    if woken.replicas < before:
        return replace(woken, before=before, reason=Reason.SCALED_DOWN)
    # Someone else wrote 0 while the autoscaler was active.
    reason = Reason.DEMAND_MET if woken.replicas == before > 0 else woken.reason
    return replace(woken, before=before, reason=reason)


HPA = ScalingDriver(
    decide=decide_hpa,
    # Filled in at first, changed to scale from and to zero, and otherwise left as the autoscaler wrote it.
    write=lambda decided, _asked: decided,
    children=lambda worker: [build_autoscaler(worker)],
    needs_demand=True,
)
