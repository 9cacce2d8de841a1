from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[3] / "worker-image" / "django_db_worker"

MANAGE = """
import os, sys
if __name__ == "__main__":
    os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
    from django.core.management import execute_from_command_line
    execute_from_command_line(sys.argv)
"""
SETTINGS = """
SECRET_KEY = "not a secret"
INSTALLED_APPS = [{apps}]
DATABASES = {{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}}}}
TASKS = {{"default": {{"BACKEND": "django_tasks_db.DatabaseBackend"}}}}
"""


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """The folder alone, in a read-only place."""
    mount = tmp_path / "mount"
    shutil.copytree(FOLDER, mount / "django_db_worker", ignore=shutil.ignore_patterns("__pycache__"))
    for path in [mount, *mount.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    return mount / "django_db_worker"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    directory = tmp_path / "project"
    directory.mkdir()
    (directory / "manage.py").write_text(MANAGE)
    (directory / "settings.py").write_text(SETTINGS.format(apps="'django_tasks_db'"))
    return directory


def launch(copied: Path, directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, str(copied), *arguments],
        cwd=directory,
        env={**environment, "DJANGO_SETTINGS_MODULE": "settings"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("how", [["manage.py"], ["-m", "django"]])
def test_the_commands_are_ours_without_being_installed(copied: Path, project: Path, how: list[str]) -> None:
    told = launch(copied, project, *how, "db_worker", "--help")
    assert told.returncode == 0, told.stderr
    assert "--threads" in told.stdout
    assert "--exclude-queues" in told.stdout
    told = launch(copied, project, *how, "cleanup_tasks", "--help")
    assert "--days" in told.stdout, told.stderr


def advice(copied: Path, project: Path) -> str:
    ask = "from django_db_worker.database import how_to_run; print(how_to_run('db_worker_setup'))"
    asked = launch(copied, project, "manage.py", "shell", "--verbosity=0", "-c", ask)
    assert asked.returncode == 0, asked.stderr
    return asked.stdout.strip()


def test_the_command_that_a_message_names_can_be_run(copied: Path, project: Path) -> None:
    python, *command = shlex.split(advice(copied, project))
    assert python == "python"
    done = subprocess.run(
        [sys.executable, *command], cwd=project, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "needs no other indexes" in done.stdout


def test_with_the_app_a_message_names_manage_py_alone(copied: Path, project: Path) -> None:
    apps = "'django_db_worker', 'django_tasks_db'"
    (project / "settings.py").write_text(SETTINGS.format(apps=apps))
    assert advice(copied, project) == "manage.py db_worker_setup"


def test_another_command_runs_as_without_it(copied: Path, project: Path) -> None:
    assert launch(copied, project, "manage.py", "migrate", "-v0").returncode == 0
    assert launch(copied, project, "manage.py", "db_worker", "--batch").returncode == 0


def test_the_exit_code_is_the_commands(copied: Path, project: Path) -> None:
    told = launch(copied, project, "manage.py", "db_worker", "--queue=nope")
    assert told.returncode == 1
    assert told.stderr.startswith("CommandError: Unknown queue 'nope'")


def test_a_table_that_is_not_there(copied: Path, project: Path) -> None:
    told = launch(copied, project, "manage.py", "db_worker", "--batch", "-v0")
    assert told.returncode == 1
    assert "run `manage.py migrate`" in told.stderr


def test_no_manage_py(copied: Path, tmp_path: Path) -> None:
    told = launch(copied, tmp_path, "manage.py", "db_worker")
    assert told.returncode == 1
    assert told.stderr.strip().startswith("django_db_worker: There is no manage.py in ")


def test_nothing_to_run(copied: Path, tmp_path: Path) -> None:
    assert "Say what to run" in launch(copied, tmp_path).stderr
    assert "-m needs the name" in launch(copied, tmp_path, "-m").stderr


def test_a_project_without_the_app(copied: Path, project: Path) -> None:
    (project / "settings.py").write_text(SETTINGS.format(apps=""))
    told = launch(copied, project, "manage.py", "db_worker")
    assert told.returncode == 1
    assert told.stderr == "Add 'django_tasks_db' to INSTALLED_APPS: there is no task table without it.\n"


@pytest.mark.parametrize(
    ("packages", "sentence"),
    [
        ({}, "Django is not installed"),
        ({"django": "VERSION = (4, 2)\n__version__ = '4.2'"}, "Django 4.2 is too old"),
        ({"django": "VERSION = (6, 0)\n__version__ = '6.0'"}, "django-tasks-db is not installed"),
        (
            {"django": "VERSION = (5, 2)\n__version__ = '5.2'", "django_tasks_db": ""},
            "Django 5.2 has no tasks: install django-tasks-db[compat]",
        ),
    ],
)
def test_an_image_that_lacks_something(
    copied: Path, project: Path, packages: dict[str, str], sentence: str
) -> None:
    for name, text in packages.items():
        (project / name).mkdir()
        (project / name / "__init__.py").write_text(text)
    # -S: Python without the packages that the tests run with.
    told = subprocess.run(
        [sys.executable, "-I", "-S", str(copied), "manage.py", "db_worker"],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert told.returncode == 1
    assert sentence in told.stderr
    assert len(told.stderr.splitlines()) == 1
