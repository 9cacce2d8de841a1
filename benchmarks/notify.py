"""What it costs to announce new tasks, and how soon they start: ``make bench-notify``.

Sixteen clients of pgbench enqueue 1,000 tasks a second, each in a transaction of its own, on a PostgreSQL
that waits for its disk at each commit. The situations take turns, round after round. Then single tasks are
enqueued while one worker is idle, and their own code says when it runs.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import random
import re
import statistics
import subprocess
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from tests.databases import NAME, USER, docker, running_postgres
from tests.waiting import eventually
from tests.worker.harness import Project

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.databases import Server

RESULTS = Path(__file__).parent / "results" / "notify.md"
TABLE = "django_tasks_database_dbtaskresult"
TRIGGER = "django_task_operator_wake"
CLIENTS, RATE = 16, 1_000
COLUMNS = (
    "id, task_path, queue_name, backend_name, status, priority, args_kwargs, worker_ids, "
    "exception_class_path, traceback, enqueued_at, run_after"
)
ROW = (
    "'{task}', 'default', 'default', 'READY', 0, '{{\"args\": [], \"kwargs\": {{}}}}', '[]', '', '', now(), "
    "'9999-01-01'"
)
ALWAYS = """
CREATE OR REPLACE FUNCTION announce_always() RETURNS trigger LANGUAGE plpgsql AS
'BEGIN PERFORM pg_notify(''always'', ''default''); RETURN NULL; END';
CREATE TRIGGER announce_always AFTER INSERT ON {table} FOR EACH STATEMENT EXECUTE FUNCTION announce_always();
"""

WITHOUT = "no trigger"
NOBODY = "the trigger, and no idle worker"
IDLE = "the trigger, and an idle worker that takes the tasks"
POLLING = "no trigger, and a worker that takes the tasks"
NAIVE = "a trigger that always notifies"
SITUATIONS = (WITHOUT, NOBODY, NAIVE, POLLING, IDLE)


class Bench:
    """A project on a server."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.project = Project(server.url())
        self.project.migrate()
        self.setup()
        self.connection: psycopg.Connection[Any] = psycopg.connect(server.url(), autocommit=True)
        self.execute_in_container(
            ["sh", "-c", "cat > /tmp/enqueue.sql"],
            f"INSERT INTO {TABLE} ({COLUMNS}) "
            f"VALUES (gen_random_uuid(), {ROW.format(task='chores.nothing')});",
        )

    def close(self) -> None:
        """Close the connection, and the project."""
        self.connection.close()
        self.project.close()

    def execute_in_container(self, command: list[str], text: str) -> None:
        """Run a command in the server's container, with input."""
        argv = ["docker", "exec", "-i", self.server.container, *command]
        subprocess.run(argv, input=text, text=True, check=True)

    def setup(self, *flags: str) -> None:
        """Set the database up, as a user would."""
        done = self.project.run("db_worker_setup", *flags)
        if done.returncode:
            raise RuntimeError(done.stderr)

    @contextlib.contextmanager
    def announcing(self) -> Iterator[None]:
        """Have the trigger."""
        self.setup("--notify")
        try:
            yield
        finally:
            self.connection.execute(f"DROP TRIGGER {TRIGGER} ON {TABLE}")

    @contextlib.contextmanager
    def worker(self, *, woken: bool) -> Iterator[None]:
        """Have an idle worker."""
        worker = self.project.worker("--queue=default")
        worker.says("New tasks wake this process." if woken else "Starting worker")
        try:
            yield
        finally:
            worker.kill()
            self.project.workers.clear()

    @contextlib.contextmanager
    def situation(self, name: str) -> Iterator[None]:
        """Have what is measured."""
        with contextlib.ExitStack() as stack:
            if name in {NOBODY, IDLE}:
                stack.enter_context(self.announcing())
            if name in {POLLING, IDLE}:
                stack.enter_context(self.worker(woken=name == IDLE))
            if name == NAIVE:
                self.connection.execute(ALWAYS.format(table=TABLE).encode())
                stack.callback(self.connection.execute, b"DROP TRIGGER announce_always ON " + TABLE.encode())
            yield

    def enqueue(self, seconds: int) -> float:
        """Return the mean milliseconds that a client waits for its commit."""
        self.connection.execute(f"TRUNCATE {TABLE}".encode())
        self.connection.execute("CHECKPOINT")
        command = (
            f"$(ls /usr/lib/postgresql/*/bin/pgbench) -n -f /tmp/enqueue.sql -c {CLIENTS} -j 2 -T {seconds} "
            f"-R {RATE} -h 127.0.0.1 -U {USER} {NAME}"
        )
        output = docker(
            "exec",
            f"--env=PGPASSWORD={self.server.password}",
            self.server.container,
            "sh",
            "-c",
            command,
        )
        found = re.search(r"latency average = ([\d.]+)", output)
        if found is None:
            raise RuntimeError(output)
        return float(found[1])

    def start(self, count: int) -> list[float]:
        """Return for each task the milliseconds from its commit until its own code runs."""
        waits = []
        for _ in range(count):
            key = uuid.uuid4()
            time.sleep(random.uniform(0.3, 1.3))
            self.connection.execute(
                f"INSERT INTO {TABLE} ({COLUMNS}) VALUES (%s, {ROW.format(task='chores.note')})".encode(),
                [key],
            )
            committed = time.time()

            def ran(key: uuid.UUID = key) -> Any:
                query = "SELECT at FROM diary_entry WHERE task = %s"
                return self.connection.execute(query, [str(key)]).fetchone() or False

            waits.append(1000 * (eventually(ran, "the task has run")[0] - committed))
        return waits


