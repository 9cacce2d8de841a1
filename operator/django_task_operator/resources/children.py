"""Which objects a worker has beside its Deployment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django_task_operator.resources.disruption import build_disruption_budget

if TYPE_CHECKING:
    from django_task_operator.spec import Manifest, Worker


def build_children(worker: Worker) -> list[Manifest]:
    """Build every one that the worker's spec calls for; what is not among them is deleted."""
    return [build_disruption_budget(worker)]
