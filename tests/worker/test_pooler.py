"""The worker behind PgBouncer in transaction mode, where each transaction may be on another session."""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from tests.databases import LABEL, USER, docker, free_port
from tests.worker.harness import RUNTIME, Project
from tests.worker.packages import PSYCOPG_POOL, unpacked

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.databases import Server

TASKS = 200
POOL = {"min_size": 2, "max_size": 4}
CONFIGURATION = """\
[databases]
* = host=127.0.0.1 port={behind}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
auth_type = scram-sha-256
auth_file = /configuration/users
pool_mode = transaction
; The settings that clients come with are dropped without a word.
ignore_startup_parameters = options
; Fewer than there are slots, each in its turn.
default_pool_size = 3
server_round_robin = 1
max_prepared_statements = {prepared}
"""


@contextlib.contextmanager
def pooled(server: Server, folder: Path, *, prepared: int) -> Iterator[tuple[str, str]]:
    """A URL behind a separate PgBouncer, and the name of its container."""
    port = free_port()
    (folder / "ini").write_text(CONFIGURATION.format(behind=server.port, port=port, prepared=prepared))
    (folder / "users").write_text(f'"{USER}" "{server.password}"\n')
    name = f"test-pgbouncer-{uuid.uuid4().hex[:8]}"
    docker(
        *(
            "run",
            "--detach",
            "--network=host",
            f"--label={LABEL}",
            f"--name={name}",
            f"--volume={folder}:/configuration:ro",
        ),
        *("--entrypoint=pgbouncer", "django-task-postgres:dev", "/configuration/ini"),
    )
    try:
        pooler = replace(server, port=port)
        pooler.wait()
        yield pooler.url(), name
    finally:
        docker("rm", "--force", name)


@pytest.mark.parametrize(
    ("prepared", "more"),
    [
        pytest.param(0, {}, id="as Django is"),
        pytest.param(200, {"OPTIONS": {"prepare_threshold": 1}}, id="prepared statements"),
        pytest.param(0, {"OPTIONS": {"prepare_threshold": 1}}, id="prepared statements that get lost"),
        pytest.param(0, {"OPTIONS": {"server_side_binding": True}}, id="server-side binding"),
        pytest.param(0, {"POOL": POOL}, id="psycopg's pool"),
        pytest.param(0, {"POOL": POOL, "CONN_HEALTH_CHECKS": True}, id="checked pool"),
        pytest.param(0, {"CONN_MAX_AGE": 5, "CONN_HEALTH_CHECKS": True}, id="checked connections"),
    ],
)
def test_each_task_runs_once(
    postgres: Project, postgres_server: Server, tmp_path: Path, prepared: int, more: dict[str, Any]
) -> None:
    record = tmp_path / "record"
    folder = tmp_path / "configuration"
    folder.mkdir()
    with pooled(postgres_server, folder, prepared=prepared) as (url, name):
        through = Project(url)
        env = {"MORE_SETTINGS": json.dumps(more)}
        if "POOL" in more:
            env["PYTHONPATH"] = f"{unpacked(*PSYCOPG_POOL)}{os.pathsep}{RUNTIME}"
        worker = through.worker("--processes=2", "--threads=4", "--interval=0.1", **env)  # type: ignore[arg-type]
        try:
            count(postgres, record, 0)
            assert worker.process.poll() is None
            # Afterwards, everybody has another session of the server.
            docker("restart", "--time=1", name)
            count(postgres, record, TASKS)
            assert worker.terminate() == 0
        finally:
            worker.kill()
    assert "Traceback" not in worker.output, worker.output
    assert "Worker process" not in worker.output, worker.output


def count(project: Project, record: Path, since: int) -> None:
    numbers = range(since, since + TASKS)
    project.enqueue_each("count", [[str(record), number] for number in numbers])
    project.all_finished(since + TASKS)
    assert project.statuses() == {"SUCCESSFUL": since + TASKS}
    assert Counter(int(line) for line in record.read_text().split()) == Counter(range(since + TASKS))


def test_a_statement_that_takes_too_long_is_ended_through_the_pooler(
    postgres: Project, postgres_server: Server, tmp_path: Path
) -> None:
    """The worker's limits need no setting of the session, which the pooler would drop."""
    go = tmp_path / "go"
    folder = tmp_path / "configuration"
    folder.mkdir()
    with pooled(postgres_server, folder, prepared=0) as (url, _):
        worker = Project(url).worker("--interval=0.1", manage="hasty.py")
        try:
            held = postgres.enqueue_one("hold", str(go))
            worker.runs()
            assert postgres.ask("lock", id=held) is True
            try:
                go.touch()
                worker.says("The task table is busy (the statement took too long)")
            finally:
                postgres.ask("unlock")
            row = postgres.finished(held)
            assert (row["status"], len(row["worker_ids"])) == ("SUCCESSFUL", 1)
            assert worker.terminate() == 0
        finally:
            worker.kill()
    assert "Traceback" not in worker.output, worker.output