def main() -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured (default: 3)")
    parser.add_argument("--seconds", type=int, default=10, help="how long (default: 10)")
    parser.add_argument("--tasks", type=int, default=50, help="single tasks in each way (default: 50)")
    asked = parser.parse_args()
    load = os.getloadavg()[0]
    costs: dict[str, list[float]] = {name: [] for name in SITUATIONS}
    starts: dict[str, list[float]] = {}
    with running_postgres("-c", "max_connections=200") as server:
        bench = Bench(server)
        try:
            for _ in range(asked.rounds):
                for name in SITUATIONS:
                    with bench.situation(name):
                        costs[name].append(bench.enqueue(asked.seconds))
                    print(f"{name}: {costs[name][-1]:.2f} ms", flush=True)
            bench.connection.execute(f"TRUNCATE {TABLE}".encode())
            for name in (POLLING, IDLE):
                with bench.situation(name):
                    starts[name] = bench.start(asked.tasks)
                print(f"{name}: {statistics.median(starts[name]):.1f} ms", flush=True)
            version = bench.connection.info.server_version // 10000
        finally:
            bench.close()
    median = {name: statistics.median(values) for name, values in costs.items()}
    alike = {NOBODY: WITHOUT, NAIVE: WITHOUT, IDLE: POLLING}
    lines = [
        "# What announcements cost, and what they gain",
        "",
        f"`make bench-notify`: {CLIENTS} clients enqueue {RATE:,} tasks a second, one in a transaction, with",
        f"fsync. {os.cpu_count()} cores, Python {platform.python_version()}, PostgreSQL {version} beside it,",
        f"medians of {asked.rounds} rounds of {asked.seconds} s; the load average was {load:.1f} before:",
        "on a machine that others use, too, only differences between all rounds of two rows mean anything.",
        "",
        "| | ratio to the same without | ms for a commit | every round |",
        "|---|---:|---:|---|",
    ]
    for name in SITUATIONS:
        ratio = f"{median[name] / median[alike[name]]:.2f}" if name in alike else ""
        rounds = ", ".join(f"{value:.2f}" for value in costs[name])
        lines.append(f"| {name} | {ratio} | {median[name]:.2f} | {rounds} |")
    lines += [
        "",
        f"From a commit until the task's own code runs on an idle worker, {asked.tasks} tasks each:",
        "",
        "| | p50 | p95 | slowest |",
        "|---|---:|---:|---:|",
    ]
    for name, title in ((POLLING, "polling every second"), (IDLE, "woken by the trigger")):
        values = sorted(starts[name])
        p95 = values[int(0.95 * (len(values) - 1))]
        lines.append(f"| {title} | {statistics.median(values):.1f} ms | {p95:.1f} ms | {values[-1]:.1f} ms |")
    RESULTS.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
