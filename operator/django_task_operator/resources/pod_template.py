"""Builds the pod template of a worker, merged with the user's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django_task_operator.resources import database, runtime
from django_task_operator.resources.labels import object_labels, selector_labels
from django_task_operator.resources.merge import merge

if TYPE_CHECKING:
    from django_task_operator.resources.runtime import RuntimeSource
    from django_task_operator.spec import Manifest, WorkerSpec

CONTAINER = "worker"

_CONTAINER_SECURITY: Manifest = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def build_pod_template(name: str, spec: WorkerSpec, source: RuntimeSource) -> Manifest:
    """Build the template; ``source`` says what runtime Injected is copied from, and who runs it."""
    annotations, for_pod, for_container = runtime.injection(spec, source, _CONTAINER_SECURITY)
    volumes, mounts = database.volumes(spec.database)
    if volumes:
        for_pod = {**for_pod, "volumes": [*for_pod.get("volumes", ()), *volumes]}
        for_container = {**for_container, "volumeMounts": [*for_container.get("volumeMounts", ()), *mounts]}
    built: Manifest = {
        "metadata": {"labels": object_labels(name)},
        "spec": {
            "containers": [{**_container(spec), **for_container}],
            # Tasks that need the Kubernetes API say so in podTemplate.
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": spec.termination_grace_period_seconds,
            "securityContext": {
                "runAsNonRoot": True,
                **({} if source.run_as_user is None else {"runAsUser": source.run_as_user}),
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            **for_pod,
        },
    }
    if annotations:
        built["metadata"]["annotations"] = annotations
    if spec.image_pull_secrets:
        built["spec"]["imagePullSecrets"] = list(spec.image_pull_secrets)
    overlay = {"metadata": spec.pod_template.metadata, "spec": spec.pod_template.spec}
    merged: Manifest = merge(built, overlay)
    _set_copy_resources(merged["spec"], spec)
    _set_sidecars(merged["spec"])
    # The Deployment selects its pods by these labels, whatever the user's labels say.
    merged["metadata"]["labels"] |= selector_labels(name)
    return merged


def _set_copy_resources(pod: Manifest, spec: WorkerSpec) -> None:
    """Give the container that copies the runtime the worker's resources, unless the user sets others.

    Then any quota or LimitRange that admits the worker also admits this container: if the worker has none,
    both get the defaults of the LimitRange, which no values of ours could be sure to meet. It costs nothing:
    init containers run before the others, so a pod's effective request is the highest of any init container
    only if that is more than the sum of the other containers.
    """
    users = spec.pod_template.spec.get("initContainers")
    if any(each.get("name") == runtime.INJECTION and "resources" in each for each in users or ()):
        return
    (worker,) = [each for each in pod["containers"] if each["name"] == CONTAINER]
    resources = worker.get("resources") or {}
    # Without claims: copying files needs no device.
    wanted = {field: resources[field] for field in ("requests", "limits") if resources.get(field)}
    for container in pod.get("initContainers", ()) if wanted else ():
        if container["name"] == runtime.INJECTION:
            container["resources"] = wanted


def _set_sidecars(pod: Manifest) -> None:
    """Make every additional container a Kubernetes sidecar (1.29 and newer).

    For example, a database proxy then starts before the worker and stops after it, so that a task that
    finishes within the grace period still has its database, and the proxy does not keep a Job running.
    """
    sidecars = [
        {**each, "restartPolicy": "Always"} for each in pod["containers"] if each["name"] != CONTAINER
    ]
    if sidecars:
        pod["containers"] = [each for each in pod["containers"] if each["name"] == CONTAINER]
        pod["initContainers"] = [*(pod.get("initContainers") or ()), *sidecars]


def _container(spec: WorkerSpec) -> Manifest:
    container: Manifest = {
        "name": CONTAINER,
        "image": spec.image,
        "imagePullPolicy": spec.image_pull_policy,
        "command": runtime.command(spec),
        "env": _environment(spec),
        # Copies the end of a crashed worker's log to the pod's status, where people look.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": _CONTAINER_SECURITY,
        **runtime.probes(spec),
    }
    if spec.working_dir:
        container["workingDir"] = spec.working_dir
    if spec.env_from:
        container["envFrom"] = list(spec.env_from)
    if spec.resources:
        container["resources"] = spec.resources
    return container


def _environment(spec: WorkerSpec) -> list[Manifest]:
    environment = [*runtime.environment(spec), *database.environment(spec.database)]
    merged: list[Manifest] = merge(environment, list(spec.env), key="env")
    return merged
