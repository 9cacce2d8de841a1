"""Which ``db_worker`` a worker's pods run, and what each runtime needs in the pod.

``Stock`` is django-tasks-db's own command. ``Injected`` and ``Image`` are this project's
(``worker-image/django_db_worker``): the former is copied into the pod from the worker image, the latter
is already in the user's image.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from django_task_operator.spec import Runtime

if TYPE_CHECKING:
    from django_task_operator.spec import Manifest, WorkerSpec

# Where the package is in the worker image, and where it is in the pods: not on PYTHONPATH, so that nothing
# else in the user's image sees it.
_IN_WORKER_IMAGE = "/opt/django-db-worker"
_IN_POD = "/django-db-worker"
_LAUNCHER = f"{_IN_POD}/django_db_worker"
# The name of the volume, and of the container that fills it.
INJECTION = "django-db-worker"

# Any user but root: images are mostly built as root and readable by all, and a number lets the
# kubelet check runAsNonRoot where the image only names its user. podTemplate can say another.
RUN_AS_USER = 1000

HEALTH_PORT = 8090
# How long Stock's clean-up keeps results if the spec does not say: as long as the other runtimes.
STOCK_DAYS = 30
# The variables that tell a worker who it is. Other commands do not use them.
WORKER_VARIABLES = frozenset({"DB_WORKER_ID", "DB_WORKER_HEALTH_PORT"})

HASH_ANNOTATION = "djangotasks.dev/runtime-hash"


@dataclass(frozen=True, slots=True)
class RuntimeSource:
    """What pods get from the operator instead of their worker's spec.

    Args:
        image: the worker image, from which runtime Injected is copied.
        revision: distinguishes two images of the same name.
        run_as_user: the user that pods run as; None leaves it to the platform, or else to the image.
        recorded_hash: the hash of a runtime that is only known from a Deployment; empty: see ``hash``.
    """

    image: str
    revision: str = ""
    run_as_user: int | None = RUN_AS_USER
    recorded_hash: str = ""

    @property
    def hash(self) -> str:
        """A hash that changes with the runtime, so that a rollout is never missed under the same name."""
        made = hashlib.sha256(f"{self.image} {self.revision}".encode()).hexdigest()[:12]
        return self.recorded_hash or made

    @property
    def words(self) -> str:
        """The runtime, for people."""
        return f"{self.image} (revision {self.revision})" if self.revision else self.image


def command(spec: WorkerSpec) -> list[str]:
    """Build the argument vector of the worker container."""
    prefix = _prefix(spec)
    if spec.prodserver:
        return [*prefix, "worker", spec.prodserver.process]
    flags = {
        "--queue-name": ",".join(spec.queues),
        "--exclude-queues": ",".join(spec.exclude_queues),
        "--backend": spec.backend,
        "--interval": f"{spec.interval_seconds:g}",
        "--max-tasks": str(spec.max_tasks or ""),
        "--task-timeout": str(spec.task_timeout_seconds or ""),
        "--max-memory-per-process": spec.max_memory_per_process,
        # Without the option, TASKS_LOG_LEVEL in the project's settings applies.
        "--verbosity": str(spec.verbosity) if spec.verbosity != 1 else "",
    }
    if spec.runtime is Runtime.STOCK:
        # The row of a running task names the pod that runs it.
        flags["--worker-id"] = "$(POD_NAME)"
    else:
        flags |= {"--processes": str(spec.processes), "--threads": str(spec.threads)}
    # With settings.DEBUG, upstream reloads when code changes, which interrupts tasks.
    return [
        *prefix,
        "db_worker",
        "--no-reload",
        *(f"{flag}={value}" for flag, value in flags.items() if value),
    ]


def cleanup_command(spec: WorkerSpec) -> list[str]:
    """Build the argument vector that prunes the finished results of the worker's queues."""
    days = spec.cleanup.older_than_days
    if spec.runtime is Runtime.STOCK:
        # Upstream reads no setting, and its own default is 14 days.
        days = STOCK_DAYS if days is None else days
        name, flags = "prune_db_task_results", {"--min-age-days": str(days)}
    else:
        # Without days, the project's TASKS_RESULT_EXPIRATION_DAYS applies.
        name, flags = "cleanup_tasks", {"--days": "" if days is None else str(days)}
    flags |= {
        "--backend": spec.backend,
        "--queue-name": ",".join(spec.queues),
        "--exclude-queues": ",".join(spec.exclude_queues),
    }
    return [*_prefix(spec), name, *(f"{flag}={value}" for flag, value in flags.items() if value)]


def setup_command(spec: WorkerSpec) -> list[str]:
    """Build the argument vector that sets up the task table, which runtime Stock does not have."""
    return [*_prefix(spec), "db_worker_setup"]


def environment(spec: WorkerSpec) -> list[Manifest]:
    """Build the variables that tell the worker who it is.

    This project's runtimes read them if the options are missing: prodserver's ARGS cannot contain a pod's
    name.
    """
    pod_name = {"valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    variables: list[Manifest] = [{"name": "POD_NAME", **pod_name}]
    if spec.runtime is not Runtime.STOCK:
        variables += [
            {"name": "DB_WORKER_ID", **pod_name},
            {"name": "DB_WORKER_HEALTH_PORT", "value": str(HEALTH_PORT)},
        ]
    return variables


def probes(spec: WorkerSpec) -> Manifest:
    """Build the worker container's probes, for runtimes that support them."""
    if spec.runtime is Runtime.STOCK:
        return {}
    return {
        "ports": [{"name": "health", "containerPort": HEALTH_PORT}],
        # Two minutes, for projects that take long to import.
        "startupProbe": _probe("/healthz", period=1, failures=120),
        "livenessProbe": _probe("/healthz", period=10, failures=3),
        "readinessProbe": _probe("/readyz", period=5, failures=2),
    }


def injection(
    spec: WorkerSpec, source: RuntimeSource, security_context: Manifest
) -> tuple[Manifest, Manifest, Manifest]:
    """Build what injects the runtime: annotations, fields of the pod's spec, and fields of the container."""
    if spec.runtime is not Runtime.INJECTED:
        return {}, {}, {}
    mount = {"name": INJECTION, "mountPath": _IN_POD}
    copy: Manifest = {
        "name": INJECTION,
        "image": source.image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["cp", "-r", f"{_IN_WORKER_IMAGE}/.", _IN_POD],
        "securityContext": security_context,
        "volumeMounts": [mount],
    }
    pod = {
        "initContainers": [copy],
        "volumes": [{"name": INJECTION, "emptyDir": {"sizeLimit": "16Mi"}}],
    }
    return {HASH_ANNOTATION: source.hash}, pod, {"volumeMounts": [{**mount, "readOnly": True}]}


def _prefix(spec: WorkerSpec) -> list[str]:
    *interpreter, script = spec.manage_py
    return [*interpreter, _LAUNCHER, script] if spec.runtime is Runtime.INJECTED else [*interpreter, script]


def _probe(path: str, *, period: int, failures: int) -> Manifest:
    return {
        "httpGet": {"path": path, "port": "health"},
        "periodSeconds": period,
        "failureThreshold": failures,
        "timeoutSeconds": 5,
    }
