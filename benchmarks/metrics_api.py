"""How fast an HPA gets a metric, with 100 workers: ``make bench-metrics-api``.

Measured through the API server, as an HPA requests it, and directly at the operator, as the API server does.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import ssl
import statistics
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp

from benchmarks import cluster, footprint

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

WORKERS = 100
METRIC = "django_tasks_demand"
SERVICE = "django-task-operator-metrics-api"
HPA = "system:serviceaccount:kube-system:horizontal-pod-autoscaler"
# Kubernetes' HPA controller processes five at a time.
CONCURRENT = 5


@dataclass(frozen=True)
class Target:
    """A server to send requests to."""

    name: str
    url: str
    context: ssl.SSLContext
    headers: dict[str, str]
    server_hostname: str | None = None


@dataclass
class Times:
    """How long the responses took."""

    seconds: list[float] = field(default_factory=list)

    def row(self, name: str, concurrent: int) -> list[str]:
        """One line of the table."""
        cuts = statistics.quantiles(self.seconds, n=100)
        figures = [f"{1000 * cuts[part - 1]:.1f}" for part in (50, 95, 99)]
        return [name, str(concurrent), str(len(self.seconds)), *figures, f"{1000 * max(self.seconds):.1f}"]


def _pem(text: str) -> str:
    return base64.b64decode(text).decode()


def _context(authority: str, pair: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=authority)
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(pair)
        file.flush()
        context.load_cert_chain(file.name)
    return context


def through_the_api_server() -> Target:
    """Yield the API server, with the HPA controller's name and permissions."""
    config: Any = json.loads(cluster.run("kubectl", "config", "view", "--raw", "--output=json"))
    server, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    pair = _pem(user["client-key-data"]) + _pem(user["client-certificate-data"])
    context = _context(_pem(server["certificate-authority-data"]), pair)
    return Target("through the API server", server["server"], context, {"Impersonate-User": HPA})


@contextmanager
def directly() -> Iterator[Target]:
    """Yield the operator behind a node's port, with the certificate of the cluster's front proxy."""
    node = cluster.run("kubectl", "get", "nodes", "--output=jsonpath={.items[0].metadata.name}")
    pki = "/etc/kubernetes/pki/front-proxy-client"
    pair = cluster.run("docker", "exec", node, "cat", f"{pki}.key", f"{pki}.crt")
    secret = json.loads(
        cluster.run("kubectl", "get", "secret", SERVICE, "-n", cluster.OPERATOR_NAMESPACE, "--output=json")
    )
    service = json.loads(
        cluster.run("kubectl", "get", "service", SERVICE, "-n", cluster.OPERATOR_NAMESPACE, "--output=json")
    )
    name = "benchmark-metrics-api"
    cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": cluster.OPERATOR_NAMESPACE},
            "spec": {
                "type": "NodePort",
                "selector": service["spec"]["selector"],
                "ports": [{"port": 443, "targetPort": "metrics-api"}],
            },
        }
    )
    try:
        where = ("-n", cluster.OPERATOR_NAMESPACE)
        port = cluster.run(
            "kubectl", "get", "service", name, *where, "-o", "jsonpath={.spec.ports[0].nodePort}"
        )
        address = '{.items[0].status.addresses[?(@.type=="InternalIP")].address}'
        host = cluster.run("kubectl", "get", "nodes", "-o", f"jsonpath={address}")
        yield Target(
            "the operator alone",
            f"https://{host}:{port}",
            _context(_pem(secret["data"]["ca.crt"]), pair),
            {"X-Remote-User": HPA},
            f"{SERVICE}.{cluster.OPERATOR_NAMESPACE}.svc",
        )
    finally:
        cluster.run("kubectl", "delete", "service", name, "-n", cluster.OPERATOR_NAMESPACE)


