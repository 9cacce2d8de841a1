"""How many replicas a worker should have: pure functions on plain values."""

from django_task_operator.scaling.decision import (
    Decision,
    Demand,
    History,
    Policy,
    Reason,
    decide,
    hold,
)
from django_task_operator.scaling.drivers import agree, follow, share
from django_task_operator.scaling.victims import VICTIM_COST, Candidate, ScaleIn, plan

__all__ = [
    "VICTIM_COST",
    "Candidate",
    "Decision",
    "Demand",
    "History",
    "Policy",
    "Reason",
    "ScaleIn",
    "agree",
    "decide",
    "follow",
    "hold",
    "plan",
    "share",
]
