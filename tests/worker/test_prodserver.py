"""django-prodserver's `manage.py worker NAME`, with ARGS as its page on Django Tasks writes them."""

from __future__ import annotations

import json
import re
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest
from tests.waiting import eventually
from tests.worker.harness import PROJECT, RUNTIME, Worker, children
from tests.worker.packages import fetch

if TYPE_CHECKING:
    from pathlib import Path

    from tests.worker.harness import Project

ENTRIES = {
    "plain": {},
    "translation": {"processes": "4", "threads": "1", "queue": "default"},
    "production": {"processes": "4", "threads": "1"},
    "multiple": {"processes": "4", "threads": "2", "verbosity": "1"},
    "default_worker": {"queue": "default", "processes": "4"},
    "priority_worker": {"queue": "priority", "processes": "2"},
    "stack": {"processes": "2", "threads": "2"},
    "locking": {"processes": "2", "threads": "1"},
    "low_volume": {"processes": "1", "threads": "2"},
}
SETTINGS = {
    "TASKS": {"default": {"BACKEND": "django_tasks_db.DatabaseBackend", "QUEUES": ["default", "priority"]}},
    "PRODUCTION_PROCESSES": {
        name: {"BACKEND": "django_prodserver.backends.django_tasks.DjangoTasksWorker", "ARGS": args}
        for name, args in ENTRIES.items()
    },
}


@pytest.fixture(scope="session")
def prodserver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with django-prodserver 3.0.0."""
    wheel = fetch(
        "django-prodserver",
        "3.0.0",
        "django_prodserver-3.0.0-py3-none-any.whl",
        "00a8173b58c639d24733c397ff49153c6bde32f375834254f82b20651be21ed8",
    )
    directory = tmp_path_factory.mktemp("prodserver")
    zipfile.ZipFile(wheel).extractall(directory)
    return directory


def start(project: Project, prodserver: Path, *argv: str, **env: str) -> Worker:
    worker = Worker(
        [sys.executable, *argv],
        project.env(
            MORE_APPS='["django_prodserver"]',
            MORE_SETTINGS=json.dumps(SETTINGS),
            DB_WORKER_ID="pod",
            PYTHONPATH=f"{RUNTIME}:{prodserver}",
            **env,
        ),
        PROJECT,
    )
    project.workers.append(worker)
    return worker


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_entry_of_the_page(postgres: Project, prodserver: Path, entry: str) -> None:
    args = ENTRIES[entry]
    processes, threads = int(args.get("processes", 1)), int(args.get("threads", 1))
    queue = args.get("queue", "default")
    task = postgres.ask("insert", times=1, task_path="chores.add", queue_name=queue, **ARGUMENTS)[0]
    elsewhere = postgres.ask("insert", times=1, task_path="chores.nothing", queue_name="mails")[0]
    worker = start(postgres, prodserver, "manage.py", "worker", entry)
    assert postgres.finished(task)["return_value"] == 3
    (worker_id,) = postgres.result(task)["worker_ids"]
    if processes * threads > 1:
        eventually(lambda: len(children(worker.pid)) == processes, f"{processes} processes")
        assert re.fullmatch(r"pod/\d\.\d", worker_id)
    else:
        assert worker_id == "pod"
    assert f"Starting worker named {entry}" in worker.output
    assert postgres.result(elsewhere)["status"] == "READY"
    assert worker.terminate() == 0


ARGUMENTS = {"args_kwargs": {"args": [1, 2], "kwargs": {}}}


def test_an_entry_through_the_launcher(postgres: Project, prodserver: Path) -> None:
    """In an image without our app, prodserver's call of db_worker still runs our command."""
    task = postgres.enqueue_one("add", 1, 2)
    launcher = str(RUNTIME / "django_db_worker")
    worker = start(postgres, prodserver, launcher, "manage.py", "worker", "stack", WORKER_APPS="")
    assert postgres.finished(task)["return_value"] == 3
    eventually(lambda: len(children(worker.pid)) == 2, "2 processes")
    assert worker.terminate() == 0
