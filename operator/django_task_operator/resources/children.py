"""Which objects a worker has in addition to its Deployment, whatever its scaling driver is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django_task_operator.resources.cleanup import build_cleanup
from django_task_operator.resources.disruption import build_disruption_budget

if TYPE_CHECKING:
    from django_task_operator.resources.runtime import RuntimeSource
    from django_task_operator.spec import Manifest, Worker


def build_children(worker: Worker, source: RuntimeSource) -> list[Manifest]:
    """Build the objects that the worker's spec asks for; those of its driver are in ``scaling/drivers/``."""
    children = [build_disruption_budget(worker)]
    if worker.spec.cleanup.schedule:
        children.append(build_cleanup(worker, source))
    return children
