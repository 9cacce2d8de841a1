"""From the commit of a burst to the Deployment's ``spec.replicas``: ``make bench-scaling``.

There are thirty bursts from zero, at random times between the operator's polls, bursts of 1,000 rows for 100
replicas, and bursts for a worker with driver HPA, which the operator scales from zero. KEDA 2.20.2 was
measured in the same cluster with the same bursts.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import time
from dataclasses import dataclass, field

from benchmarks import cluster
from django_task_operator.cluster.kube import DEPLOYMENTS, Kube

QUEUE = "bursts"


@dataclass
class Deployment:
    """Follows ``spec.replicas`` of the worker's Deployment with a watch."""

    namespace: str
    replicas: int = 0
    writes: list[tuple[float, int]] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def follow(self, kube: Kube) -> None:
        """Follow until cancelled."""
        path = DEPLOYMENTS.path(self.namespace)
        while True:
            async for kind, item in kube.list_and_watch(path, "djangotasks.dev/worker=bursts"):
                for deployment in item["items"] if kind == "LIST" else [item]:
                    if deployment["spec"]["replicas"] != self.replicas:
                        self.replicas = deployment["spec"]["replicas"]
                        self.writes.append((time.time(), self.replicas))
                        self.changed.set()

    async def reaches(self, replicas: int) -> float:
        """Wait for that many replicas, for at most a minute; return the time."""
        async with asyncio.timeout(60):
            while self.replicas != replicas:
                self.changed.clear()
                await self.changed.wait()
        return self.writes[-1][0] if self.writes else time.time()


async def bursts(
    kube: Kube, tasks: cluster.Tasks, namespace: str, driver: str, rows: int, count: int
) -> tuple[list[float], int]:
    """Measure ``count`` bursts; return their seconds and the highest number of writes for one."""
    target = rows // 10
    manifest = cluster.worker(
        namespace,
        "bursts",
        QUEUE,
        schedulable=False,
        driver=driver,
        maxReplicas=target,
        tasksPerReplica=10,
    )
    await asyncio.to_thread(cluster.apply, manifest)
    deployment = Deployment(namespace)
    following = asyncio.create_task(deployment.follow(kube))
    took, most_writes = [], 0
    try:
        for _ in range(count):
            await deployment.reaches(0)
            await asyncio.sleep(2 + random.random())
            deployment.writes.clear()
            committed = await asyncio.to_thread(tasks.enqueue, QUEUE, rows)
            took.append(await deployment.reaches(target) - committed)
            most_writes = max(most_writes, len(deployment.writes))
            await asyncio.to_thread(tasks.clear)
    finally:
        following.cancel()
    return took, most_writes


async def measure(count: int) -> str:
    """Run both series and return the table."""
    kube = await Kube.connect(str(cluster.KUBECONFIG))
    rows = []
    try:
        with cluster.postgres() as url, cluster.namespace(url) as namespace:
            tasks = await asyncio.to_thread(cluster.Tasks, url)
            for driver, size, repeat, keda, tuned in (
                ("Operator", 50, count, "16.4 / 29.6", "0.55 / 1.01"),
                ("Operator", 1000, max(5, count // 3), "102-115", "86"),
                ("HPA", 200, max(5, count // 3), "67-74", "35"),
            ):
                took, writes = await bursts(kube, tasks, namespace, driver, size, repeat)
                p50, p95 = statistics.median(took), statistics.quantiles(took, n=20)[-1]
                rows.append(
                    [
                        f"driver {driver}, {size:,} rows, 0 -> {size // 10}",
                        str(len(took)),
                        f"{p50:.2f}",
                        f"{p95:.2f}",
                        f"{max(took):.2f}",
                        str(writes),
                        keda,
                        tuned,
                    ]
                )
    finally:
        await kube.close()
    return cluster.table(
        "Commit of a burst to spec.replicas at its target, seconds",
        ["burst", "bursts", "p50", "p95", "max", "writes", "KEDA (p50 / p95)", "KEDA, 1 s poll"],
        rows,
    )


def main() -> None:
    """Print the table and store it in benchmarks/results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bursts", type=int, default=30)
    report = asyncio.run(measure(parser.parse_args().bursts))
    (cluster.RESULTS / "scaling.md").write_text(report)
    print(report)


if __name__ == "__main__":
    main()
