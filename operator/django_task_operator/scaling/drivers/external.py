"""Driver External: whoever writes ``spec.replicas`` decides, for example with ``kubectl scale``.

Its decisions are added to the history, so that after a change of the driver no pods are removed before the
scale-down delay is over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from django_task_operator.scaling.decision import Decision, Reason
from django_task_operator.scaling.drivers.driver import ScalingDriver

if TYPE_CHECKING:
    from django_task_operator.scaling.decision import Situation


def decide_external(situation: Situation) -> Decision:
    """Decide the replicas: the value of ``spec.replicas``.

    Until it is set, the current number is kept, so that a change of the driver removes no pods, but at least
    one pod, the default.
    """
    asked = max(1, situation.current) if situation.asked is None else situation.asked
    why = f"spec.replicas asks for {asked}"
    return Decision(situation.current, asked, Reason.ASKED, why, situation.wanting(asked))


EXTERNAL = ScalingDriver(
    decide=decide_external,
    # Filled in at first, because the scale subresource needs it, and otherwise left to others.
    write=lambda decided, asked: decided if asked is None else asked,
    children=lambda _worker: [],
    needs_demand=False,
)
