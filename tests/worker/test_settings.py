"""The settings TASKS_LOG_LEVEL and TASKS_RESULT_EXPIRATION_DAYS."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.worker.harness import Project

DAY = 24 * 3600


@pytest.mark.parametrize(
    ("level", "flags", "shown"),
    [
        ("INFO", [], True),
        ("info", [], True),
        ("DEBUG", [], True),
        ("WARNING", [], False),
        ("CRITICAL", [], False),
        (None, [], True),
        # An option on the command line takes precedence over the project's setting.
        ("CRITICAL", ["--verbosity=1"], True),
        ("DEBUG", ["--verbosity=0"], False),
    ],
)
def test_log_level(postgres: Project, level: str | None, flags: list[str], shown: bool) -> None:
    one = postgres.enqueue_one("nothing")
    settings = {} if level is None else {"TASKS_LOG_LEVEL": level}
    output = postgres.batch(*flags, MORE_SETTINGS=json.dumps(settings))
    assert (f"Task id={one} path=chores.nothing state=SUCCESSFUL" in output) == shown
    assert ("Starting worker" in output) == shown
    assert output.count(f"id={one}") in {0, 2}


def test_a_logging_setting_of_the_project_is_not_doubled(postgres: Project) -> None:
    one = postgres.enqueue_one("nothing")
    logging = {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"short": {"format": "PROJECT %(message)s"}},
        "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "short"}},
        "root": {"handlers": ["console"], "level": "INFO"},
    }
    output = postgres.batch(MORE_SETTINGS=json.dumps({"LOGGING": logging}))
    assert output.count(f"id={one}") == 2
    assert output.count(f"PROJECT Task id={one}") == 2


def fill(project: Project) -> dict[str, list[str]]:
    rows = {
        "old": project.enqueue("nothing", times=1200),
        "old and failed": project.enqueue("nothing", times=3),
        "recent": project.enqueue("nothing", times=2),
        "waiting": project.enqueue("nothing", times=2),
        "running": project.enqueue("nothing", times=2),
    }
    for name, status, days in [
        ("old", "SUCCESSFUL", 31),
        ("old and failed", "FAILED", 40),
        ("recent", "SUCCESSFUL", 29),
        ("running", "RUNNING", None),
    ]:
        ago = {} if days is None else {"finished_at": days * DAY}
        project.ask("update", ids=rows[name], status=status, ago=ago)
    return rows


def test_cleanup_deletes_what_the_setting_says(project: Project) -> None:
    rows = fill(project)
    done = project.run("cleanup_tasks", MORE_SETTINGS=json.dumps({"TASKS_RESULT_EXPIRATION_DAYS": 30}))
    assert done.returncode == 0, done.stderr
    assert re.search(r"\b1203\b", done.stdout), done.stdout
    assert set(project.results()) == {*rows["recent"], *rows["waiting"], *rows["running"]}
    again = project.run("cleanup_tasks", MORE_SETTINGS=json.dumps({"TASKS_RESULT_EXPIRATION_DAYS": 30}))
    assert re.search(r"\b0\b", again.stdout), again.stdout


@pytest.mark.parametrize("days", [-1, "soon", 1.5, True])
def test_cleanup_refuses_a_setting_that_makes_no_sense(postgres: Project, days: object) -> None:
    rows = fill(postgres)
    done = postgres.run("cleanup_tasks", MORE_SETTINGS=json.dumps({"TASKS_RESULT_EXPIRATION_DAYS": days}))
    assert done.returncode != 0
    assert "TASKS_RESULT_EXPIRATION_DAYS" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(postgres.results()) == sum(len(ids) for ids in rows.values())
