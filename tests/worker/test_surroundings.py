"""What a task does to the process that runs it ends with the task."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest
from tests.databases import free_port

if TYPE_CHECKING:
    from tests.worker.harness import Project

PUT_BACK = [
    "working directory",
    "umask",
    "environment",
    "time zone",
    "locale",
    "garbage collection",
    "recursion limit",
    "socket.setdefaulttimeout",
    "resource limits",
    "blocked signals",
]
OF_THE_MAIN_THREAD = ["timer", "handler of SIGTERM", "handler of SIGALRM"]


@pytest.mark.parametrize("layout", ["alone", "supervised", "threads"])
def test_the_next_task_starts_as_the_first_did(shared: Project, layout: str) -> None:
    flags = {"alone": [], "supervised": [f"--health-port={free_port()}"], "threads": ["--threads=2"]}[layout]
    worker = shared.worker(*flags, "--interval=0.1", LANG="C.UTF-8", LC_ALL="C.UTF-8", TZ="Europe/Paris")
    first = shared.finished(shared.enqueue_one("describe_process"))
    upset = shared.finished(shared.enqueue_one("upset_process"))
    # Longer than the timer that was left behind.
    shared.finished(shared.enqueue_one("nap", 1))
    second = shared.finished(shared.enqueue_one("describe_process"))
    assert [row["status"] for row in (first, upset, second)] == ["SUCCESSFUL"] * 3
    assert second["return_value"] == first["return_value"]
    (line,) = [line for line in worker.output.splitlines() if "has changed its process" in line]
    for name in PUT_BACK if layout == "threads" else PUT_BACK + OF_THE_MAIN_THREAD:
        assert name in line
    assert worker.terminate() == 0
    assert worker.output.count("has changed its process") == 1


@pytest.mark.parametrize(
    ("layout", "how"),
    [
        ([], "handled"),
        ([], "blocked"),
        (["--processes=2"], "handled"),
        (["--processes=2"], "ignored"),
        (["--processes=2"], "blocked"),
        (["--threads=2"], "blocked"),
    ],
)
def test_a_worker_ends_in_time_whatever_its_task_does_to_signals(
    shared: Project, layout: list[str], how: str
) -> None:
    deaf = shared.enqueue_one("keep_signals", how, 2)
    worker = shared.worker(*layout, "--interval=0.1")
    worker.says(f"SIGTERM is {how}")
    worker.signal(signal.SIGTERM)
    # A worker that claims it has ignored the signal.
    if layout:
        worker.says("shutting down")
    waiting = shared.enqueue_one("note")
    assert worker.wait() == 0
    assert shared.result(deaf)["status"] == "SUCCESSFUL"
    assert shared.result(waiting)["status"] == "READY"


def test_a_process_that_cannot_be_put_back_is_replaced(shared: Project) -> None:
    shared.enqueue("spoil_process", times=3)
    shared.enqueue("who", times=3)
    # A batch ends when no task is left, not when its process is spoilt.
    output = shared.batch(f"--health-port={free_port()}")
    rows = list(shared.results().values())
    assert {row["status"] for row in rows} == {"SUCCESSFUL"}
    spoilt = [row["return_value"] for row in rows if isinstance(row["return_value"], int)]
    others = {row["return_value"]["pid"] for row in rows if isinstance(row["return_value"], dict)}
    assert len(set(spoilt)) == 3
    assert not others & set(spoilt)
    assert "This cannot be undone" in output
    assert "ended with exit code" not in output
