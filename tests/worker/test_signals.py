"""How a worker ends: at whatever moment it is told to, no row is left RUNNING and no task runs twice."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import TYPE_CHECKING

import pytest
from tests.worker.harness import children, eventually, state

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.worker.harness import Project

ONE = ["--processes=1"]
SEVERAL = [ONE, ["--processes=3"], ["--threads=3"], ["--processes=2", "--threads=2"]]


@pytest.mark.parametrize(
    ("engine", "ends", "layouts"),
    [("postgres", 180, SEVERAL), ("mariadb", 60, SEVERAL), ("sqlite", 60, [ONE])],
)
def test_hundreds_of_ends_at_random_moments(
    project_on: Callable[[str], Project], engine: str, ends: int, layouts: list[list[str]]
) -> None:
    project = project_on(engine)
    try:
        done = project.run("storm", str(ends), json.dumps(layouts))
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout)
        statuses = project.statuses()
        left = {row: about for row, about in project.results().items() if about["status"] == "RUNNING"}
        assert not left, (statuses, left, said, done.stderr)
        assert "FAILED" not in statuses
        # The others were told to end before they could listen, and so before they could claim.
        assert set(said["codes"]) <= {"0", "-15"}, (said, done.stderr)
        assert said["codes"]["0"] > ends / 2
        assert said["longest"] < 20
        project.batch("--verbosity=0")
        rows = project.results()
        assert {row["status"] for row in rows.values()} == {"SUCCESSFUL"}
        ran = [entry["task"] for entry in project.entries()]
        assert len(ran) == len(set(ran)) == len(rows)
        assert len(rows) > ends
        assert all(len(row["worker_ids"]) == 1 for row in rows.values())
    finally:
        project.clear()


@pytest.mark.parametrize("layout", [[], ["--processes=2", "--threads=2"]])
def test_what_runs_is_finished_and_nothing_new_is_begun(shared: Project, layout: list[str]) -> None:
    slots = 4 if layout else 1
    running = shared.enqueue("note", "ran", 2, times=slots)
    worker = shared.worker(*layout, "--interval=0.1")
    worker.runs(slots)
    waiting = shared.enqueue("note", times=20)
    told = time.time()
    worker.signal(signal.SIGTERM)
    assert worker.wait(10) == 0
    rows = shared.results()
    assert {rows[one]["status"] for one in running} == {"SUCCESSFUL"}
    assert {rows[one]["status"] for one in waiting} == {"READY"}
    assert max(row["started_at"] for row in rows.values() if row["started_at"]) < told
    assert len(shared.entries()) == slots


@pytest.mark.parametrize("layout", [[], ["--processes=2"], ["--threads=4"], ["--processes=2", "--threads=2"]])
def test_an_idle_worker_ends_at_once(postgres: Project, layout: list[str]) -> None:
    worker = postgres.worker(*layout, "--interval=3600")
    worker.says("Starting")
    time.sleep(0.5)
    began = time.monotonic()
    assert worker.terminate() == 0
    assert time.monotonic() - began < 1


@pytest.mark.parametrize("layout", [["--processes=2"], ["--threads=2"], ["--processes=2", "--threads=2"], []])
def test_a_second_signal_ends_at_once(postgres: Project, layout: list[str]) -> None:
    task = postgres.enqueue_one("nap", 60)
    worker = postgres.worker(*layout)
    worker.runs()
    below = children(worker.pid)
    worker.signal(signal.SIGTERM)
    time.sleep(0.5)
    assert worker.process.poll() is None
    worker.signal(signal.SIGTERM)
    began = time.monotonic()
    # As upstream: it was asked to end, and it did.
    assert worker.wait(5) == 0
    assert time.monotonic() - began < 3
    assert [pid for pid in below if state(pid) not in {"", "Z"}] == []
    row = postgres.result(task)
    assert (row["status"], row["exception_class_path"]) == ("FAILED", "builtins.SystemExit")


def test_ctrl_c_in_a_terminal_reaches_every_process_and_counts_once(postgres: Project) -> None:
    tasks = postgres.enqueue("note", "ran", 1.5, times=2)
    worker = postgres.worker("--processes=2")
    worker.runs(2)
    os.killpg(worker.pid, signal.SIGINT)
    assert worker.wait(10) == 0
    assert {postgres.result(one)["status"] for one in tasks} == {"SUCCESSFUL"}


def test_processes_end_with_a_supervisor_that_was_killed(postgres: Project) -> None:
    task = postgres.enqueue_one("note", "ran", 1)
    worker = postgres.worker("--processes=2", "--interval=0.1")
    worker.runs()
    below = children(worker.pid)
    worker.signal(signal.SIGKILL)
    worker.process.wait()
    eventually(lambda: not [pid for pid in below if state(pid) not in {"", "Z"}], "its processes are gone")
    assert postgres.result(task)["status"] == "SUCCESSFUL"
    left = postgres.enqueue_one("note")
    time.sleep(0.5)
    assert postgres.result(left)["status"] == "READY"


def test_a_killed_worker_leaves_its_row_as_upstreams_does(project: Project) -> None:
    task = project.enqueue_one("nap", 60)
    worker = project.worker("--worker-id=me")
    worker.runs()
    worker.kill()
    row = project.result(task)
    assert (row["status"], row["worker_ids"]) == ("RUNNING", ["me"])
