"""What the reliability benchmarks share: tasks that take a known time, and which pods ran them."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from benchmarks import cluster
from django_task_operator.cluster.kube import PODS, Kube

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# One that the image knows.
QUEUE = "default"
NAME = "sleepers"

# The pods import it from a folder next to the image's project.
MODULE = """
import time

from django.tasks import task


@task
def sleep(seconds):
    time.sleep(seconds)
"""


def deploy(namespace: str, *, spec: dict[str, Any], **scaling: Any) -> None:
    """Create a worker whose pods can run ``sleep``."""
    manifest = cluster.worker(namespace, NAME, QUEUE, **scaling)
    manifest["spec"] |= {"env": [{"name": "PYTHONPATH", "value": "/sleepers"}], **spec}
    manifest["spec"]["podTemplate"]["spec"] = {
        "containers": [{"name": "worker", "volumeMounts": [{"name": "sleepers", "mountPath": "/sleepers"}]}],
        "volumes": [{"name": "sleepers", "configMap": {"name": "sleepers"}}],
    }
    module = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "sleepers", "namespace": namespace},
        "data": {"sleepers.py": MODULE},
    }
    cluster.apply(module, manifest)


def patch(namespace: str, **spec: object) -> None:
    """Change fields of the worker's spec."""
    change = json.dumps({"spec": spec})
    cluster.run("kubectl", "patch", "djtw", NAME, "-n", namespace, "--type=merge", "--patch", change)


class Sleepers(cluster.Tasks):
    """Rows of ``sleep``."""

    def put(self, seconds: Iterable[float]) -> float:
        """Commit a task for each of these; return the time of the commit."""
        rows: list[Any] = [
            self._rows(
                args_kwargs={"args": [each], "kwargs": {}},
                task_path="sleepers.sleep",
                queue_name=QUEUE,
                backend_name="default",
                run_after=self._now(),
            )
            for each in seconds
        ]
        self._rows.objects.bulk_create(rows)
        return time.time()

    def polled(self, since: float) -> bool:
        """Whether a statement of the operator's has begun since then, by the same clock, and ended."""
        from django.db import connection

        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'django-task-operator'"
                " AND state = 'idle' AND query_start > to_timestamp(%s)",
                [since],
            )
            return bool(cursor.fetchone()[0])

    def all(self) -> list[Any]:
        """Return every row."""
        return list(self._rows.objects.all())

    def wait(self, *, status: str, count: int, seconds: float) -> None:
        """Wait until that many rows have a status."""
        deadline = time.monotonic() + seconds
        while self._rows.objects.filter(status=status).count() < count:
            if time.monotonic() > deadline:
                raise SystemExit(f"not {count} {status} within {seconds:g} s")
            time.sleep(0.05)


@dataclass
class Pods:
    """Follows the worker's pods with a watch: their newest state, and when each was told to terminate."""

    namespace: str
    there: dict[str, dict[str, Any]] = field(default_factory=dict)
    told_to_go: dict[str, float] = field(default_factory=dict)
    told_dead: list[tuple[str, float]] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def follow(self, kube: Kube) -> None:
        """Follow until cancelled."""
        path = PODS.path(self.namespace)
        while True:
            async for kind, item in kube.list_and_watch(path, f"djangotasks.dev/worker={NAME}"):
                for pod in item["items"] if kind == "LIST" else [item]:
                    self._see(pod, gone=kind == "DELETED")

    async def until(self, count: Callable[[], object], seconds: float) -> None:
        """Wait until ``count`` returns something true, for at most ``seconds``."""
        async with asyncio.timeout(seconds):
            while not count():
                self.changed.clear()
                await self.changed.wait()

    def first_told_dead(self, name: str, since: float) -> float:
        """Return when a pod, or its container, was first reported gone after a given time."""
        return min(at for pod, at in self.told_dead if pod == name and at >= since)

    def ready(self) -> list[dict[str, Any]]:
        """Return the pods that are ready and not terminating."""
        return [
            pod
            for name, pod in self.there.items()
            if name not in self.told_to_go
            and _container(pod)
            and any(
                c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", ())
            )
        ]

    def _see(self, pod: dict[str, Any], *, gone: bool) -> None:
        name = pod["metadata"]["name"]
        if gone or _container(pod) != _container(self.there.get(name, pod)):
            self.told_dead.append((name, time.time()))
        self.there[name] = pod
        if gone or "deletionTimestamp" in pod["metadata"]:
            self.told_to_go.setdefault(name, time.time())
        if gone:
            del self.there[name]
        self.changed.set()


def _container(pod: dict[str, Any]) -> str | None:
    """Return the running container, if there is one."""
    for status in pod["status"].get("containerStatuses", ()):
        if "running" in status["state"]:
            return str(status["containerID"])
    return None
