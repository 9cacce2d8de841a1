"""The launcher in a container: another numeric user, a read-only root, an image without our package."""

from __future__ import annotations

import json
import shutil
import subprocess
import uuid
from typing import TYPE_CHECKING

import psycopg
import pytest
from tests.databases import LABEL, Server, docker
from tests.waiting import PATIENCE_S, eventually
from tests.worker.harness import RUNTIME

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

IMAGE = "shop:dev"
LAUNCHER = "/django-db-worker/django_db_worker"


@pytest.fixture
def database(postgres_server: Server) -> Iterator[str]:
    """The URL of an empty database."""
    name = f"shop_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(postgres_server.url(), autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
        yield postgres_server.url(name)
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What the init container leaves in the pod: a copy that everybody can read."""
    shutil.copytree(
        RUNTIME / "django_db_worker",
        tmp_path / "django_db_worker",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    for path in [*tmp_path.parents][:2]:
        path.chmod(0o755)
    tmp_path.chmod(0o755)
    return tmp_path


def arguments(folder: Path, database: str) -> list[str]:
    return [
        "--user=12345:12345",
        "--read-only",
        "--cap-drop=ALL",
        "--network=host",
        f"--label={LABEL}",
        # The image may be made from our worker image: here it is not.
        "--tmpfs=/opt/django-db-worker",
        f"--volume={folder}:/django-db-worker:ro",
        f"--env=DATABASE_URL={database}",
        "--env=SECRET_KEY=not-a-secret",
        "--env=OUTSIDE_WORLD_PACE=0",
    ]


def run(folder: Path, database: str, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["docker", "run", "--rm", *arguments(folder, database), IMAGE, *argv],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def test_a_stranger_image_runs_our_worker(folder: Path, database: str) -> None:
    knows = run(folder, database, "python", "-c", "import django_db_worker")
    assert "No module named 'django_db_worker'" in knows.stderr
    assert run(folder, database, "python", "manage.py", "migrate").returncode == 0
    placed = run(folder, database, "python", "manage.py", "place_orders", "20", "--review-after=1")
    assert placed.returncode == 0, placed.stderr

    name = f"test-launcher-{uuid.uuid4().hex[:8]}"
    worker = ["python", LAUNCHER, "manage.py", "db_worker", "--queue=*", "--processes=2", "--threads=2"]
    docker(
        "run", "--detach", f"--name={name}", *arguments(folder, database), IMAGE, *worker, "--worker-id=pod"
    )
    try:
        with psycopg.connect(database, autocommit=True) as connection:

            def counts() -> dict[str, int]:
                rows = connection.execute(
                    "SELECT status, count(*) FROM django_tasks_database_dbtaskresult GROUP BY status"
                )
                return dict(rows.fetchall())

            eventually(lambda: set(counts()) == {"SUCCESSFUL"}, "all tasks are done")
            ids = connection.execute(
                "SELECT DISTINCT worker_ids ->> 0 FROM django_tasks_database_dbtaskresult"
            )
            assert all(one.startswith("pod/") for (one,) in ids.fetchall())
        # It is PID 1 here.
        docker("stop", "--time=20", name)
        state = json.loads(docker("inspect", "--format={{json .State}}", name))
        assert state["ExitCode"] == 0, docker("logs", name)
        logs = subprocess.run(["docker", "logs", name], capture_output=True, text=True, check=True)
        assert "Traceback" not in logs.stdout + logs.stderr
        assert database not in logs.stdout + logs.stderr
    finally:
        docker("rm", "--force", name)


def test_a_stranger_image_that_is_told_to_end_while_it_starts(folder: Path, database: str) -> None:
    """PID 1 has no default action for SIGTERM: without a handler this would take 20 s."""
    name = f"test-launcher-{uuid.uuid4().hex[:8]}"
    docker(
        *("run", "--detach", f"--name={name}", *arguments(folder, database), IMAGE),
        *("python", LAUNCHER, "manage.py", "db_worker"),
    )
    try:
        docker("stop", "--time=20", name)
        assert docker("inspect", "--format={{.State.ExitCode}}", name) in {"0", "1", "143"}
    finally:
        docker("rm", "--force", name)
