"""What the indexes of ``db_worker_setup`` cost those who write: ``make bench-writes``.

A task is written three times: enqueued, claimed and finished, each with a commit. A client does that for
some thousand tasks, one after another, in a table that many others wait in; with the indexes and without, by
turns. The server does not wait for the disk, so that nothing hides what an index costs. Other load on the
machine disturbs the time more than the server's CPU time.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pymysql
from tests.databases import NAME, USER, docker, running_mariadb, running_postgres
from tests.worker.harness import Project

from benchmarks.throughput import cpu_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.databases import Server

RESULTS = Path(__file__).parent / "results" / "writes.md"
TABLE = "django_tasks_database_dbtaskresult"
WAITING = 50_000
TASKS = 4_000
# As django-tasks-db writes "no run_after".
AT_ONCE = datetime(9999, 1, 1, tzinfo=UTC)
INSERT = (
    f"INSERT INTO {TABLE} (id, status, enqueued_at, args_kwargs, priority, task_path, worker_ids, "
    "queue_name, backend_name, run_after, exception_class_path, traceback) VALUES (%s, 'READY', %s, "
    """'{"args": [], "kwargs": {}}', 0, 'chores.nothing', '[]', %s, 'default', %s, '', '')"""
)
CLAIM = f"UPDATE {TABLE} SET status = 'RUNNING', started_at = %s, worker_ids = %s WHERE id = %s"
FINISH = f"UPDATE {TABLE} SET status = 'SUCCESSFUL', finished_at = %s, return_value = 'null' WHERE id = %s"


@dataclass(frozen=True)
class Cost:
    """Seconds of something for all tasks: as the client saw it, and of the server's CPU."""

    elapsed: float
    cpu: float

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.elapsed + other.elapsed, self.cpu + other.cpu)


class WriteBench:
    """A project on a server, and a client that writes as a project and its worker do."""

    def __init__(self, server: Server) -> None:
        """Migrate the database, and connect."""
        self.project = Project(server.url())
        self.project.migrate()
        self.server_pid = int(docker("inspect", "--format={{.State.Pid}}", server.container))
        where: dict[str, Any] = {"host": "127.0.0.1", "port": server.port, "user": USER}
        self.connection: Any = (
            psycopg.connect(**where, password=server.password, dbname=NAME, autocommit=True)
            if server.scheme == "postgresql"
            else pymysql.connect(**where, password=server.password, database=NAME, autocommit=True)
        )
        self.cursor = self.connection.cursor()

    def close(self) -> None:
        """Stop everything."""
        self.connection.close()
        self.project.close()

    def setup(self, *flags: str) -> None:
        """Create or remove the indexes, as a user would."""
        done = self.project.run("db_worker_setup", *flags)
        if done.returncode:
            raise RuntimeError(done.stderr)

    def fill(self) -> None:
        """Leave nothing but tasks that wait."""
        self.cursor.execute(f"TRUNCATE TABLE {TABLE}")
        began = datetime.now(UTC)
        rows = [
            (str(uuid.uuid4()), began + timedelta(microseconds=number), "mails", AT_ONCE)
            for number in range(WAITING)
        ]
        self.cursor.execute("BEGIN")
        self.cursor.executemany(INSERT, rows)
        self.cursor.execute("COMMIT")
        self.cursor.execute(f"VACUUM ANALYZE {TABLE}" if self._is_postgres else f"ANALYZE TABLE {TABLE}")

    @property
    def _is_postgres(self) -> bool:
        return isinstance(self.connection, psycopg.Connection)

    def version(self) -> str:
        """Return what the server is."""
        self.cursor.execute("SELECT version()")
        (text,) = self.cursor.fetchone() or ("",)
        number = str(text).removeprefix("PostgreSQL ").split()[0].split("-")[0]
        return f"{'PostgreSQL' if self._is_postgres else 'MariaDB'} {number}"

    def round(self) -> tuple[Cost, Cost]:
        """Return what it costs to enqueue all tasks, and to claim and finish them."""
        ids = [str(uuid.uuid4()) for _ in range(TASKS)]
        enqueued = self._cost(
            lambda one: self.cursor.execute(INSERT, (one, datetime.now(UTC), "default", AT_ONCE)), ids
        )

        def run(one: str) -> None:
            self.cursor.execute(CLAIM, (datetime.now(UTC), '["worker-1"]', one))
            self.cursor.execute(FINISH, (datetime.now(UTC), one))

        return enqueued, self._cost(run, ids)

    def _cost(self, do: Callable[[str], object], ids: Sequence[str]) -> Cost:
        cpu, began = cpu_seconds(self.server_pid, reaped=True), time.perf_counter()
        for one in ids:
            do(one)
        return Cost(time.perf_counter() - began, cpu_seconds(self.server_pid, reaped=True) - cpu)


def measure(server: Server, rounds: int) -> list[str]:
    """Measure one server; return its rows of the table."""
    bench = WriteBench(server)
    found: dict[bool, list[tuple[Cost, Cost]]] = {True: [], False: []}
    try:
        for number in range(rounds):
            # What is measured second must not always be the same.
            for indexed in (True, False) if number % 2 else (False, True):
                bench.setup(*(() if indexed else ("--remove",)))
                bench.fill()
                found[indexed].append(bench.round())
                print(
                    f"{server.scheme}, {'with' if indexed else 'without'}: {found[indexed][-1]}", flush=True
                )
        version = bench.version()
    finally:
        bench.close()
    return summarize(version, found)


def summarize(version: str, found: dict[bool, list[tuple[Cost, Cost]]]) -> list[str]:
    """Return the rows of the table."""
    parts: dict[str, Callable[[tuple[Cost, Cost]], Cost]] = {
        "enqueue: one INSERT": lambda pair: pair[0],
        "claim and finish: two UPDATEs": lambda pair: pair[1],
        "a whole task": lambda pair: pair[0] + pair[1],
    }
    rows = []
    for name, part in parts.items():
        cpu = {indexed: [part(pair).cpu for pair in pairs] for indexed, pairs in found.items()}
        elapsed = {indexed: [part(pair).elapsed for pair in pairs] for indexed, pairs in found.items()}
        middle = {indexed: statistics.median(cpu[indexed]) for indexed in cpu}
        figures = [
            f"{middle[True] / middle[False]:.2f}",
            f"{min(cpu[True]) / min(cpu[False]):.2f}",
            f"{statistics.median(elapsed[True]) / statistics.median(elapsed[False]):.2f}",
            *(f"{1000 * middle[indexed] / TASKS:.3f} ms" for indexed in (True, False)),
        ]
        rows.append(f"| {version} | {name} | {' | '.join(figures)} |")
    return rows


def main() -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=10, help="how often each is measured (default: 10)")
    rounds = parser.parse_args().rounds
    load = os.getloadavg()[0]
    lines = [
        "# What the indexes cost those who write",
        "",
        f"`make bench-writes`: {TASKS:,} tasks, one after another, beside {WAITING:,} that wait; a commit",
        "for each statement, on a server that does not wait for the disk. The ratios compare the same",
        "with the indexes and without, measured by turns: their medians, and for the CPU also the least of",
        "all rounds.",
        f"{os.cpu_count()} cores, Python {platform.python_version()}, the server beside it, {rounds} rounds;",
        f"the load average was {load:.1f} before the run.",
        "",
        "| server | a task's writes | CPU, times | by the least | time, times | CPU with them | without |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for running in (running_postgres, running_mariadb):
        with running() as server:
            lines += measure(server, rounds)
    RESULTS.write_text("\n".join(lines) + "\n")
    print(f"written: {RESULTS}")


if __name__ == "__main__":
    main()
