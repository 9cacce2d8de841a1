"""Driver External: whoever writes ``spec.replicas`` decides, by ``kubectl scale`` for instance.

Its decisions enter the history as what was wanted, so that a worker whose driver is changed scales
nothing in before its delay is over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from django_task_operator.scaling.decision import Decision, Reason
from django_task_operator.scaling.drivers.driver import ScalingDriver

if TYPE_CHECKING:
    from django_task_operator.scaling.decision import Situation


def decide_external(situation: Situation) -> Decision:
    """Decide the replicas: those that ``spec.replicas`` asks for.

    While nobody has asked, they are those that there are, so that a change of the driver ends no pod,
    and at least the one that is the default.
    """
    asked = max(1, situation.current) if situation.asked is None else situation.asked
    why = f"spec.replicas asks for {asked}"
    return Decision(situation.current, asked, Reason.ASKED, why, situation.wanting(asked))


EXTERNAL = ScalingDriver(
    decide=decide_external,
    # Filled in to begin with, as the scale subresource needs it, and otherwise left to others.
    write=lambda decided, asked: decided if asked is None else asked,
    children=lambda _worker: [],
    needs_demand=False,
)
