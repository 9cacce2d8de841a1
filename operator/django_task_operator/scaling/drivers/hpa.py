"""Driver HPA: a HorizontalPodAutoscaler decides, and the operator does what it cannot: from and to zero.

Its decisions enter the history as what was wanted, so that a worker whose driver is changed scales
nothing in before its delay is over.
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

    One that has not begun yet takes over the replicas that were decided last.
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
    """At zero the HorizontalPodAutoscaler sleeps.

    It is woken with the number that it would come to, and not with 1 and a step of its ladder every 15 s.
    """
    woken = decide_operator(replace(situation, current=0))
    before = situation.current
    if woken.replicas < before:
        return replace(woken, before=before, reason=Reason.SCALED_DOWN)
    # Somebody wrote 0 while it was awake.
    reason = Reason.DEMAND_MET if woken.replicas == before > 0 else woken.reason
    return replace(woken, before=before, reason=reason)


HPA = ScalingDriver(
    decide=decide_hpa,
    # Filled in to begin with, changed to wake it and to send it to sleep, and otherwise as it wrote it.
    write=lambda decided, _asked: decided,
    children=lambda worker: [build_autoscaler(worker)],
    needs_demand=True,
)
