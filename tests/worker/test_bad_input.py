"""Invalid input is refused with one clear sentence and an exit code other than 0, without a traceback."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.databases import free_port
from tests.waiting import PATIENCE_S, eventually
from tests.worker.harness import PROJECT, RUNTIME, Project, get

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.databases import Server


def refused(project: Project, *flags: str, **env: str) -> str:
    """The last line that the command writes before it ends."""
    done = project.run("db_worker", "--no-startup-delay", *flags, **env)
    assert done.returncode != 0, done.stdout
    assert "Traceback" not in done.stderr, done.stderr
    sentences = [line for line in done.stderr.splitlines() if line.strip()]
    return sentences[-1]


FLAGS = [
    (["--processes=0"], r"--processes: must be a whole number from 1 to 64, not '0'"),
    (["--processes=-2"], r"--processes: must be a whole number"),
    (["--processes=many"], r"--processes: must be a whole number.*'many'"),
    (["--processes=1.5"], r"--processes: must be a whole number"),
    (["--processes=65"], r"--processes: must be a whole number from 1 to 64"),
    (["--threads=0"], r"--threads: must be a whole number from 1 to 64"),
    (["--threads=65"], r"--threads: must be a whole number from 1 to 64"),
    (["--health-port=0"], r"--health-port: must be a whole number from 1 to 65535"),
    (["--health-port=65536"], r"--health-port: must be a whole number from 1 to 65535"),
    (["--queue=nowhere"], r"Unknown queue 'nowhere'.*'default', 'mails', 'reports'"),
    (["--queue-name=default,nowhere"], r"Unknown queue 'nowhere'"),
    (["--queue=default", "--exclude-queues=mails"], r"--exclude-queues can only be used with"),
    (["--backend=nowhere"], r"The connection 'nowhere' doesn't exist"),
    (["--backend=dummy"], r"Backend 'dummy' is not a database backend"),
    (["--interval=-1"], r"--interval: Must be zero or greater"),
    (["--interval=soon"], r"--interval: invalid"),
    (["--max-tasks=0"], r"--max-tasks: Must be greater than zero"),
    (["--worker-id=" + "x" * 65], r"Worker ids must be shorter than 64 characters"),
    (["--worker-id=" + "x" * 62, "--processes=2"], r"--worker-id is 2 characters too long"),
    (["--verbosity=4"], r"--verbosity.*invalid choice"),
    (["--no-such-flag"], r"unrecognized arguments: --no-such-flag"),
]


@pytest.fixture(scope="module")
def refusals(project_on: Callable[[str], Project]) -> list[tuple[int, str]]:
    """The exit code and the message for each line of the table, from one process that forks for each."""
    done = project_on("postgres").run("refusals", json.dumps([flags for flags, _ in FLAGS]))
    assert done.returncode == 0, done.stderr
    found: list[tuple[int, str]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("row", range(len(FLAGS)), ids=[" ".join(flags)[:40] for flags, _ in FLAGS])
def test_flags(refusals: list[tuple[int, str]], row: int) -> None:
    code, text = refusals[row]
    assert code in {1, 2}
    assert "Traceback" not in text
    assert re.search(FLAGS[row][1], text.splitlines()[-1])


@pytest.mark.parametrize("flags", [["--processes=2"], ["--threads=2"]])
def test_sqlite_has_one_writer(project_on: Callable[[str], Project], flags: list[str]) -> None:
    assert "SQLite allows one writer at a time" in refused(project_on("sqlite"), *flags)


def test_settings_without_a_database(postgres: Project) -> None:
    """Such as `dj_database_url.config()` without DATABASE_URL."""
    said = refused(postgres, TASK_DATABASE_URL="")
    assert "The database 'default' has no ENGINE in DATABASES" in said
    assert "DATABASE_URL" in said


def test_more_threads_than_the_pool_has_connections(postgres: Project) -> None:
    pool = json.dumps({"POOL": {"min_size": 1, "max_size": 2}})
    assert re.search(
        r"--threads=8 needs as many connections.*at most 2",
        refused(postgres, "--threads=8", MORE_SETTINGS=pool),
    )


def test_a_level_that_logging_does_not_know(postgres: Project) -> None:
    said = refused(postgres, MORE_SETTINGS=json.dumps({"TASKS_LOG_LEVEL": "LOUD"}))
    assert "TASKS_LOG_LEVEL is 'LOUD'" in said


@pytest.mark.parametrize("layout", [[], ["--processes=2"], ["--threads=2"]])
def test_a_database_that_was_not_migrated(postgres_server: Server, layout: list[str]) -> None:
    empty = Project(postgres_server.url("postgres"))
    worker = empty.worker(*layout)
    try:
        assert worker.wait() != 0
        assert "migrate" in worker.output.splitlines()[-1], worker.output
        assert "Traceback" not in worker.output
    finally:
        worker.kill()


def test_a_port_that_is_taken(postgres: Project) -> None:
    port = free_port()
    first = postgres.worker(f"--health-port={port}")
    eventually(lambda: get(port, "/healthz")[0] == 200, "it listens")
    assert str(port) in refused(postgres, f"--health-port={port}")
    assert first.terminate() == 0


def run(*argv: str, cwd: str, python: str = sys.executable, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, *argv],
        cwd=cwd,
        env={"PATH": os.environ["PATH"], **env},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


LAUNCHER = str(RUNTIME / "django_db_worker")


def launched(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode != 0, done.stdout
    assert "Traceback" not in done.stderr, done.stderr
    return done.stderr.strip().splitlines()[-1]


def test_launched_where_there_is_no_manage_py(tmp_path: Path) -> None:
    assert re.search(r"manage\.py", launched(run(LAUNCHER, "manage.py", "db_worker", cwd=str(tmp_path))))


def test_launched_without_a_command() -> None:
    assert launched(run(LAUNCHER, cwd=str(PROJECT)))


def image(tmp_path: Path, *packages: str) -> str:
    """An interpreter with these packages and no others."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    for package in packages:
        (site / package).symlink_to(Path(sysconfig.get_path("purelib")) / package)
    return str(tmp_path / "venv" / "bin" / "python")


def test_launched_in_an_image_without_django(tmp_path: Path) -> None:
    done = run(LAUNCHER, "manage.py", "db_worker", cwd=str(PROJECT), python=image(tmp_path))
    assert "Django is not installed in this image" in launched(done)


def test_launched_in_an_image_without_django_tasks_db(tmp_path: Path) -> None:
    python = image(tmp_path, "django", "asgiref", "sqlparse")
    done = run(LAUNCHER, "manage.py", "db_worker", cwd=str(PROJECT), python=python)
    assert "django-tasks-db is not installed in this image" in launched(done)


def test_launched_with_a_django_that_is_too_old(tmp_path: Path) -> None:
    old = tmp_path / "django"
    old.mkdir()
    (old / "__init__.py").write_text("VERSION = (4, 2, 0, 'final', 0)\n__version__ = '4.2'\n")
    done = run(LAUNCHER, "manage.py", "db_worker", cwd=str(PROJECT), PYTHONPATH=str(tmp_path))
    assert re.search(r"Django 4\.2 is too old.*5\.2", launched(done))


def test_a_project_without_the_app(postgres: Project) -> None:
    """django-tasks-db is installed, but the project does not use it."""
    done = run(
        LAUNCHER,
        "manage.py",
        "db_worker",
        cwd=str(PROJECT),
        **{**postgres.env(), "PYTHONPATH": "", "WITHOUT_APPS": "1", "WORKER_APPS": ""},
    )
    assert "INSTALLED_APPS" in launched(done)
