"""Threads of the project in the worker's processes: the setting DB_WORKER_AFTER_FORK."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from tests.waiting import eventually
from tests.worker.harness import children

if TYPE_CHECKING:
    from tests.worker.harness import Project, Worker

TWO = ["--processes=2", "--interval=0.1"]


def start(project: Project, *flags: str, hook: object = None) -> Worker:
    settings = {} if hook is None else {"DB_WORKER_AFTER_FORK": hook}
    return project.worker(*flags, MORE_APPS='["beating"]', MORE_SETTINGS=json.dumps(settings))


def test_a_thread_that_ready_started_is_named_with_the_setting_that_helps(shared: Project) -> None:
    worker = start(shared, *TWO)
    row = shared.finished(shared.enqueue_one("beats"))
    assert row["return_value"][1] is False
    (line,) = [line for line in worker.output.splitlines() if "Threads that were started" in line]
    assert "beating-heart" in line
    assert "DB_WORKER_AFTER_FORK" in line
    assert worker.terminate() == 0


def test_the_function_runs_in_each_process_also_in_one_that_replaces_another(shared: Project) -> None:
    worker = start(shared, *TWO, hook="beating.start")
    shared.enqueue("beats", times=4)
    shared.all_finished(4)
    first = eventually(lambda: len(children(worker.pid)) == 2 and children(worker.pid), "two processes")
    shared.finished(shared.enqueue_one("crash", 3))
    eventually(lambda: len(set(children(worker.pid)) - set(first)) == 1, "one is new")
    (fresh,) = set(children(worker.pid)) - set(first)

    def fresh_has_run() -> bool:
        return fresh in [shared.finished(one)["return_value"][0] for one in shared.enqueue("beats", times=4)]

    eventually(fresh_has_run, "the new one has run a task")
    answers = [row["return_value"] for row in shared.results().values() if row["status"] == "SUCCESSFUL"]
    assert [pid for pid, beats in answers if not beats] == []
    assert "Threads that were started" not in worker.output
    assert worker.terminate() == 0


def test_a_worker_that_does_not_fork_keeps_its_threads(shared: Project) -> None:
    worker = start(shared, "--interval=0.1", hook="beating.fail")
    assert shared.finished(shared.enqueue_one("beats"))["return_value"][1] is True
    assert "Threads that were started" not in worker.output
    assert worker.terminate() == 0


@pytest.mark.parametrize(
    ("hook", "sentence"),
    [
        ("beating.strat", "DB_WORKER_AFTER_FORK is 'beating.strat', which cannot be imported"),
        ("nowhere.start", "DB_WORKER_AFTER_FORK is 'nowhere.start', which cannot be imported"),
        ("start", "DB_WORKER_AFTER_FORK is 'start', which cannot be imported"),
        ("beating.not_a_function", "which is not a function: name a function by its dotted path"),
        (["beating.start"], "DB_WORKER_AFTER_FORK is ['beating.start']: name a function by its dotted path"),
        ("beating.broken.start", "'beating.broken.start', whose module raised KeyError when imported."),
    ],
)
def test_a_function_that_is_not_there(postgres: Project, hook: object, sentence: str) -> None:
    worker = start(postgres, *TWO, hook=hook)
    assert worker.wait() == 1
    assert sentence in worker.output
    assert "Traceback" not in worker.output


def test_a_function_that_fails_keeps_its_process_from_working(postgres: Project) -> None:
    waiting = postgres.enqueue_one("note")
    worker = start(postgres, *TWO, hook="beating.fail")
    assert worker.wait() == 4
    assert "The function that DB_WORKER_AFTER_FORK names failed" in worker.output
    assert "no exporter at all" in worker.output
    assert postgres.result(waiting)["status"] == "READY"
