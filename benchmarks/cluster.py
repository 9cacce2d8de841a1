"""What the benchmarks in the cluster share: a database next to the node, workers, and a stopwatch."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import time
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
KUBECONFIG = ROOT / "build" / "kubeconfig"
OPERATOR_NAMESPACE = "django-task-operator"

type Manifest = dict[str, Any]


def run(*command: str, stdin: str | None = None) -> str:
    """Run a command of build/bin or of the system, and return what it prints."""
    environment = {**os.environ, "KUBECONFIG": str(KUBECONFIG)}
    environment["PATH"] = f"{ROOT / 'build' / 'bin'}:{environment['PATH']}"
    done = subprocess.run(command, input=stdin, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def apply(*manifests: Manifest) -> None:
    """Apply manifests; kubectl also accepts JSON."""
    items = {"apiVersion": "v1", "kind": "List", "items": manifests}
    run("kubectl", "apply", "-f", "-", stdin=json.dumps(items))


def figures() -> dict[str, float]:
    """Read the metrics of the operator's pod through the API server."""
    pod = run(
        *("kubectl", "get", "pod", "-n", OPERATOR_NAMESPACE),
        *("-l", "app.kubernetes.io/name=django-task-operator", "--field-selector=status.phase=Running"),
        *("-o", "jsonpath={.items[0].metadata.name}"),
    )
    path = f"/api/v1/namespaces/{OPERATOR_NAMESPACE}/pods/{pod}:8080/proxy/metrics"
    lines = run("kubectl", "get", "--raw", path).splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}


def listed(what: str, namespace: str) -> list[Manifest]:
    """List the objects of a kind in a namespace."""
    found: list[Manifest] = json.loads(run("kubectl", "get", what, "-n", namespace, "-o", "json"))["items"]
    return found


async def until(probe: Callable[[], object], what: str, *, seconds: float) -> None:
    """Wait until ``probe``, which runs in a thread, is true; give up after so many seconds."""
    deadline = time.monotonic() + seconds
    while not await asyncio.to_thread(probe):
        if time.monotonic() > deadline:
            raise SystemExit(f"not within {seconds:g} s: {what}")
        await asyncio.sleep(0.2)


@contextmanager
def postgres() -> Iterator[str]:
    """Start a PostgreSQL server that both the host and the pods can reach; yield its URL.

    It is outside the cluster, so that its load does not slow down the operator's node.
    """
    password = uuid.uuid4().hex
    settings = {"POSTGRES_USER": "benchmark", "POSTGRES_PASSWORD": password, "POSTGRES_DB": "benchmark"}
    container = run(
        *("docker", "run", "--detach", "--rm", "--network=kind", "--shm-size=1g"),
        *(f"--env={name}={value}" for name, value in settings.items()),
        *("django-task-postgres:dev", "-c", "fsync=off"),
    ).strip()
    try:
        network = json.loads(run("docker", "inspect", container))[0]["NetworkSettings"]["Networks"]["kind"]
        yield f"postgres://benchmark:{password}@{network['IPAddress']}:5432/benchmark"
    finally:
        run("docker", "kill", container)


@contextmanager
def namespace(url: str) -> Iterator[str]:
    """Create a namespace with the database's Secret; it is deleted in the background."""
    name = f"benchmark-{uuid.uuid4().hex[:6]}"
    apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}},
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "database", "namespace": name},
            "stringData": {"DATABASE_URL": url, "SECRET_KEY": "benchmark"},
        },
    )
    try:
        yield name
    finally:
        run("kubectl", "delete", "namespace", name, "--wait=false")


def worker(namespace: str, name: str, queue: str, *, schedulable: bool = True, **scaling: object) -> Manifest:
    """Build a DjangoTaskWorker with the example's image.

    Its pods can be made unschedulable, so that they cost nothing in benchmarks of the operator's writes.
    """
    return {
        "apiVersion": "djangotasks.dev/v1alpha1",
        "kind": "DjangoTaskWorker",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "image": "shop:dev",
            "queues": [queue],
            "database": {"urlSecretRef": {"name": "database"}},
            "envFrom": [{"secretRef": {"name": "database"}}],
            "scaling": {"scaleDownDelaySeconds": 0, **scaling},
            "podTemplate": {"spec": {} if schedulable else {"nodeSelector": {"benchmark": "none"}}},
        },
    }


class Tasks:
    """The task table, through the model of django-tasks-db."""

    def __init__(self, url: str) -> None:
        """Migrate the database, as soon as it answers."""
        import dj_database_url
        import django
        from django.conf import settings
        from django.core.management import call_command
        from django.db import OperationalError, connection

        settings.configure(
            INSTALLED_APPS=["django_tasks_db"], DATABASES={"default": dj_database_url.parse(url)}, USE_TZ=True
        )
        django.setup()
        for _ in range(100):
            try:
                connection.ensure_connection()
                break
            except OperationalError:
                time.sleep(0.2)
        call_command("migrate", verbosity=0)
        from django_tasks_db.models import DBTaskResult, get_date_max

        self._rows, self._now = DBTaskResult, get_date_max

    def enqueue(self, queue: str, count: int) -> float:
        """Commit ``count`` ready rows at once; return the time of the commit."""
        rows: list[Any] = [
            self._rows(
                args_kwargs={"args": [], "kwargs": {}},
                task_path="orders.tasks.nothing",
                queue_name=queue,
                backend_name="default",
                run_after=self._now(),
            )
            for _ in range(count)
        ]
        self._rows.objects.bulk_create(rows)
        return time.time()

    def clear(self) -> None:
        """Delete every row, as if all were done."""
        self._rows.objects.all()._raw_delete("default")  # noqa: SLF001 - no cascade, no million objects


def table(title: str, header: list[str], rows: list[list[str]]) -> str:
    """Write a Markdown table under a heading."""
    lines = [f"## {title}", "", _row(header), _row(["---"] * len(header)), *map(_row, rows), ""]
    return "\n".join(lines)


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
