"""From the death of a pod or a container until the task that it ran is settled: ``make bench-orphans``."""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections import defaultdict
from typing import Any

from benchmarks import cluster, sleepers
from django_task_operator.cluster.kube import Kube

PODS = 5
GRACE = 5
PROMISE = GRACE + 5
# In the second of its start, a task cannot be told from one of the container before.
RUN_SECONDS = 2.0


def kill(pod: dict[str, Any], namespace: str) -> str:
    """Kill a pod that runs a task, or its container; return which."""
    metadata, container = pod["metadata"], pod["status"]["containerStatuses"][0]
    # A container that is restarted again and again would have to wait longer each time.
    if container["restartCount"] or ord(metadata["name"][-1]) % 2:
        where = ("-n", namespace, "--force", "--grace-period=0", "--wait=false")
        cluster.run("kubectl", "delete", "pod", metadata["name"], *where)
        return "pod deleted by force"
    identity = container["containerID"].removeprefix("containerd://")
    node = pod["spec"]["nodeName"]
    command = ("ctr", "--namespace=k8s.io", "tasks", "kill", "-s", "SIGKILL", identity)
    cluster.run("docker", "exec", node, *command)
    return "SIGKILL to the container"


async def round_of_kills(
    pods: sleepers.Pods, tasks: sleepers.Sleepers, namespace: str, count: int
) -> list[tuple[str, float, float]]:
    """Kill ``count`` pods while they run a task: how, seconds until it was settled and until the API knew."""
    await pods.until(lambda: len(pods.ready()) >= PODS, 180)
    await asyncio.to_thread(tasks.put, [3600.0] * count)
    await asyncio.to_thread(tasks.wait, status="RUNNING", count=count, seconds=60)
    await asyncio.sleep(RUN_SECONDS)
    killed: dict[str, tuple[str, float]] = {}
    for row in await asyncio.to_thread(tasks.all):
        name = row.worker_ids[-1].partition("/")[0]
        at = time.time()
        killed[name] = (await asyncio.to_thread(kill, pods.there[name], namespace), at)
    await asyncio.to_thread(tasks.wait, status="FAILED", count=count, seconds=120)
    ends = []
    for row in await asyncio.to_thread(tasks.all):
        pod = row.worker_ids[-1].partition("/")[0]
        how, at = killed[pod]
        if row.exception_class_path != "builtins.ChildProcessError":
            raise SystemExit(f"{row.id} is {row.status} for another reason: {row.traceback}")
        ended = row.finished_at.timestamp()
        ends.append((how, ended - at, pods.first_told_dead(pod, at) - at))
    await asyncio.to_thread(tasks.clear)
    return ends


async def measure(kills: int) -> str:
    """Kill that many and return the table."""
    kube = await Kube.connect(str(cluster.KUBECONFIG))
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    try:
        with cluster.postgres() as url, cluster.namespace(url) as namespace:
            tasks = await asyncio.to_thread(sleepers.Sleepers, url)
            spec = {"orphans": {"policy": "Fail", "graceSeconds": GRACE}}
            scaling = {"minReplicas": PODS, "maxReplicas": PODS, "tasksPerReplica": 1}
            await asyncio.to_thread(sleepers.deploy, namespace, spec=spec, **scaling)
            pods = sleepers.Pods(namespace)
            following = asyncio.create_task(pods.follow(kube))
            left = kills
            while left > 0:
                for how, took, told in await round_of_kills(pods, tasks, namespace, min(PODS, left)):
                    found[how].append((took, told))
                left -= PODS
                print(f"{sum(map(len, found.values()))} of {kills}", flush=True)
            following.cancel()
    finally:
        await kube.close()
    rows = [
        [
            how,
            str(len(ends)),
            str(sum(took <= PROMISE for took, _ in ends)),
            f"{statistics.median(took for took, _ in ends):.1f}",
            f"{max(took for took, _ in ends):.1f}",
            f"{statistics.median(told for _, told in ends):.1f}",
            f"{max(told for _, told in ends):.1f}",
            f"{max(took - told for took, told in ends):.1f}",
        ]
        for how, ends in sorted(found.items())
    ]
    return cluster.table(
        f"From a kill to the end of its task, seconds (graceSeconds {GRACE}: promised are {PROMISE})",
        [
            *("what was killed", "kills", "settled in time", "p50", "max"),
            *("API told of it p50", "max", "from there to the end, max"),
        ],
        rows,
    )


def main() -> None:
    """Print the table and store it in benchmarks/results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    report = asyncio.run(measure(parser.parse_args().kills))
    (cluster.RESULTS / "orphans.md").write_text(report)
    print(report)


if __name__ == "__main__":
    main()
