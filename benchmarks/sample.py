"""What a sample of a large table costs, with the index and without: ``make bench-sample``.

Fills a PostgreSQL and a MariaDB server with 5,000,000 finished rows and then with a million waiting ones in
several ways, and takes the sample of 50 workers from each. For comparison, it runs the query of a typical
KEDA trigger on the same server within the same minute.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.integration.databases import (
    TABLE,
    as_default,
    create_database,
    create_indexes,
    execute,
    opened,
    running,
)

from django_task_operator.tasktable import DatabaseURL, Selection, TaskTable

from django_tasks_db.models import DBTaskResult  # isort: skip

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from django.db.backends.base.base import BaseDatabaseWrapper

RESULTS = Path(__file__).parent / "results" / "sample.md"
FINISHED, READY, RUNNING = 5_000_000, 1_000_000, 1_000
QUEUES = [f"queue-{number:02}" for number in range(50)]
BACKLOG = QUEUES[7]
# What ten replicas of ten tasks can use.
LIMIT = 100
SLOW_SECONDS = 0.5
ARGUMENTS = {
    "postgres": ["-c", "shared_buffers=1GB", "-c", "max_wal_size=8GB"],
    "mariadb": ["--innodb-buffer-pool-size=3G", "--innodb-log-file-size=1G"],
}
ASKERS: Mapping[str, Mapping[Selection, int]] = {
    "50 workers, a queue each": {Selection("default", (queue,)): LIMIT for queue in QUEUES},
    "a worker of every queue": {Selection("default", ("*",)): LIMIT},
    "… but the backlog's": {Selection("default", ("*",), (BACKLOG,)): LIMIT},
}
KEDA = f"SELECT queue_name, COUNT(*) FROM {TABLE} WHERE status IN ('READY', 'RUNNING') GROUP BY queue_name"

COLUMNS = (
    "id, status, args_kwargs, priority, task_path, queue_name, backend_name, run_after, enqueued_at,"
    " started_at, finished_at, return_value, exception_class_path, traceback, worker_ids"
)
VALUES = (
    """'{{"args": [], "kwargs": {{"order": 1234567, "address": "someone@example.org"}}}}', 0,"""
    " 'orders.tasks.send_confirmation', CONCAT('queue-', {queue}), 'default', {run_after},"
)
REST = """NULL, NULL, 'null', '', '', '["emails-5d9c7b6f4-abcde"]'"""

PAGE = """# A sample of a large table

`make bench-sample`: the time of one statement, the median of nine (of two where it takes more than half a
second). Rows add up from line to line. *Times dearer* compares the KEDA trigger's query with 50 workers'
sample; KEDA would ask it on a connection of its own for each of the 50. {machine}, servers in containers
beside; {seconds:.0f} s in all.
{tables}

The KEDA trigger's query: `{keda}`
"""


@dataclass
class Bench:
    """One server while it is filled and queried."""

    connection: BaseDatabaseWrapper
    url: str
    rows: list[str] = field(default_factory=list)
    inserted: int = 0

    def insert(
        self, count: int, status: str, *, queue: str, run_after: str = "'9999-01-01 00:00:00'"
    ) -> None:
        """Insert rows; ``queue`` is SQL for the two digits of a queue's name, from the row's number i."""
        values = VALUES.format(queue=queue, run_after=run_after)
        first, last = self.inserted + 1, self.inserted + count
        if self.connection.vendor == "postgresql":
            values = values.replace("'9999-01-01 00:00:00'", "timestamptz '9999-01-01 00:00:00Z'")
            enqueued = "now() - interval '1 hour' + i * interval '1 microsecond'"
            source = f"generate_series({first}, {last}) i"
            key = "lpad(to_hex(i), 32, '0')::uuid"
        else:
            enqueued = "UTC_TIMESTAMP(6) - INTERVAL 1 HOUR + INTERVAL i MICROSECOND"
            source = f"(SELECT seq AS i FROM seq_{first}_to_{last}) s"
            key = "CAST(LPAD(HEX(i), 32, '0') AS UUID)"
        rest = REST.replace("'null'", "'null'::jsonb") if self.connection.vendor == "postgresql" else REST
        execute(
            self.connection,
            f"INSERT INTO {TABLE} ({COLUMNS})"
            f" SELECT {key}, {status}, {values} {enqueued}, {rest} FROM {source}",
        )
        self.inserted = last

    def analyze(self) -> None:
        """Update the planner's statistics, as autovacuum would have done meanwhile."""
        verb = "VACUUM ANALYZE" if self.connection.vendor == "postgresql" else "ANALYZE TABLE"
        execute(self.connection, f"{verb} {TABLE}")

    def measure(self, situation: str, *, indexed: bool) -> None:
        """Ask what each asker wants, and what KEDA does, and add a line to the table."""
        keda = median(lambda: timed(lambda: execute(self.connection, KEDA)))
        table = TaskTable(DatabaseURL.parse(self.url), statement_timeout=120)
        ours = []
        for asker in ASKERS.values():
            if table.sample(asker).indexed is not indexed:
                raise RuntimeError("the index is not what it should be")
            ours.append(median(lambda asker=asker: table.sample(asker).seconds))  # type: ignore[misc]
        table.close()
        cells = [
            situation,
            "yes" if indexed else "no",
            *map(shown, ours),
            shown(keda),
            f"{keda / ours[0]:,.1f}",
        ]
        self.rows.append(f"| {' | '.join(cells)} |")
        print(self.rows[-1], flush=True)


