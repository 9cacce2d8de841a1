"""Tasks per second of our ``db_worker`` and of django-tasks-db's own: ``python -m benchmarks.throughput``.

Both use the same PostgreSQL server, in a container, with its default settings, so every commit goes to disk.
Before the workers start, the queue is longer than they can empty; the result is the best of three windows
of two seconds after a warm-up. Upstream's command is a single process, so its "4 processes" are four
commands.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from tests.databases import Server, docker, running_postgres
from tests.waiting import eventually
from tests.worker.harness import Project, Worker, children

RESULTS = Path(__file__).parent / "results" / "throughput.md"
# The run_after of a task that has none, in SQL.
AT_ONCE = "'9999-01-01 00:00:00+00'"
QUEUE_LENGTH = {"no-op": 16_000, "50 ms": 3_000, "busy": 3_000}
TASKS = {
    "no-op": ("chores.nothing", "[]"),
    "50 ms": ("chores.nap", "[0.05]"),
    "busy": ("chores.burn", "[0.02]"),
}
TITLES = {
    "no-op": "Tasks that do nothing",
    "50 ms": "Tasks that wait 50 ms",
    "busy": "Tasks that compute for 20 ms",
}
WINDOWS = 3
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Setting:
    """One way to run workers."""

    name: str
    stock: bool
    processes: int
    threads: int = 1
    env: tuple[tuple[str, str], ...] = ()

    def start(self, project: Project) -> list[Worker]:
        """Start it."""
        if self.stock:
            return [project.worker(STOCK="1", **dict[str, Any](self.env)) for _ in range(self.processes)]
        flags = (f"--processes={self.processes}", f"--threads={self.threads}")
        return [project.worker(*flags, **dict[str, Any](self.env))]


@dataclass(frozen=True)
class Figures:
    """The measurements of one window."""

    rate: float
    worker_cpu_ms: float
    server_cpu_ms: float
    statements: float
    commits: float
    memory_mb: float


PERSISTENT = (("MORE_SETTINGS", '{"CONN_MAX_AGE": 600}'),)
NO_OP = [
    *(
        setting
        for n in (1, 2, 4, 8)
        for setting in (
            Setting(f"stock, {n} process{'es' * (n > 1)}", stock=True, processes=n),
            Setting(f"ours, {n} process{'es' * (n > 1)}", stock=False, processes=n),
        )
    ),
    Setting("ours, 1 process, 8 threads", stock=False, processes=1, threads=8),
    Setting("stock, 1 process, CONN_MAX_AGE=600", stock=True, processes=1, env=PERSISTENT),
    Setting("stock, 4 processes, CONN_MAX_AGE=600", stock=True, processes=4, env=PERSISTENT),
]
SLEEPING = NO_OP[:9]
BUSY = [
    Setting("ours, 1 process", stock=False, processes=1),
    Setting("ours, 1 process, 2 threads", stock=False, processes=1, threads=2),
    Setting("ours, 2 processes", stock=False, processes=2),
    Setting("ours, 4 processes", stock=False, processes=4),
]


def cpu_seconds(pid: int, *, reaped: bool = False) -> float:
    """Return the CPU time of a process and its descendants; with ``reaped`` also of those that have ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    # Fields 14 to 17 of proc(5), of which the first two were cut off.
    ticks = sum(int(value) for value in fields[11 : 15 if reaped else 13])
    return ticks / TICKS + sum(cpu_seconds(child) for child in children(pid))


def memory_mb(pid: int) -> float:
    """Return the memory of a process and its descendants; shared memory is counted once (PSS)."""
    pages = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    kib = next(int(line.split()[1]) for line in pages if line.startswith("Pss:"))
    return kib / 1024 + sum(memory_mb(child) for child in children(pid))


