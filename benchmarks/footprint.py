"""What the operator costs with 50 workers on one database: ``make bench-footprint``.

Idle, and active: rows wait in every queue and their number changes with every poll.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from dataclasses import dataclass

from benchmarks import cluster

WORKERS = 50
# So long without a request the operator is at rest.
QUIET_SECONDS = 5
SETTLED_WITHIN_SECONDS = 120
# What it asks for at rest, too.
ALWAYS = ('resource="leases"', 'resource="secrets"')
REQUESTS, SAMPLES = "django_task_operator_api_requests_total", "django_task_operator_sample_seconds_count"


@dataclass(frozen=True)
class Usage:
    """The operator's own metrics at one moment."""

    at: float
    cpu_seconds: float
    resident_mib: float
    requests: dict[str, float]
    samples: float


def usage() -> Usage:
    """Read the metrics of the operator's pod through the API server."""
    figures = cluster.figures()
    requests = {name: value for name, value in figures.items() if name.startswith(REQUESTS)}
    return Usage(
        time.time(),
        figures["process_cpu_seconds_total"],
        figures["process_resident_memory_bytes"] / 2**20,
        requests,
        samples(figures),
    )


def samples(figures: dict[str, float]) -> float:
    """How often the one database of the benchmark has been sampled, for whichever Secret."""
    return max((count for name, count in figures.items() if name.startswith(SAMPLES)), default=0.0)


class Quiet:
    """Whether the operator has asked for nothing in ``QUIET_SECONDS``, as it is asked again and again."""

    def __init__(self) -> None:
        self._seen: dict[str, float] = {}
        self._since = time.monotonic()

    def __call__(self) -> bool:
        """Look again."""
        requests = {
            name: count
            for name, count in cluster.figures().items()
            if name.startswith(REQUESTS) and not any(each in name for each in ALWAYS)
        }
        if requests != self._seen:
            self._seen, self._since = requests, time.monotonic()
        return time.monotonic() - self._since >= QUIET_SECONDS


async def phase(name: str, tasks: cluster.Tasks, seconds: int, *, active: bool) -> list[str]:
    """Measure for ``seconds``; return a row of the table."""
    stop, waits = asyncio.Event(), asyncio.Event()
    load = asyncio.create_task(_load(tasks, stop, waits)) if active else None
    if load:
        await waits.wait()
        # One poll may be under way now; the second from here sees the rows of every queue.
        polls = samples(await asyncio.to_thread(cluster.figures)) + 2
        await cluster.until(lambda: samples(cluster.figures()) >= polls, "the rows are counted", seconds=60)
    else:
        await cluster.until(Quiet(), "the operator is at rest", seconds=SETTLED_WITHIN_SECONDS)
    before = usage()
    await asyncio.sleep(seconds)
    after = usage()
    stop.set()
    if load:
        await load
    minutes = (after.at - before.at) / 60
    requests = {
        key.split("{")[1].rstrip("}"): round((value - before.requests.get(key, 0)) / minutes, 1)
        for key, value in after.requests.items()
        if value > before.requests.get(key, 0)
    }
    asked = ", ".join(f"{key}: {value:g}" for key, value in requests.items()) or "none"
    return [
        name,
        f"{(after.cpu_seconds - before.cpu_seconds) / minutes:.2f}",
        f"{after.resident_mib:.0f}",
        f"{(after.samples - before.samples) / minutes:.0f}",
        asked.replace('"', ""),
    ]


async def _load(tasks: cluster.Tasks, stop: asyncio.Event, waits: asyncio.Event) -> None:
    """Enqueue a row a second in each queue until ``stop``; ``waits`` says that there is one in each."""
    while not stop.is_set():
        for number in range(WORKERS):
            await asyncio.to_thread(tasks.enqueue, f"queue-{number}", 1)
        waits.set()
        await asyncio.sleep(1)


async def measure(seconds: int) -> str:
    """Run both phases and return the table."""
    with cluster.postgres() as url, cluster.namespace(url) as namespace:
        tasks = await asyncio.to_thread(cluster.Tasks, url)
        cluster.apply(
            *(
                cluster.worker(
                    namespace,
                    f"worker-{n}",
                    f"queue-{n}",
                    schedulable=False,
                    maxReplicas=10,
                    tasksPerReplica=1000,
                )
                for n in range(WORKERS)
            )
        )
        rows = [
            await phase("idle", tasks, seconds, active=False),
            await phase("active: a row a second in each queue", tasks, seconds, active=True),
        ]
    rows.append(["KEDA 2.20.2 on the same cluster", "4-7", "227", "2,999", "active: a status patch a poll"])
    return cluster.table(
        f"{WORKERS} workers on one database, 1 s poll, per minute",
        ["phase", "CPU seconds", "resident MiB", "queries", "API requests beside watches"],
        rows,
    )


def main() -> None:
    """Print the table and store it in benchmarks/results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=120)
    report = asyncio.run(measure(parser.parse_args().seconds))
    (cluster.RESULTS / "footprint.md").write_text(report)
    print(report)


if __name__ == "__main__":
    main()
