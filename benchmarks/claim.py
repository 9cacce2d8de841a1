"""A worker's rate beside rows that are none of its business: ``make bench-claim``.

One worker of one process and one slot runs no-op tasks, in the same PostgreSQL server and table, first with
its own tasks alone and then beside others, with the index of ``db_worker_setup`` and without. Each situation
is measured in windows of two seconds; the ratio compares the best one with the best one alone. Then the cost
of the indexes for those who write: an INSERT and the two UPDATEs of a task.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.databases import running_postgres
from tests.waiting import eventually

from benchmarks.throughput import AT_ONCE, Bench

if TYPE_CHECKING:
    from collections.abc import Sequence

RESULTS = Path(__file__).parent / "results" / "claim.md"
TABLE = "django_tasks_database_dbtaskresult"
TOMORROW = "now() + interval '1 day'"
OWN = 12_000
WINDOWS = 3
WARM = 5

# What else is in the table: a number of READY rows with queue, priority and run_after.
Rows = tuple[int, str, int, str]
SITUATIONS: list[tuple[str, str, Sequence[Rows]]] = [
    ("alone", "default", ()),
    ("beside 300,000 READY rows of another queue", "default", [(300_000, "mails", 0, AT_ONCE)]),
    ("beside 1,000,000 READY rows of another queue", "default", [(1_000_000, "mails", 0, AT_ONCE)]),
    ("beside 300,000 deferred rows of its own queue", "default", [(300_000, "default", 0, TOMORROW)]),
    ("the same with a higher priority", "default", [(300_000, "default", 5, TOMORROW)]),
    ("a worker of two queues, alone", "default,reports", ()),
    (
        "a worker of two queues, beside 300,000 READY rows of a third",
        "default,reports",
        [(300_000, "mails", 0, AT_ONCE)],
    ),
    ("a worker of every queue, alone", "*", ()),
    ("a worker of every queue, beside 300,000 deferred rows", "*", [(300_000, "mails", 5, TOMORROW)]),
]


class ClaimBench(Bench):
    """A project on a server, whose table holds more than the worker's own tasks."""

    def rate(self, queues: str, others: Sequence[Rows]) -> float:
        """Return the tasks per second of a worker of ``queues`` beside ``others``."""
        self.connection.execute(f"TRUNCATE {TABLE}")
        for rows in others:
            self.insert(*rows)
        self.insert(OWN, "default", 0, AT_ONCE)
        self.connection.execute(f"VACUUM ANALYZE {TABLE}")
        worker = self.project.worker(f"--queue={queues}", "--interval=0.1")
        try:
            eventually(lambda: self.finished() >= WARM, "the worker is warm", within_s=120)
            rates = []
            for _ in range(WINDOWS):
                began, done = time.perf_counter(), self.finished()
                time.sleep(2)
                rates.append((self.finished() - done) / (time.perf_counter() - began))
            if self.finished() >= OWN:
                raise RuntimeError("the worker has emptied the queue: make it longer")
        finally:
            worker.kill()
            self.project.workers.clear()
        return max(rates)

    def writes(self) -> tuple[float, float]:
        """Return milliseconds of the server for an INSERT, and for the two UPDATEs of a task."""
        self.connection.execute(f"TRUNCATE {TABLE}")
        self.insert(50_000, "mails", 0, AT_ONCE)
        self.connection.execute("SET synchronous_commit = off")
        inserting, updating = [], []
        for _ in range(WINDOWS):
            began = time.perf_counter()
            for _ in range(1_000):
                self.insert(1, "default", 0, AT_ONCE)
            inserting.append(time.perf_counter() - began)
            ids = [
                row[0]
                for row in self.connection.execute(
                    f"SELECT id FROM {TABLE} WHERE queue_name = 'default' AND status = 'READY'"
                )
            ]
            began = time.perf_counter()
            for one in ids:
                for status in ("RUNNING", "SUCCESSFUL"):
                    self.connection.execute(
                        f"UPDATE {TABLE} SET status = %s WHERE id = %s",
                        (status, one),
                    )
            updating.append(time.perf_counter() - began)
        self.connection.execute("RESET synchronous_commit")
        return min(inserting), min(updating)

    def setup(self, *flags: str) -> None:
        """Create or remove the indexes, as a user would."""
        done = self.project.run("db_worker_setup", *flags)
        if done.returncode:
            raise RuntimeError(done.stderr)


def main() -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=2, help="how often each is measured (default: 2)")
    rounds = parser.parse_args().rounds
    load = os.getloadavg()[0]
    found: dict[bool, dict[str, list[float]]] = {True: {}, False: {}}
    writes: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    flags = "shared_preload_libraries=pg_stat_statements", "max_connections=200"
    with running_postgres(*(part for flag in flags for part in ("-c", flag))) as server:
        bench = ClaimBench(server)
        try:
            for _ in range(rounds):
                for indexed in (True, False):
                    bench.setup(*(() if indexed else ("--remove",)))
                    writes[indexed].append(bench.writes())
                    for name, queues, others in SITUATIONS:
                        rate = bench.rate(queues, others)
                        found[indexed].setdefault(name, []).append(rate)
                        print(f"{'with' if indexed else 'without'} the index: {name}: {rate:.1f}", flush=True)
            version = bench.connection.info.server_version // 10000
        finally:
            bench.close()
    lines = [
        "# A claim beside rows that are none of its business",
        "",
        "`make bench-claim`: tasks per second of a worker with one slot, the best of its windows. The ratio",
        "is to the same worker alone.",
        f"{os.cpu_count()} cores, Python {platform.python_version()}, PostgreSQL {version} beside it,",
        f"{rounds} rounds; the load average was {load:.1f} before the run.",
        "",
        "| a worker of one slot | ratio with the index | without | tasks/s with the index | without |",
        "|---|---:|---:|---:|---:|",
    ]
    alone = {True: 0.0, False: 0.0}
    for name, _, _ in SITUATIONS:
        best = {indexed: max(found[indexed][name]) for indexed in found}
        if "alone" in name:
            alone = best
        ratios = [f"{best[indexed] / alone[indexed]:.2f}" for indexed in (True, False)]
        lines.append(f"| {name} | {ratios[0]} | {ratios[1]} | {best[True]:,.0f} | {best[False]:,.0f} |")
    lines += ["", "| what both indexes cost those who write | times |", "|---|---:|"]
    for place, name in enumerate(("an INSERT", "the two UPDATEs of a task")):
        ratio = statistics.median(
            a[place] / b[place] for a, b in zip(writes[True], writes[False], strict=True)
        )
        lines.append(f"| {name} | {ratio:.2f} |")
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text("\n".join(lines) + "\n")
    print(f"written: {RESULTS}")


if __name__ == "__main__":
    main()