class Bench:
    """A project on a server, and what both consume."""

    def __init__(self, server: Server) -> None:
        """Use ``server``, which must have pg_stat_statements loaded."""
        self.project = Project(server.url())
        self.project.migrate()
        self.postmaster = int(docker("inspect", "--format={{.State.Pid}}", server.container))
        self.connection = psycopg.connect(server.url(), autocommit=True)
        self.connection.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")

    def close(self) -> None:
        """Stop everything."""
        self.project.clear()
        self.project.close()
        self.connection.close()

    def one(self, query: str) -> int:
        """Return the single number that a query selects."""
        row = self.connection.execute(query).fetchone()
        assert row is not None
        return int(row[0] or 0)

    def fill(self, kind: str) -> None:
        """Fill the queue to the setting's length, in a table without old rows."""
        self.connection.execute("TRUNCATE django_tasks_database_dbtaskresult")
        self.insert(QUEUE_LENGTH[kind], kind=kind)
        self.connection.execute("VACUUM ANALYZE django_tasks_database_dbtaskresult")

    def insert(
        self,
        count: int,
        queue: str = "default",
        priority: int = 0,
        run_after: str = AT_ONCE,
        *,
        kind: str = "no-op",
    ) -> None:
        """Insert READY tasks of one kind, a microsecond apart; ``run_after`` is SQL."""
        path, args = TASKS[kind]
        self.connection.execute(
            "INSERT INTO django_tasks_database_dbtaskresult (id, status, enqueued_at, args_kwargs, priority, "
            "task_path, worker_ids, queue_name, backend_name, run_after, exception_class_path, traceback) "
            "SELECT gen_random_uuid(), 'READY', now() + i * interval '1 microsecond', %s, %s, %s, '[]', %s, "
            f"'default', {run_after}, '', '' FROM generate_series(1, %s) i",
            (f'{{"args": {args}, "kwargs": {{}}}}', priority, path, queue, count),
        )

    def finished(self) -> int:
        """Return how many tasks have succeeded so far."""
        return self.one("SELECT count(*) FROM django_tasks_database_dbtaskresult WHERE status = 'SUCCESSFUL'")

    def counters(self, workers: list[Worker]) -> tuple[float, float, int, int]:
        """Return CPU seconds of the workers and of the server, statements and commits."""
        return (
            sum(cpu_seconds(worker.pid) for worker in workers),
            cpu_seconds(self.postmaster, reaped=True),
            self.one("SELECT sum(calls) FROM pg_stat_statements"),
            self.one("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"),
        )

    def measure(self, setting: Setting, kind: str, seconds: float) -> Figures:
        """Run one setting for a while."""
        self.fill(kind)
        workers = setting.start(self.project)
        slots = setting.processes * setting.threads
        try:
            eventually(lambda: self.finished() >= 5 * slots, "the workers are warm", within_s=60)
            # Other work on the machine can only slow a window down.
            windows = [self.window(workers, seconds) for _ in range(WINDOWS)]
            if not self.one("SELECT count(*) FROM django_tasks_database_dbtaskresult WHERE status = 'READY'"):
                raise RuntimeError(f"{setting.name} emptied the queue: make it longer")
        finally:
            for worker in workers:
                worker.kill()
            self.project.workers.clear()
        return max(windows, key=lambda figures: figures.rate)

    def window(self, workers: list[Worker], seconds: float) -> Figures:
        """Measure running workers for a while."""
        began, before, done = time.perf_counter(), self.counters(workers), self.finished()
        time.sleep(seconds)
        done, after = self.finished() - done, self.counters(workers)
        took = time.perf_counter() - began
        worker_cpu, server_cpu, statements, commits = (b - a for a, b in zip(before, after, strict=True))
        return Figures(
            rate=done / took,
            worker_cpu_ms=1000 * worker_cpu / done,
            server_cpu_ms=1000 * server_cpu / done,
            statements=statements / done,
            commits=commits / done,
            memory_mb=sum(memory_mb(worker.pid) for worker in workers),
        )


def table(kind: str, found: dict[str, Figures]) -> list[str]:
    """Return a Markdown table, with the ratio to upstream's single process."""
    first, base = next((name, figures.rate) for name, figures in found.items())
    lines = [
        f"## {TITLES[kind]}",
        "",
        f"| workers | tasks/s | beside {first} | CPU ms a task: workers | server | statements | memory |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {f.rate:.0f} | {f.rate / base:.1f} times | {f.worker_cpu_ms:.1f} "
        f"| {f.server_cpu_ms:.1f} | {f.statements:.1f} | {f.memory_mb:.0f} MB |"
        for name, f in found.items()
    ]
    return [*lines, ""]


def goals(no_op: dict[str, Figures], sleeping: dict[str, Figures]) -> list[str]:
    """Return the goals and whether they were reached."""
    stock = max(f.rate for name, f in no_op.items() if name.startswith("stock") and "CONN" not in name)
    ours = max(f.rate for name, f in no_op.items() if name.startswith("ours"))
    threads = sleeping["ours, 1 process, 8 threads"].rate / sleeping["ours, 1 process"].rate
    one = no_op["ours, 1 process"].rate / no_op["stock, 1 process"].rate
    return [
        "| goal | measured |",
        "|---|---|",
        f"| one process, no-op tasks: 6 times stock's one process | {one:.1f} times |",
        f"| the machine's best, no-op tasks: 5 times stock's best | {ours / stock:.1f} times |",
        f"| 8 threads, tasks that wait 50 ms: 7.5 times one thread | {threads:.1f} times |",
        "",
    ]


def main() -> None:
    """Measure everything, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=2, help="length of a window (default: 2)")
    parser.add_argument(
        "--only", default="", help="measure only what has this in its name, and write nothing"
    )
    options = parser.parse_args()
    found: dict[str, dict[str, Figures]] = {}
    load = os.getloadavg()[0]
    flags = "shared_preload_libraries=pg_stat_statements", "max_connections=200"
    with running_postgres(*(part for flag in flags for part in ("-c", flag))) as server:
        bench = Bench(server)
        try:
            for kind, settings in (("no-op", NO_OP), ("50 ms", SLEEPING), ("busy", BUSY)):
                for setting in settings:
                    if options.only in f"{kind}: {setting.name}":
                        figures = bench.measure(setting, kind, options.seconds)
                        found.setdefault(kind, {})[setting.name] = figures
                        print(f"{kind}: {setting.name}: {figures}", flush=True)
            version = bench.connection.info.server_version // 10000
        finally:
            bench.close()
    if options.only:
        return
    lines = [
        "# Throughput of db_worker",
        "",
        "`python -m benchmarks.throughput`, which explains what is measured and how.",
        f"{os.cpu_count()} cores, Python {platform.python_version()}, PostgreSQL {version} beside it.",
        f"The load average was {load:.1f} before the run.",
        "",
        *goals(found["no-op"], found["50 ms"]),
        *table("no-op", found["no-op"]),
        *table("50 ms", found["50 ms"]),
        *table("busy", found["busy"]),
    ]
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text("\n".join(lines[:-1]) + "\n")
    print(f"written: {RESULTS}")


if __name__ == "__main__":
    main()
