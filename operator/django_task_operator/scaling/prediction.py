"""How many replicas a latency target needs: pure functions on plain values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from django_task_operator.scaling.decision import Demand, Policy
    from django_task_operator.scaling.pace import Pace

# While the oldest task waits, less time is left for those behind it, but never less than this part of the
# target: a few tasks of a low priority that wait for ever must not ask for any number of pods.
LEAST_TIME = 0.1
# Replicas are kept if this part more than what is needed would need them: the estimate is never quite steady.
MARGIN = 0.05
# The smallest number of replicas with a difference that arithmetic alone can make.
_ROUNDING = 1e-9
_HOUR = 3600
# Less than one task in a day is none.
_LEAST_RATE = 1 / (24 * _HOUR)
_FORMAT = ".1f"


@dataclass(frozen=True, slots=True)
class Need:
    """The replicas that a latency target needs, before the bounds.

    Args:
        replicas: how many.
        most: how many it takes before fewer are worth a change.
        words: what it was made from, for people.
    """

    replicas: int
    most: int
    words: str


def predict(policy: Policy, demand: Demand, pace: Pace, by_count: int) -> Need:
    """Return what ``policy``'s target needs: from the measured pace, or while there is none, by count.

    Args:
        policy: the worker's settings, with a target above 0.
        demand: its tasks.
        pace: the estimate.
        by_count: the replicas for the number of tasks alone.
    """
    if not demand.tasks:
        return Need(0, 0, "no tasks")
    duration = pace.duration
    if duration is None:
        return _without_duration(policy, demand, pace, by_count)
    if demand.ready >= policy.limit:
        words = f"{policy.limit} or more ready, which are too many to predict from; {_target(policy)}"
        return Need(policy.max_replicas, policy.max_replicas, words)
    busy = pace.busy_slots(policy.slots)
    slots = _slots(policy, demand, duration, pace.load)
    words = _words(policy, demand, duration, pace.load, busy)
    # A few short tasks may need less than the smallest difference, and still one replica.
    replicas, most = (max(1, _ceil(part * slots / busy)) for part in (1, 1 + MARGIN))
    return Need(replicas, most, words)


def _slots(policy: Policy, demand: Demand, duration: float, load: float) -> float:
    """Return the slots that keep up with the arrivals, and start all that waits in the time that is left.

    In that time, each slot can start ``left / duration`` tasks after the one that it runs first, so ``slots``
    can have begun ``slots * (1 + left / duration)`` of those that run or wait now. New tasks come after them.
    """
    left = _time_left(policy, demand)
    return max(load, demand.tasks * duration / (duration + left))


def _time_left(policy: Policy, demand: Demand) -> float:
    target = policy.target_latency_seconds
    return max(target - demand.oldest_ready_seconds, LEAST_TIME * target)


def _without_duration(policy: Policy, demand: Demand, pace: Pace, by_count: int) -> Need:
    """Return the replicas by count, and more in proportion while the target is missed.

    The running tasks are known to take longer than they have already been running.
    """
    target, oldest = policy.target_latency_seconds, demand.oldest_ready_seconds
    # A pod without a task to run would not speed anything up.
    most = math.ceil(demand.tasks / policy.slots)
    late = math.ceil(max(by_count, demand.running / policy.slots) * oldest / target) if demand.ready else 0
    long = _ceil(_slots(policy, demand, pace.running_for, 0.0) / policy.slots)
    # ``by_count`` may be less than what runs: tasksPerReplica is higher than the slots of a pod.
    late, long = min(most, late), min(most, long)
    replicas = max(by_count, math.ceil(demand.running / policy.slots), late, long)
    words = f"{demand.ready} ready and {demand.running} running, {policy.tasks_per_replica} per replica"
    if late == replicas > by_count:
        words = f"{demand.ready} ready, the oldest for {oldest:.0f} s"
    elif long == replicas > by_count and pace.running_for:
        words = f"{demand.ready} ready, the running ones for {pace.running_for:.0f} s so far"
    return Need(replicas, replicas, f"{words}, {_target(policy)}; no task's duration is measured yet")


def _words(policy: Policy, demand: Demand, duration: float, load: float, busy: float) -> str:
    arriving, served = load / duration, busy / duration
    return f"{demand.ready} ready, {_rate(arriving)} arriving, {_rate(served)} per replica, {_target(policy)}"


def _target(policy: Policy) -> str:
    return f"target {policy.target_latency_seconds:g} s"


def _rate(per_second: float) -> str:
    """Describe a rate, in the first unit in which it is one at least."""
    if per_second < _LEAST_RATE:
        return "0 tasks/s"
    for seconds, unit in ((1, "tasks/s"), (60, "tasks/min")):
        if per_second * seconds >= 1:
            return f"{per_second * seconds:{_FORMAT}} {unit}"
    return f"{per_second * _HOUR:{_FORMAT}} tasks/h"


def _ceil(number: float) -> int:
    return math.ceil(number - _ROUNDING)
