"""Decides a worker's replicas where somebody else has a say: whoever writes ``spec.replicas``.

Each decision enters the history as what was wanted, so that a worker whose driver is changed scales
nothing in before its delay is over.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from django_task_operator.scaling.decision import (
    Decision,
    Reason,
    count_message,
    decide,
    hold,
    maximum_message,
)
from django_task_operator.spec import Driver

if TYPE_CHECKING:
    from django_task_operator.scaling.decision import Demand, History, Policy


def follow(policy: Policy, history: History, current: int, asked: int | None, now: float) -> Decision:
    """Driver External: the replicas are what ``spec.replicas`` asks for.

    While nobody has asked, they are those that there are, so that a change of the driver ends no pod,
    and at least the one that is the default.
    """
    if asked is None:
        asked = max(1, current)
    history = history.with_point(now, asked, policy.scale_down_delay_seconds)
    return Decision(asked, Reason.ASKED, f"spec.replicas asks for {asked}", history)


def share(
    policy: Policy, demand: Demand | None, history: History, current: int, asked: int | None, now: float
) -> Decision:
    """Driver HPA: above zero its number is law; the operator does what it cannot, from and to zero.

    Args:
        policy: the worker's bounds and targets.
        demand: what the last sample counted; None while it is not known.
        history: what earlier decisions returned; empty for a worker that is new.
        current: the replicas that were decided last, which an autoscaler that has not begun takes over.
        asked: ``spec.replicas``, which the HorizontalPodAutoscaler writes.
        now: seconds on a clock that never goes back.
    """
    number = policy.clamp(current if asked is None else asked)
    if demand is None:
        return hold(policy, history, number, "the demand is not known")
    if number == 0:
        # Asleep, as the HorizontalPodAutoscaler is at zero: it is woken with the number that it would
        # come to, and not with 1 and a step of its ladder every 15 s.
        return decide(policy, demand, history, 0, now)
    needed = number if demand.tasks or policy.min_replicas else 0
    history = history.with_point(now, needed, policy.scale_down_delay_seconds)
    highest_at, highest = history.highest
    if highest == 0:
        return Decision(0, Reason.SCALED_DOWN, f"no tasks: {number} -> 0", history)
    if needed == 0:
        expires = highest_at + policy.scale_down_delay_seconds - now + 0.001
        message = f"no tasks; the HorizontalPodAutoscaler keeps {number} until scaleDownDelaySeconds are over"
        return Decision(number, Reason.STABILIZING, message, history, expires)
    by_count = math.ceil(demand.tasks / policy.tasks_per_replica)
    if number == policy.max_replicas and (by_count > number or demand.ready >= policy.limit):
        message = maximum_message(policy, count_message(policy, demand))
        return Decision(number, Reason.AT_MAXIMUM, message, history)
    message = f"the HorizontalPodAutoscaler asks for {number} ({count_message(policy, demand)})"
    return Decision(number, Reason.ASKED, message, history)


def agree(driver: Driver, decided: int, asked: int | None, *, paused: bool) -> int | None:
    """What ``spec.replicas`` should say once ``decided`` is; None is nothing at all.

    It belongs to others. The operator fills it in where it says nothing, as the scale subresource
    needs, changes it to wake a sleeping HorizontalPodAutoscaler and to send it to sleep, and takes it
    away where nobody would heed it. While the worker is paused it is left alone.
    """
    if paused:
        return asked
    if driver is Driver.OPERATOR:
        return None
    return decided if driver is Driver.HPA or asked is None else asked
