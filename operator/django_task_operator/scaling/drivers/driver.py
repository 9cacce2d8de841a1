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
        write: what ``spec.replicas`` should say, given what was decided and what it says; None is nothing.
        children: builds the objects that a worker has beside its Deployment because of this driver.
        needs_demand: whether nothing can be decided before the tasks have been counted.
    """

    decide: Callable[[Situation], Decision]
    write: Callable[[int, int | None], int | None]
    children: Callable[[Worker], list[Manifest]]
    needs_demand: bool
