"""--task-timeout: a task that runs too long fails, with its stack, and no other task is affected."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import pytest
from tests.databases import free_port
from tests.waiting import eventually
from tests.worker.harness import children

if TYPE_CHECKING:
    from tests.worker.harness import Project


def assert_timed_out(row: dict[str, Any], seconds: int, said: str = "") -> None:
    ended = row["status"], row["exception_class_path"]
    assert ended == ("FAILED", "builtins.TimeoutError"), f"{row['traceback']}\n{said}"
    assert f"still running after {seconds} s (taskTimeoutSeconds, --task-timeout)" in row["traceback"]
    assert len(row["worker_ids"]) == 1


@pytest.mark.parametrize(
    "layout", [[], ["--threads=2"], ["--processes=2", "--threads=2"]], ids=["1", "1x2", "2x2"]
)
def test_the_row_says_where_its_task_was_and_the_others_run_on(shared: Project, layout: list[str]) -> None:
    late = shared.enqueue("overrun", times=2)
    others = shared.enqueue("note", "ran", 0.1, times=12)
    worker = shared.worker(*layout, "--task-timeout=3", "--interval=0.1")
    shared.all_finished(len(late + others))
    rows = shared.results()
    for one in late:
        assert_timed_out(rows[one], 3)
        said = rows[one]["traceback"]
        # As in any traceback, the innermost call is the last.
        assert said.index("in overrun") < said.index("in stand_still")
        assert "chores.py" in said
        assert "slot.py" in said
    assert {rows[one]["status"] for one in others} == {"SUCCESSFUL"}
    assert len(shared.entries()) == len(others)
    assert worker.terminate() == 0
    assert "Giving up" not in worker.output
    assert "ended by signal" not in worker.output, "it is no crash"


def test_a_batch_goes_on_after_a_task_that_ran_too_long(shared: Project) -> None:
    late = shared.enqueue_one("overrun")
    others = shared.enqueue("note", times=5)
    said = shared.batch("--task-timeout=2", f"--health-port={free_port()}")
    assert_timed_out(shared.result(late), 2, said)
    assert {shared.result(one)["status"] for one in others} == {"SUCCESSFUL"}


def test_a_process_that_dies_of_being_asked_has_timed_out_as_well(postgres: Project) -> None:
    late = postgres.enqueue_one("overrun_without_answer")
    others = postgres.enqueue("note", times=5)
    said = postgres.batch("--task-timeout=2", f"--health-port={free_port()}")
    assert "ended by signal" in said
    assert_timed_out(postgres.result(late), 2, said)
    assert {postgres.result(one)["status"] for one in others} == {"SUCCESSFUL"}


def test_what_runs_beside_it_finishes_and_what_comes_later_gets_a_fresh_process(shared: Project) -> None:
    worker = shared.worker("--threads=2", "--task-timeout=8", "--interval=0.1")
    late = shared.enqueue_one("overrun")
    worker.runs()
    (first,) = children(worker.pid)
    began = time.monotonic()
    eventually(lambda: time.monotonic() - began > 5, "most of its time is over")
    beside = shared.enqueue_one("note", "ran", 5)
    worker.says("will be ended")
    # While a task finishes, the process claims no more tasks.
    after = shared.enqueue_one("who")
    assert shared.finished(beside)["status"] == "SUCCESSFUL"
    assert shared.finished(after)["return_value"]["pid"] != first
    assert_timed_out(shared.finished(late), 8)
    assert [entry["pid"] for entry in shared.entries()] == [first]
    assert {len(row["worker_ids"]) for row in shared.results().values()} == {1}
    assert worker.terminate() == 0


@pytest.mark.parametrize("layout", [[], ["--threads=2"]], ids=["1", "1x2"])
def test_one_that_lets_no_other_thread_run(shared: Project, layout: list[str]) -> None:
    late = shared.enqueue_one("overrun_in_c")
    worker = shared.worker(*layout, "--task-timeout=2", "--interval=0.1")
    row = shared.finished(late)
    assert_timed_out(row, 2)
    assert "in overrun_in_c" in row["traceback"]
    assert shared.finished(shared.enqueue_one("note"))["status"] == "SUCCESSFUL"
    assert worker.terminate() == 0


def test_a_worker_that_ends_ends_it_too(shared: Project) -> None:
    late = shared.enqueue_one("overrun")
    worker = shared.worker("--task-timeout=4", "--interval=0.1")
    worker.runs()
    waiting = shared.enqueue_one("note")
    assert worker.terminate(60) == 0
    assert_timed_out(shared.result(late), 4)
    assert shared.result(waiting)["status"] == "READY"


def test_a_receiver_that_does_not_return_costs_the_task_nothing(shared: Project) -> None:
    done = shared.enqueue("note", times=2)
    worker = shared.worker("--task-timeout=2", "--interval=0.1", POISONED_RECEIVERS="hang")
    for one in done:
        assert shared.finished(one)["status"] == "SUCCESSFUL"
    eventually(lambda: worker.output.count("A receiver of task_finished has run for") >= 2, "both are ended")
    assert len(shared.entries()) == 2
    assert worker.terminate() == 0


def test_a_killed_process_is_no_time_out(postgres: Project) -> None:
    task = postgres.enqueue_one("nap", 60)
    worker = postgres.worker("--task-timeout=1000", "--interval=0.1")
    worker.runs()
    (process,) = children(worker.pid)
    os.kill(process, 9)
    row = postgres.finished(task)
    assert row["exception_class_path"] == "builtins.ChildProcessError"
    assert worker.terminate() == 0
