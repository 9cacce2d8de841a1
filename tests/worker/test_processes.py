"""Processes and threads: who runs what, what happens when one dies, and when to stop."""

from __future__ import annotations

import os
import re
import signal
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from tests.waiting import eventually
from tests.worker.harness import children, state

if TYPE_CHECKING:
    from pathlib import Path

    from tests.worker.harness import Project


def workers_of(project: Project) -> Counter[str]:
    return Counter(row["worker_ids"][-1] for row in project.results().values() if row["worker_ids"])


def test_every_slot_runs_tasks_under_its_own_id(shared: Project, tmp_path: Path) -> None:
    shared.enqueue("meet", str(tmp_path), 6, times=6)
    shared.enqueue("note", times=54)
    shared.batch("--processes=2", "--threads=3", "--worker-id=pod-7")
    entries = shared.entries()
    assert len(entries) == len({entry["task"] for entry in entries}) == 60
    assert len({entry["pid"] for entry in entries}) == 2
    assert len({entry["thread"] for entry in entries}) == 6
    ids = workers_of(shared)
    assert len(ids) == 6
    assert all(re.fullmatch(r"pod-7/\d\.\d", one) for one in ids), ids
    assert all(len(row["worker_ids"]) == 1 for row in shared.results().values())


def test_one_slot_keeps_the_id_that_it_was_given(postgres: Project) -> None:
    postgres.enqueue("nothing")
    postgres.batch("--worker-id=" + "x" * 64)
    assert workers_of(postgres) == {"x" * 64: 1}


def test_the_worker_id_from_the_environment(postgres: Project) -> None:
    postgres.enqueue("nothing")
    postgres.batch(DB_WORKER_ID="from-the-pod")
    (one,) = workers_of(postgres)
    assert one.startswith("from-the-pod")


def test_threads_share_a_process_and_run_at_once(shared: Project, tmp_path: Path) -> None:
    shared.enqueue("meet", str(tmp_path), 8, times=8)
    worker = shared.worker("--threads=8")
    shared.all_finished(8)
    assert shared.statuses() == {"SUCCESSFUL": 8}
    assert len({entry["pid"] for entry in shared.entries()}) == 1
    assert len({entry["thread"] for entry in shared.entries()}) == 8
    assert worker.terminate() == 0


@pytest.mark.parametrize("layout", [["--processes=2"], ["--processes=2", "--threads=2"], ["--threads=3"]])
def test_a_batch_ends_when_nothing_is_left(postgres: Project, layout: list[str]) -> None:
    postgres.enqueue("note", times=12)
    later = postgres.enqueue_one("note", run_after=3600)
    postgres.batch(*layout)
    assert postgres.statuses() == {"SUCCESSFUL": 12, "READY": 1}
    assert postgres.result(later)["status"] == "READY"


def test_max_tasks_ends_a_single_process_as_upstream(project: Project) -> None:
    project.enqueue("note", times=5)
    worker = project.worker("--max-tasks=2")
    assert worker.wait() == 0
    assert "Run maximum tasks (2)" in worker.output
    assert project.statuses() == {"SUCCESSFUL": 2, "READY": 3}


def test_max_tasks_of_several_processes_replaces_them(postgres: Project) -> None:
    worker = postgres.worker("--processes=2", "--max-tasks=5", "--interval=0.1")
    # One process at a time is replaced; meanwhile the other may run more than its number, even all.
    for tasks in range(30, 600, 30):
        postgres.enqueue("note", times=30)
        postgres.all_finished(tasks)
        if len({entry["pid"] for entry in postgres.entries()}) >= 3:
            break
    assert len({entry["pid"] for entry in postgres.entries()}) >= 3
    assert len({entry["task"] for entry in postgres.entries()}) == tasks
    assert worker.terminate() == 0
    assert not [row for row in postgres.results().values() if row["status"] == "RUNNING"]


