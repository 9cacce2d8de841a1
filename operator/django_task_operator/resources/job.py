"""Builds the Jobs of a worker: its pod, for a command that terminates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django_task_operator.resources import runtime
from django_task_operator.resources.labels import WORKER_LABEL, object_labels
from django_task_operator.resources.pod_template import build_pod_template

if TYPE_CHECKING:
    from collections.abc import Sequence

    from django_task_operator.resources.runtime import RuntimeSource
    from django_task_operator.spec import Manifest, Worker

# Fields for containers that run forever. A user's podTemplate may have any of them. (The API server refuses
# resizePolicy in init containers, and RestartContainer in a pod that restarts none.)
_OF_A_SERVER = (
    "args",
    "ports",
    "startupProbe",
    "livenessProbe",
    "readinessProbe",
    "lifecycle",
    "resizePolicy",
)

_DISRUPTED = {"type": "DisruptionTarget", "status": "True"}


def build_job_spec(
    worker: Worker,
    source: RuntimeSource,
    *,
    command: Sequence[str],
    before: tuple[str, Sequence[str]] | None = None,
    label: str,
    component: str,
    deadline_seconds: int,
) -> Manifest:
    """Build a Job's spec: ``command`` in the worker's pod, which ``label`` marks as a Job's.

    ``before`` is the name of an init container, and a command that has to succeed in it first.
    """
    return {
        "backoffLimit": 2,
        "activeDeadlineSeconds": deadline_seconds,
        # A drain is not a failure of the command.
        "podFailurePolicy": {"rules": [{"action": "Ignore", "onPodConditions": [_DISRUPTED]}]},
        # The next pod starts only after the previous one has ended: two at a time would conflict.
        "podReplacementPolicy": "Failed",
        "template": _template(worker, source, command, before, job_labels(worker.key.name, label, component)),
    }


def job_labels(worker_name: str, label: str, component: str) -> dict[str, str]:
    """Return the labels of a Job's pods: those of the worker, without the one that selects its pods."""
    labels = {**object_labels(worker_name), "app.kubernetes.io/component": component, label: worker_name}
    del labels[WORKER_LABEL]
    return labels


def _template(
    worker: Worker,
    source: RuntimeSource,
    command: Sequence[str],
    before: tuple[str, Sequence[str]] | None,
    labels: dict[str, str],
) -> Manifest:
    template = build_pod_template(worker.key.name, worker.spec, source)
    given = {name: value for name, value in template["metadata"]["labels"].items() if name != WORKER_LABEL}
    pod = template["spec"]
    (container,) = pod["containers"]
    changed: Manifest = {"containers": [_container(container, command)], "restartPolicy": "Never"}
    if before:
        name, earlier = before
        # The last one: the user's own, such as a database proxy, are there for it too.
        changed["initContainers"] = [
            *(pod.get("initContainers") or ()),
            {**_container(container, earlier), "name": name},
        ]
    return {
        "metadata": {**template["metadata"], "labels": given | labels},
        # A failed pod is kept, together with its log.
        "spec": {**pod, **changed},
    }


def _container(container: Manifest, command: Sequence[str]) -> Manifest:
    kept = {name: value for name, value in container.items() if name not in _OF_A_SERVER}
    env = [each for each in container["env"] if each["name"] not in runtime.WORKER_VARIABLES]
    return {**kept, "command": list(command), "env": env}
