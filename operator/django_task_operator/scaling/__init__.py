"""How many replicas a worker should have, and which pods to remove: pure functions on plain values.

In comes a Situation: the worker's policy, its tasks and their pace, and what was recently wanted. The
worker's driver (``drivers/``) turns it into a Decision, with a reason and a message for people; what a
latency target needs is in ``prediction.py``, from the estimate of ``pace.py``. If there are to be fewer pods,
``victims.py`` chooses the pods to remove, and says how far the replicas can be reduced now.
"""

from django_task_operator.scaling.decision import (
    Decision,
    Demand,
    History,
    Policy,
    Reason,
    Situation,
    give_way,
    hold,
)
from django_task_operator.scaling.drivers import (
    DRIVERS,
    ScalingDriver,
    decide,
    decide_external,
    decide_hpa,
    decide_operator,
)
from django_task_operator.scaling.pace import Pace, Reading, follow
from django_task_operator.scaling.victims import (
    NO_MARKS,
    VICTIM_COST,
    Candidate,
    Marks,
    ScaleIn,
    choose_victims,
    held_up,
    stale_marks,
    with_busy_kept,
)

__all__ = [
    "DRIVERS",
    "NO_MARKS",
    "VICTIM_COST",
    "Candidate",
    "Decision",
    "Demand",
    "History",
    "Marks",
    "Pace",
    "Policy",
    "Reading",
    "Reason",
    "ScaleIn",
    "ScalingDriver",
    "Situation",
    "choose_victims",
    "decide",
    "decide_external",
    "decide_hpa",
    "decide_operator",
    "follow",
    "give_way",
    "held_up",
    "hold",
    "stale_marks",
    "with_busy_kept",
]