async def measure(target: Target, namespace: str, requests: int, concurrent: int) -> list[str]:
    """Request one worker after the other, over persistent connections; return a row of the table."""
    times, numbers = Times(), iter(range(requests))
    path = f"{target.url}/apis/external.metrics.k8s.io/v1beta1/namespaces/{namespace}/{METRIC}"
    connector = aiohttp.TCPConnector(ssl=target.context, limit=concurrent)
    async with aiohttp.ClientSession(connector=connector, headers=target.headers) as session:

        async def ask(number: int) -> float:
            query = {"labelSelector": f"worker=worker-{number % WORKERS}"}
            started = time.perf_counter()
            async with session.get(path, params=query, server_hostname=target.server_hostname) as answer:
                body = await answer.json()
            seconds = time.perf_counter() - started
            if answer.status != 200 or len(body["items"]) != 1:  # noqa: PLR2004
                raise SystemExit(f"{target.name}: {body}")
            return seconds

        async def client() -> None:
            for number in numbers:
                times.seconds.append(await ask(number))

        await _connected(lambda: ask(0))
        await asyncio.gather(*(ask(number) for number in range(concurrent)))
        before = (await asyncio.to_thread(footprint.usage)).cpu_seconds
        await asyncio.gather(*(client() for _ in range(concurrent)))
        spent = (await asyncio.to_thread(footprint.usage)).cpu_seconds - before
    return [*times.row(target.name, concurrent), f"{1000 * spent / requests:.1f}"]


async def _connected(ask: Callable[[], Awaitable[float]]) -> None:
    """Wait until a new node port accepts connections."""
    for _ in range(50):
        try:
            await ask()
        except aiohttp.ClientConnectorError:
            await asyncio.sleep(0.2)
        else:
            return


async def run(requests: int) -> str:
    """Set up the workers, send the requests, and return the table."""
    with cluster.postgres() as url, cluster.namespace(url) as namespace:
        tasks = await asyncio.to_thread(cluster.Tasks, url)
        for number in range(WORKERS):
            await asyncio.to_thread(tasks.enqueue, f"queue-{number}", 1 + number % 7)
        cluster.apply(
            *(
                cluster.worker(
                    namespace,
                    f"worker-{n}",
                    f"queue-{n}",
                    schedulable=False,
                    maxReplicas=10,
                    tasksPerReplica=1,
                )
                for n in range(WORKERS)
            )
        )
        path = f"/apis/external.metrics.k8s.io/v1beta1/namespaces/{namespace}/{METRIC}"
        await cluster.until(partial(_all_have_figures, path), "the figures come", seconds=120)
        # The workers' Deployments use the same API server: let them come to rest.
        await cluster.until(footprint.Quiet(), "the operator is at rest", seconds=120)
        await cluster.until(partial(_are_settled, namespace), "the Deployments are settled", seconds=120)
        with directly() as operator:
            rows = [
                await measure(target, namespace, requests, concurrent)
                for target in (operator, through_the_api_server())
                for concurrent in (1, CONCURRENT)
            ]
    return cluster.table(
        f"One figure of {WORKERS} workers on one database, 1 s poll, milliseconds",
        ["asked", "at a time", "requests", "p50", "p95", "p99", "max", "the operator's CPU for each"],
        rows,
    )


def _all_have_figures(path: str) -> bool:
    try:
        return len(json.loads(cluster.run("kubectl", "get", "--raw", path))["items"]) == WORKERS
    except SystemExit:
        return False


def _are_settled(namespace: str) -> bool:
    """Whether the Deployments' controller has nothing to do any more."""
    found = cluster.listed("deployments", namespace)
    return len(found) == WORKERS and all(
        each["status"].get("observedGeneration") == each["metadata"]["generation"]
        and each["status"].get("replicas", 0) == each["spec"]["replicas"]
        for each in found
    )


def main() -> None:
    """Print the table and store it in benchmarks/results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=3000)
    report = asyncio.run(run(parser.parse_args().requests))
    Path(cluster.RESULTS / "metrics-api.md").write_text(report)
    print(report)


if __name__ == "__main__":
    main()
