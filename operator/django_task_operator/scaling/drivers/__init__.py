"""Who decides the replicas: one file for each value of ``spec.scaling.driver``.

A driver's file contains its decision and the messages that explain it, what it does with ``spec.replicas``,
and the objects that a worker has because of it. A new driver needs a file, a line in ``DRIVERS``, a value in
``spec.Driver`` and in the CRD's enum, and a paragraph in ``docs/scaling-with-the-hpa.md``.
"""

from django_task_operator.scaling.decision import Decision, Situation, pause
from django_task_operator.scaling.drivers.driver import ScalingDriver
from django_task_operator.scaling.drivers.external import EXTERNAL, decide_external
from django_task_operator.scaling.drivers.hpa import HPA, decide_hpa
from django_task_operator.scaling.drivers.operator import OPERATOR, decide_operator
from django_task_operator.spec import Driver

DRIVERS = {Driver.OPERATOR: OPERATOR, Driver.HPA: HPA, Driver.EXTERNAL: EXTERNAL}


def decide(driver: Driver, situation: Situation, *, paused: bool) -> tuple[Decision, int | None]:
    """Decide the replicas and the value for ``spec.replicas``; None removes the field."""
    if paused:
        return pause(situation), situation.asked
    decision = DRIVERS[driver].decide(situation)
    return decision, DRIVERS[driver].write(decision.replicas, situation.asked)


__all__ = ["DRIVERS", "ScalingDriver", "decide", "decide_external", "decide_hpa", "decide_operator"]
