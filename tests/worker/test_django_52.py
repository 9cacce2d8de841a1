"""Django 5.2, the last long-term release without tasks, with the package django-tasks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import psycopg
import pytest
from tests.waiting import PATIENCE_S
from tests.worker.harness import RUNTIME
from tests.worker.packages import fetch

if TYPE_CHECKING:
    from pathlib import Path

    from tests.databases import Server

DATABASE = "django52"
WHEELS = [
    (
        "django",
        "5.2.19",
        "django-5.2.19-py3-none-any.whl",
        "5965d974a5218a2b68a11dd1276434707f23886525c23f0598eccedaf4f4ca00",
    ),
    (
        "django-tasks",
        "0.12.0",
        "django_tasks-0.12.0-py3-none-any.whl",
        "ffcc1d7bdfad3bc5ef9c2d498596c6546484c9ec6b182fb9709c691eb66a8709",
    ),
]
FILES = {
    "manage.py": """
        import os, sys
        os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
        from django.core.management import execute_from_command_line
        execute_from_command_line(sys.argv)
    """,
    "settings.py": """
        import os
        import dj_database_url
        SECRET_KEY = "test"
        USE_TZ = True
        INSTALLED_APPS = [*os.environ.get("MORE_APPS", "").split(), "django_tasks", "django_tasks_db"]
        DATABASES = {"default": dj_database_url.parse(os.environ["DATABASE_URL"])}
        TASKS = {"default": {"BACKEND": "django_tasks_db.DatabaseBackend"}}
    """,
    "sums.py": """
        from django_tasks import task

        @task()
        def add(one, other):
            return one + other

        @task(takes_context=True)
        def fail(context):
            raise ValueError("on purpose")
    """,
    "results.py": """
        import json, sys
        import django
        django.setup()
        from django_tasks_db.models import DBTaskResult
        import sums
        if sys.argv[1] == "enqueue":
            for number in range(20):
                sums.add.enqueue(number, 1)
            sums.fail.enqueue()
        else:
            rows = DBTaskResult.objects.order_by("enqueued_at")
            print(json.dumps([django.__version__, [[row.status, row.return_value] for row in rows]]))
    """,
}


@dataclass(frozen=True)
class Project:
    """A project of two files, on Django 5.2."""

    folder: Path
    env: dict[str, str]

    def python(self, *args: str) -> str:
        done = subprocess.run(
            [sys.executable, *args],
            cwd=self.folder,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture
def project(tmp_path: Path, postgres_server: Server) -> Project:
    for name, text in FILES.items():
        lines = text.strip("\n").splitlines()
        (tmp_path / name).write_text("\n".join(line.removeprefix(" " * 8) for line in lines) + "\n")
    with psycopg.connect(postgres_server.url(), autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {DATABASE}")
        connection.execute(f"CREATE DATABASE {DATABASE}")
    packages = tmp_path / "packages"
    for name, version, file, sha256 in WHEELS:
        zipfile.ZipFile(fetch(name, version, file, sha256)).extractall(packages)
    env = {
        "PATH": os.environ["PATH"],
        # Before the Django 6 of the environment that the tests run in.
        "PYTHONPATH": str(packages),
        "DJANGO_SETTINGS_MODULE": "settings",
        "DATABASE_URL": postgres_server.url(DATABASE),
    }
    found = Project(tmp_path, env)
    found.python("manage.py", "migrate", "--verbosity=0")
    return found


@pytest.mark.parametrize("slots", [[], ["--processes=2", "--threads=2"]], ids=["one slot", "four slots"])
def test_it_runs_the_tasks_of_a_project_on_django_5_2(project: Project, slots: list[str]) -> None:
    project.python("results.py", "enqueue")

    launcher = str(RUNTIME / "django_db_worker")
    flags = ["--batch", "--interval=0.1", "--no-startup-delay"]
    project.python(launcher, "manage.py", "db_worker", *flags, *slots)

    django, rows = json.loads(project.python("results.py", "read"))
    assert django == "5.2.19"
    assert rows == [["SUCCESSFUL", number + 1] for number in range(20)] + [["FAILED", None]]


def test_its_migration_runs_on_django_5_2(project: Project) -> None:
    path = f"{project.env['PYTHONPATH']}:{RUNTIME}"
    installed = replace(project, env={**project.env, "PYTHONPATH": path, "MORE_APPS": "django_db_worker"})
    assert "Applying django_db_worker.0001_setup... OK" in installed.python("manage.py", "migrate")
    installed.python("manage.py", "db_worker_setup", "--check")
    installed.python("manage.py", "makemigrations", "--check", "--dry-run")
    installed.python("manage.py", "migrate", "django_db_worker", "zero")
