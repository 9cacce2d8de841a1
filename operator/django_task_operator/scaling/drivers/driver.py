"""What a scaling driver is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from django_task_operator.scaling.decision import Decision, Situation
    from django_task_operator.spec import Manifest, Worker


@dataclass(frozen=True, slots=True)
class ScalingDriver:
    """A value of ``spec.scaling.driver``: who decides the number of replicas, and what follows from it.

    Args:
        decide: decides the replicas.
        write: the value for ``spec.replicas``, given the decision and the current value; None removes it.
        children: builds the objects that this driver adds to the worker's Deployment.
        needs_demand: whether the tasks must have been counted before anything can be decided.
    """

    decide: Callable[[Situation], Decision]
    write: Callable[[int, int | None], int | None]
    children: Callable[[Worker], list[Manifest]]
    needs_demand: bool
