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

__all__ = ["Decision", "Demand", "History", "Policy", "Reason", "decide", "hold"]