@pytest.mark.parametrize("end", ["os._exit(3)", "SIGKILL"])
def test_a_process_that_dies_is_replaced_and_the_others_work_on(
    postgres: Project, tmp_path: Path, end: str
) -> None:
    """Its replacement stores that the lost task has failed: nobody else knows that."""
    worker = postgres.worker("--processes=2", "--interval=0.1", "--worker-id=pod")
    first = eventually(lambda: len(children(worker.pid)) == 2 and children(worker.pid), "two processes")
    before = postgres.enqueue("note", "ran", 0.3, times=4)
    lost = postgres.enqueue_one("crash", 3) if end != "SIGKILL" else postgres.enqueue_one("note", "never", 60)
    if end == "SIGKILL":
        row = eventually(
            lambda: postgres.result(lost)["status"] == "RUNNING" and postgres.result(lost), "running"
        )
        position = int(row["worker_ids"][0].removeprefix("pod/").partition(".")[0]) - 1
        victim = first[position]
        worker.says(f"id={lost} path=chores.note state=RUNNING")
        os.kill(victim, signal.SIGKILL)
    eventually(lambda: len(set(children(worker.pid)) - set(first)) == 1, "one process is new")
    eventually(lambda: not [pid for pid in children(worker.pid) if state(pid) == "Z"], "no zombie")
    assert len(set(children(worker.pid)) & set(first)) == 1
    after = postgres.enqueue("meet", str(tmp_path), 2, times=2)
    for one in before + after:
        assert postgres.finished(one)["status"] == "SUCCESSFUL"
    assert len({entry["pid"] for entry in postgres.entries() if entry["task"] in after}) == 2
    row = postgres.result(lost)
    assert row["status"] == "FAILED"
    assert row["exception_class_path"] == "builtins.ChildProcessError"
    assert row["worker_ids"][0].startswith("pod/")
    assert worker.terminate() == 0


def test_a_process_that_dies_again_and_again_is_started_less_and_less_often(postgres: Project) -> None:
    postgres.enqueue("crash", 1, times=100)
    worker = postgres.worker("--processes=2", "--interval=0.1", "--worker-id=pod")

    def starts(slot: str) -> list[float]:
        rows = postgres.results().values()
        return sorted(row["started_at"] for row in rows if row["worker_ids"] == [f"pod/{slot}"])

    for slot in ("1.1", "2.1"):
        times = eventually(lambda: len(times := starts(slot)) >= 5 and times, f"{slot} has died 5 times")  # noqa: B023
        # A busy machine makes the pauses longer, never shorter.
        for pause, (one, next_one) in zip((0.5, 1, 2, 4), pairwise(times), strict=False):
            assert next_one - one > 0.9 * pause, times
    assert worker.process.poll() is None
    assert worker.terminate() == 0
    rows = [row for row in postgres.results().values() if row["status"] != "READY"]
    assert {row["status"] for row in rows} == {"FAILED"}
    assert {row["exception_class_path"] for row in rows} == {"builtins.ChildProcessError"}


def test_grandchildren_are_reaped(postgres: Project) -> None:
    """As PID 1 of a container, the supervisor inherits processes that tasks leave behind."""
    worker = postgres.worker("--processes=2", "--interval=0.1", as_init=True)
    eventually(lambda: len(children(worker.pid)) == 2, "two processes")
    left = [postgres.finished(one)["return_value"] for one in postgres.enqueue("leave_a_grandchild", times=3)]
    first = children(worker.pid)
    postgres.finished(postgres.enqueue_one("crash", 1))
    assert len(set(children(worker.pid)) & set(first)) == 1
    # A process that nobody reaps keeps its number, as a zombie.
    eventually(lambda: not [pid for pid in [*left, *first] if state(pid) == "Z"], "no zombie is left")
    eventually(lambda: [state(pid) for pid in left] == ["", "", ""], "all grandchildren are reaped")
    assert worker.terminate() == 0


def test_memory_of_two_processes_is_not_one_connection(shared: Project, tmp_path: Path) -> None:
    """Each slot has its own connection, made after the fork."""
    for round_ in range(10):
        folder = tmp_path / f"{round_}"
        folder.mkdir()
        shared.enqueue("connection_id", str(folder), 4, times=4)
    shared.batch("--processes=2", "--threads=2")
    used: dict[str, set[object]] = {}
    for row in shared.results().values():
        assert row["status"] == "SUCCESSFUL"
        used.setdefault(row["worker_ids"][0], set()).add(row["return_value"])
    assert all(len(connections) == 1 for connections in used.values()), used
    assert len(set.union(*used.values())) == len(used) == 4
