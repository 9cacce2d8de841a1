"""Watches the task table and the cluster, and writes what happens into a timeline."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from examples.demo.enqueue import MANAGE
from examples.demo.kubectl import lines_of
from examples.demo.stage import NAMESPACE, WORKERS
from examples.demo.timeline import Counts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from examples.demo.timeline import Timeline

# One long-running command in the web pod, instead of an `exec` for each query, costs the cluster nothing.
TASKS = (*MANAGE, "watch_tasks", "--interval=0.25")

# Watches, not polls: no change of replicas is missed.
REPLICAS = (
    "get",
    "deployments",
    f"--namespace={NAMESPACE}",
    "--selector=djangotasks.dev/worker",
    "--watch",
    r'--output=jsonpath={.metadata.name} {.spec.replicas}{"\n"}',
)
PODS = (
    "get",
    "pods",
    f"--namespace={NAMESPACE}",
    "--selector=djangotasks.dev/worker",
    "--watch",
    r'--output=jsonpath={.status.phase}{"\n"}',
)


@asynccontextmanager
async def observing(timeline: Timeline) -> AsyncIterator[None]:
    """Observe until the block ends. It starts once rows and replicas of all workers have been seen."""
    counted = asyncio.Event()
    scaled = asyncio.Event()

    def note_counts(line: str) -> None:
        timeline.count(time.monotonic(), Counts(**json.loads(line)))
        counted.set()

    def note_replicas(line: str) -> None:
        worker, replicas = line.split()
        timeline.scale(time.monotonic(), worker, int(replicas))
        if len(timeline.replicas[-1][1]) == len(WORKERS):
            scaled.set()

    def note_pod(line: str) -> None:
        if line == "Running":
            timeline.pod_runs(time.monotonic())

    # A group, so that a failing watch ends the demo instead of going unnoticed.
    async with asyncio.TaskGroup() as group:
        watches = [
            group.create_task(_follow(source, note))
            for source, note in ((TASKS, note_counts), (REPLICAS, note_replicas), (PODS, note_pod))
        ]
        await counted.wait()
        await scaled.wait()
        yield
        for watch in watches:
            watch.cancel()


async def _follow(source: tuple[str, ...], note: Callable[[str], None]) -> None:
    # A watch that ends is restarted: it begins with the current state, so nothing is missed for long.
    while True:
        async for line in lines_of(*source):
            note(line)
        await asyncio.sleep(0.2)
