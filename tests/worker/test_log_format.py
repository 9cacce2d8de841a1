"""--log-format json: the worker's own lines, each of them one object."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.worker.harness import Project

TASK_FIELDS = {"task_id", "task_path", "attempt", "worker_id"}


def parsed(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


@pytest.mark.parametrize("layout", [[], ["--processes=2", "--threads=2"]])
def test_every_line_about_a_task_names_it(postgres: Project, layout: list[str]) -> None:
    good = postgres.enqueue_one("nothing")
    bad = postgres.enqueue_one("fail", 'with "quotes"\nand lines')

    lines = parsed(postgres.batch("--log-format=json", *layout, POD_NAME="emails-1", DB_WORKER_ID="emails-1"))

    assert all({"ts", "level", "logger", "msg", "pod", "process"} <= line.keys() for line in lines)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["ts"]) for line in lines)
    assert {line["pod"] for line in lines} == {"emails-1"}
    for task, path, last in ((good, "chores.nothing", "info"), (bad, "chores.fail", "error")):
        about = [line for line in lines if line.get("task_id") == task]
        assert about[0]["msg"].endswith("state=RUNNING")
        assert about[-1]["level"] == last
        assert {(line["task_path"], line["attempt"]) for line in about} == {(path, 1)}
        (worker,) = {line["worker_id"] for line in about}
        assert [worker] == postgres.result(task)["worker_ids"]
        # No other line is about it.
        assert [line for line in lines if task in line["msg"]] == about
    (error,) = [line["error"] for line in lines if "error" in line]
    assert 'with "quotes"\nand lines' in error
    # Before and after its tasks, a slot has none.
    assert not TASK_FIELDS & lines[0].keys()
    assert not TASK_FIELDS & lines[-1].keys()


def test_a_second_attempt_is_told_from_the_first(postgres: Project) -> None:
    one = postgres.enqueue_one("nothing")
    postgres.batch()
    postgres.ask("update", ids=[one], status="READY", ago={})

    lines = parsed(postgres.batch(DB_WORKER_LOG_FORMAT="json"))

    assert {line["attempt"] for line in lines if line.get("task_id") == one} == {2}


def test_the_projects_own_logging_does_not_repeat_it(postgres: Project) -> None:
    one = postgres.enqueue_one("nothing")
    logging = {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"console": {"class": "logging.StreamHandler"}},
        "loggers": {"django.tasks": {"handlers": ["console"]}},
        "root": {"handlers": ["console"], "level": "INFO"},
    }

    lines = parsed(postgres.batch("--log-format=json", MORE_SETTINGS=json.dumps({"LOGGING": logging})))

    assert sum(one in line["msg"] for line in lines) == 2


def test_a_format_that_there_is_not(postgres: Project) -> None:
    done = postgres.run("db_worker", "--batch", DB_WORKER_LOG_FORMAT="xml")

    assert done.returncode == 1
    assert "--log-format (DB_WORKER_LOG_FORMAT) is text or json, not 'xml': change it." in done.stderr
