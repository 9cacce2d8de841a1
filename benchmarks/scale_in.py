"""A decreasing load of short and long tasks, from ten pods to none: ``make bench-scale-in``.

It counts pods that were terminated while they ran a task, tasks that were lost or run twice, and the seconds
for which pods existed longer than their tasks needed them.
"""

from __future__ import annotations

import argparse
import asyncio
import random
from functools import partial

from benchmarks import cluster, sleepers
from django_task_operator.cluster.kube import Kube

PODS = 10
LONG, SHORT = 5, 45
LONG_SECONDS, SHORT_SECONDS = 60.0, 1.0


async def fall(pods: sleepers.Pods, tasks: sleepers.Sleepers, namespace: str) -> list[str]:
    """Let a load decrease; return its row of the table."""
    scaling = {"maxReplicas": PODS, "tasksPerReplica": 1}
    await asyncio.to_thread(sleepers.patch, namespace, scaling={**scaling, "minReplicas": PODS})
    await pods.until(lambda: len(pods.ready()) >= PODS, 180)
    load = [LONG_SECONDS] * LONG + [SHORT_SECONDS] * SHORT
    random.shuffle(load)
    began = await asyncio.to_thread(tasks.put, load)
    # Before the operator has counted them there is no load to decrease.
    await cluster.until(partial(tasks.polled, began), "the load is counted", seconds=60)
    await asyncio.to_thread(sleepers.patch, namespace, scaling={**scaling, "minReplicas": 0})
    names = {pod["metadata"]["name"] for pod in pods.ready()}
    await pods.until(lambda: not pods.there.keys() - pods.told_to_go.keys(), 300)
    await asyncio.to_thread(tasks.wait, status="SUCCESSFUL", count=len(load), seconds=120)

    rows = await asyncio.to_thread(tasks.all)
    needed = dict.fromkeys(names, began)
    busy = set()
    for row in rows:
        pod = row.worker_ids[-1].partition("/")[0]
        needed[pod] = max(needed.get(pod, began), row.finished_at.timestamp())
        if row.started_at.timestamp() < pods.told_to_go[pod] < row.finished_at.timestamp():
            busy.add(pod)
    used = sum(pods.told_to_go[pod] - began for pod in needed)
    least = sum(until - began for until in needed.values())
    lost = sum(row.status != "SUCCESSFUL" for row in rows)
    twice = sum(len(row.worker_ids) > 1 for row in rows)
    await asyncio.to_thread(tasks.clear)
    return [str(len(busy)), str(lost), str(twice), f"{used:.0f}", f"{least:.0f}", f"{used / least:.3f}"]


async def measure(runs: int) -> str:
    """Let the load decrease that many times and return the table."""
    kube = await Kube.connect(str(cluster.KUBECONFIG))
    try:
        with cluster.postgres() as url, cluster.namespace(url) as namespace:
            tasks = await asyncio.to_thread(sleepers.Sleepers, url)
            await asyncio.to_thread(sleepers.deploy, namespace, spec={}, maxReplicas=PODS, tasksPerReplica=1)
            pods = sleepers.Pods(namespace)
            following = asyncio.create_task(pods.follow(kube))
            rows = []
            for number in range(1, runs + 1):
                rows.append([str(number), *await fall(pods, tasks, namespace)])
                print(rows[-1], flush=True)
            following.cancel()
    finally:
        await kube.close()
    return cluster.table(
        f"{SHORT} tasks of {SHORT_SECONDS:g} s and {LONG} of {LONG_SECONDS:g} s, {PODS} pods to 0",
        ["run", "busy pods deleted", "lost", "run twice", "pod seconds", "needed", "used / needed"],
        rows,
    )


def main() -> None:
    """Print the table and store it in benchmarks/results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10)
    report = asyncio.run(measure(parser.parse_args().runs))
    (cluster.RESULTS / "scale-in.md").write_text(report)
    print(report)


if __name__ == "__main__":
    main()
