"""How a worker ends: whenever it is asked to, no row stays RUNNING and no task runs twice."""

from __future__ import annotations

import json
import os
import signal
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.databases import free_port
from tests.waiting import eventually, in_one_of
from tests.worker.harness import children, get, state

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
        # The others were asked to end before they had handlers, and so before they could claim.
        assert set(said["codes"]) <= {"0", "-15"}, (said, done.stderr)
        assert said["codes"]["0"] > ends / 2
        assert said["longest"] < 60
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
def test_what_runs_is_finished_and_nothing_new_is_begun(
    shared: Project, tmp_path: Path, layout: list[str]
) -> None:
    slots, gate, port = (4 if layout else 1), tmp_path / "gate", free_port()
    running = shared.enqueue("note", "ran", 0, str(gate), times=slots)
    if layout:
        layout = [*layout, f"--health-port={port}"]
    worker = shared.worker(*layout, "--interval=0.1")
    worker.runs(slots)
    waiting = shared.enqueue("note", times=20)
    told = time.time()
    worker.signal(signal.SIGTERM)
    worker.says("shutting down gracefully")
    if layout:
        # A supervisor that answers has already asked its processes.
        eventually(lambda: get(port, "/readyz")[0] == 503, "the supervisor passes the signal on")
        eventually(lambda: not any(map(has_yet_to_heed_sigterm, children(worker.pid))), "all have heard it")
    gate.touch()
    assert worker.wait() == 0
    rows = shared.results()
    assert {rows[one]["status"] for one in running} == {"SUCCESSFUL"}
    assert {rows[one]["status"] for one in waiting} == {"READY"}
    assert max(row["started_at"] for row in rows.values() if row["started_at"]) < told
    assert len(shared.entries()) == slots


def has_yet_to_heed_sigterm(pid: int) -> bool:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (pending,) = (int(line.split()[1], 16) for line in lines if line.startswith("ShdPnd:"))
    return bool(pending & 1 << (signal.SIGTERM - 1))


@pytest.mark.alone
@pytest.mark.parametrize(
    ("layout", "slots"),
    [([], 1), (["--processes=2"], 2), (["--threads=4"], 4), (["--processes=2", "--threads=2"], 4)],
)
def test_an_idle_worker_ends_at_once(
    postgres: Project, tmp_path: Path, layout: list[str], slots: int
) -> None:
    def attempt() -> float:
        folder = tmp_path / str(uuid.uuid4())
        folder.mkdir()
        # After a task in each slot there is nothing to do for an hour.
        tasks = postgres.enqueue("meet", str(folder), slots, times=slots)
        worker = postgres.worker(*layout, "--interval=3600")
        for one in tasks:
            postgres.finished(one)
        began = time.monotonic()
        assert worker.terminate() == 0
        return time.monotonic() - began

    in_one_of(5, 1.0, attempt)


@pytest.mark.alone
@pytest.mark.parametrize("layout", [["--processes=2"], ["--threads=2"], ["--processes=2", "--threads=2"], []])
def test_a_second_signal_ends_at_once(postgres: Project, layout: list[str]) -> None:
    def attempt() -> float:
        task = postgres.enqueue_one("nap", 600)
        worker = postgres.worker(*layout)
        worker.runs()
        below = children(worker.pid)
        worker.signal(signal.SIGTERM)
        worker.says("shutting down gracefully")
        assert postgres.result(task)["status"] == "RUNNING"
        assert worker.process.poll() is None
        worker.signal(signal.SIGTERM)
        began = time.monotonic()
        # As upstream: it was asked to end, and it did.
        assert worker.wait() == 0
        took = time.monotonic() - began
        assert [pid for pid in below if state(pid) not in {"", "Z"}] == []
        row = postgres.result(task)
        assert (row["status"], row["exception_class_path"]) == ("FAILED", "builtins.SystemExit")
        return took

    # A process that does not end is killed after five seconds.
    in_one_of(3, 3.0, attempt)


def test_ctrl_c_in_a_terminal_reaches_every_process_and_counts_once(
    postgres: Project, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    tasks = postgres.enqueue("note", "ran", 0, str(gate), times=2)
    worker = postgres.worker("--processes=2")
    worker.runs(2)
    os.killpg(worker.pid, signal.SIGINT)
    worker.says("shutting down gracefully")
    gate.touch()
    assert worker.wait() == 0
    assert "terminating current task" not in worker.output
    assert {postgres.result(one)["status"] for one in tasks} == {"SUCCESSFUL"}


def test_processes_end_with_a_supervisor_that_was_killed(postgres: Project, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    task = postgres.enqueue_one("note", "ran", 0, str(gate))
    worker = postgres.worker("--processes=2", "--interval=0.1")
    worker.runs()
    below = children(worker.pid)
    assert len(below) == 2
    worker.signal(signal.SIGKILL)
    worker.process.wait()

    def alive() -> int:
        return sum(state(pid) not in {"", "Z"} for pid in below)

    eventually(lambda: alive() == 1, "the idle one is gone")
    left = postgres.enqueue_one("note")
    gate.touch()
    eventually(lambda: alive() == 0, "the other one is gone")
    assert postgres.result(task)["status"] == "SUCCESSFUL"
    assert postgres.result(left)["status"] == "READY"


def test_a_killed_worker_leaves_its_row_as_upstreams_does(project: Project) -> None:
    task = project.enqueue_one("nap", 60)
    worker = project.worker("--worker-id=me")
    worker.runs()
    worker.kill()
    row = project.result(task)
    assert (row["status"], row["worker_ids"]) == ("RUNNING", ["me"])
