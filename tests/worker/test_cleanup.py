"""cleanup_tasks beside workers, which claim and finish tasks while it is in the middle of a batch."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import psycopg
import pymysql
from tests.waiting import PATIENCE_S, eventually
from tests.worker.harness import PROJECT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.worker.harness import Project

DAY = 24 * 3600


@contextmanager
def transaction(url: str) -> Iterator[Any]:
    """A cursor in a separate transaction."""
    parts = urlsplit(url)
    connect = (
        (lambda: psycopg.connect(url))
        if parts.scheme.startswith("postgres")
        else (
            lambda: pymysql.connect(
                host=parts.hostname,
                port=parts.port or 3306,
                user=parts.username,
                password=parts.password or "",
                database=parts.path[1:],
            )
        )
    )
    connection = connect()
    try:
        with connection.cursor() as cursor:
            yield cursor
        connection.rollback()
    finally:
        connection.close()


def finish(project: Project, ids: list[str], days: int) -> None:
    project.ask("update", ids=ids, status="SUCCESSFUL", ago={"finished_at": days * DAY})


def test_workers_go_on_while_a_batch_is_being_deleted(shared: Project) -> None:
    # So many that no planner prefers to read, and so to lock, the whole table.
    shared.ask(
        "insert",
        times=3000,
        status="SUCCESSFUL",
        finished_at="2020-01-01T00:00:00+00:00",
        task_path="chores.nothing",
    )
    worker = shared.worker("--processes=2", "--interval=0.1")
    with transaction(shared.url) as cursor:
        # Somewhere in the second batch: the clean-up has deleted rows and waits with its locks.
        cursor.execute("SELECT id FROM django_tasks_database_dbtaskresult ORDER BY id LIMIT 1 OFFSET 75")
        cursor.execute(
            "SELECT id FROM django_tasks_database_dbtaskresult WHERE id = %s FOR UPDATE", cursor.fetchone()
        )
        assert cursor.fetchall()
        command = [sys.executable, "manage.py", "cleanup_tasks", "--days=30", "--batch-size=50"]
        cleanup = subprocess.Popen(command, cwd=PROJECT, env=shared.env(), stdout=subprocess.PIPE, text=True)
        try:
            eventually(lambda: shared.statuses() == {"SUCCESSFUL": 2950}, "the first batch is gone")
            new = shared.enqueue("note", times=20)
            shared.all_finished(2950 + len(new))
            assert {row["status"] for row in shared.results(new).values()} == {"SUCCESSFUL"}
            assert cleanup.poll() is None
        except BaseException:
            cleanup.kill()
            raise
    with cleanup:
        output, _ = cleanup.communicate(timeout=PATIENCE_S)

    assert cleanup.returncode == 0
    assert output == "Deleted 3000 results of tasks that finished more than 30 days ago.\n"
    assert set(shared.results()) == set(new)
    assert worker.terminate() == 0


def test_queues_can_be_left_out(postgres: Project) -> None:
    here, elsewhere = postgres.enqueue("nothing", times=2), postgres.enqueue("nothing", times=3)
    finish(postgres, here + elsewhere, 31)
    postgres.ask("update", ids=elsewhere, queue_name="reports")

    done = postgres.run("cleanup_tasks", "--queue=*", "--exclude-queues=reports")
    assert done.stdout == "Deleted 2 results of tasks that finished more than 30 days ago.\n", done.stderr
    assert set(postgres.results()) == set(elsewhere)
    refused = postgres.run("cleanup_tasks", "--queue=default", "--exclude-queues=reports")
    assert "--exclude-queues can only be used with --queue-name=*" in refused.stderr
