"""Which objects a worker has beside its Deployment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django_task_operator.resources.cleanup import build_cleanup
from django_task_operator.resources.disruption import build_disruption_budget
from django_task_operator.resources.hpa import build_autoscaler
from django_task_operator.spec import Driver

if TYPE_CHECKING:
    from django_task_operator.resources.runtime import RuntimeSource
    from django_task_operator.spec import Manifest, Worker


def build_children(worker: Worker, source: RuntimeSource) -> list[Manifest]:
    """Build every one that the worker's spec calls for; what is not among them is deleted."""
    children = [build_disruption_budget(worker)]
    if worker.spec.scaling.driver is Driver.HPA:
        children.append(build_autoscaler(worker))
    if worker.spec.cleanup.schedule:
        children.append(build_cleanup(worker, source))
    return children
