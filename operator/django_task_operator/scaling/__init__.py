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

__all__ = [
    "Decision",
    "Demand",
    "History",
    "Policy",
    "Reason",
    "agree",
    "decide",
    "follow",
    "hold",
    "share",
]