def timed(act: Callable[[], object]) -> float:
    """Return the seconds that ``act`` takes."""
    started = time.monotonic()
    act()
    return time.monotonic() - started


def median(measure: Callable[[], float]) -> float:
    """Return the median of nine runs, or of fewer if each takes long."""
    first = measure()
    return statistics.median([first, *(measure() for _ in range(8 if first < SLOW_SECONDS else 1))])


def shown(seconds: float) -> str:
    """Format milliseconds for people."""
    return f"{seconds * 1000:,.1f} ms"


def bench(kind: str) -> Iterator[str]:
    """Return the lines of one server's table."""
    with running(kind, *ARGUMENTS[kind]) as server:
        url = create_database(server, "shop_large")
        with as_default(url) as connection, opened(url) as other:
            bench = Bench(other, url)
            filling = timed(lambda: fill(bench, connection))
            print(f"{kind}: filled in {filling:.0f} s", flush=True)
            finished = f"{FINISHED:,} finished, {RUNNING:,} running"
            bench.measure(finished, indexed=False)
            seven = "'07'"
            bench.insert(READY, "'READY'", queue=seven)
            bench.analyze()
            bench.measure(f"and {READY:,} ready in one queue", indexed=False)
            building = timed(lambda: create_indexes(connection))
            bench.analyze()
            bench.measure(f"and {READY:,} ready in one queue", indexed=True)
            two_digits = "LPAD(CAST(i % 50 AS CHAR(2)), 2, '0')"
            bench.insert(READY, "'READY'", queue=two_digits)
            bench.analyze()
            bench.measure(f"and {READY:,} ready in 50 queues", indexed=True)
            tomorrow = "NOW() + INTERVAL '1' DAY"
            bench.insert(READY, "'READY'", queue=seven, run_after=tomorrow)
            bench.analyze()
            bench.measure(f"and {READY:,} deferred to tomorrow", indexed=True)
            (version,) = execute(other, "SELECT version()")
            yield f"## {server.kind}: {version[0].split(' on ')[0]}"
            yield ""
            yield f"| rows | index | {' | '.join(ASKERS)} | a KEDA trigger's query | times dearer |"
            yield "|---|---|" + "---:|" * (len(ASKERS) + 2)
            yield from bench.rows
            yield ""
            yield f"The indexes were built in {building:.1f} s, beside their use."


def fill(bench: Bench, connection: BaseDatabaseWrapper) -> None:
    """Insert finished and running rows; django-tasks-db's indexes are created afterwards, which is faster."""
    indexes = DBTaskResult._meta.indexes  # noqa: SLF001  documented API
    with connection.schema_editor() as editor:
        for index in indexes:
            editor.remove_index(DBTaskResult, index)
    two_digits = "LPAD(CAST(i % 50 AS CHAR(2)), 2, '0')"
    bench.insert(FINISHED, "CASE WHEN i % 20 = 0 THEN 'FAILED' ELSE 'SUCCESSFUL' END", queue=two_digits)
    bench.insert(RUNNING, "'RUNNING'", queue=two_digits)
    with connection.schema_editor() as editor:
        for index in indexes:
            editor.add_index(DBTaskResult, index)
    bench.analyze()


def main() -> None:
    """Print the tables, and write them to ``benchmarks/results/sample.md``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("servers", nargs="*", default=["postgres", "mariadb"])
    started = time.monotonic()
    lines = [line for kind in parser.parse_args().servers for line in ["", *bench(kind)]]
    text = PAGE.format(
        tables="\n".join(lines),
        keda=KEDA,
        machine=f"{os.cpu_count()} CPUs, {platform.machine()}",
        seconds=time.monotonic() - started,
    )
    print(text)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(text)


if __name__ == "__main__":
    main()
