"""--max-memory-per-process: the process that grows is replaced, and no other."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from tests.waiting import eventually
from tests.worker.harness import children

if TYPE_CHECKING:
    from tests.worker.harness import Project


def test_a_process_that_has_grown_is_replaced_between_tasks(shared: Project) -> None:
    worker = shared.worker("--threads=2", "--max-memory-per-process=300Mi", "--interval=0.1")
    running = shared.enqueue_one("note", "ran", 4)
    worker.runs()
    grown = shared.enqueue_one("hoard", 300)
    worker.says("It is replaced when its tasks have finished")
    # A task that is claimed from now on runs in the new process.
    after = shared.enqueue_one("who")
    assert shared.finished(running)["status"] == "SUCCESSFUL"
    first = shared.finished(grown)["return_value"]
    assert shared.finished(after)["return_value"]["pid"] != first
    assert [entry["pid"] for entry in shared.entries()] == [first]
    assert {len(row["worker_ids"]) for row in shared.results().values()} == {1}
    assert worker.terminate() == 0
    assert "ended by signal" not in worker.output


def test_a_batch_goes_on_in_a_fresh_process(shared: Project) -> None:
    shared.enqueue("hoard", 300, 1, times=2)
    shared.enqueue("who", times=2)
    shared.batch("--max-memory-per-process=300Mi")
    assert shared.statuses() == {"SUCCESSFUL": 4}


def test_one_that_grows_without_end_is_killed_alone(shared: Project) -> None:
    worker = shared.worker("--processes=2", "--max-memory-per-process=200Mi", "--interval=0.1")
    first = eventually(lambda: len(children(worker.pid)) == 2 and children(worker.pid), "two processes")
    beside = shared.enqueue_one("note", "ran", 5, priority=100)
    worker.runs()
    grows = shared.enqueue_one("hoard_without_end")
    others = shared.enqueue("note", times=10)
    row = shared.finished(grows)
    assert (row["status"], row["exception_class_path"]) == ("FAILED", "builtins.MemoryError"), row
    assert "it may use 200 MiB (maxMemoryPerProcess, --max-memory-per-process)" in row["traceback"]
    assert {shared.finished(one)["status"] for one in [beside, *others]} == {"SUCCESSFUL"}
    assert {len(row["worker_ids"]) for row in shared.results().values()} == {1}
    assert len(set(children(worker.pid)) & set(first)) == 1
    assert worker.terminate() == 0
    assert worker.output.count("It is killed.") == 1


def test_who_takes_the_memory_of_a_container_is_said_while_it_is_short(
    postgres: Project, tmp_path: Path
) -> None:
    def use(mebibytes: int) -> None:
        (tmp_path / "memory.current").write_text(f"{mebibytes * 2**20}\n")

    log = tmp_path / "termination-log"
    log.touch()
    (tmp_path / "memory.max").write_text(f"{1000 * 2**20}\n")
    (tmp_path / "memory.stat").write_text("inactive_file 0\n")
    use(100)
    worker = postgres.worker(
        "--processes=2", "--interval=0.1", manage="contained.py", CONTAINER=str(tmp_path)
    )
    postgres.enqueue_one("note", "ran", 600)
    worker.runs()
    greedy = postgres.enqueue_one("hoard", 300, 600)
    worker.runs(2)
    assert log.read_text() == ""

    use(950)
    # Until it has grown, the other one is as suspicious.
    said = re.compile(
        rf"Short of memory \(950 of 1000 MiB\): process [12] takes \d+ MiB for task {greedy}\.\n"
    )
    eventually(lambda: said.fullmatch(log.read_text()), "the one that grew is named, and no other")
    use(600)
    eventually(lambda: log.read_text() == "", "memory is not short any more")

    use(950)
    eventually(lambda: greedy in log.read_text(), "it is short again")
    # What ends the worker now is something else, and its log says what.
    worker.signal(signal.SIGTERM)
    worker.signal(signal.SIGQUIT)
    worker.wait()
    assert log.read_text() == ""


def test_a_limit_below_what_a_process_begins_with(postgres: Project) -> None:
    worker = postgres.worker("--max-memory-per-process=1Mi")
    assert worker.wait() == 1
    assert "--max-memory-per-process is 1 MiB, but a process of this project has" in worker.output
    assert "Traceback" not in worker.output


def test_the_kernel_takes_a_process_before_the_supervisor(postgres: Project) -> None:
    worker = postgres.worker("--processes=2", "--interval=0.1")
    below = eventually(lambda: len(children(worker.pid)) == 2 and children(worker.pid), "two processes")
    postgres.finished(postgres.enqueue_one("nothing"))

    def score(pid: int) -> int:
        return int(Path(f"/proc/{pid}/oom_score_adj").read_text())

    eventually(
        lambda: [score(pid) for pid in below] == [min(1000, score(worker.pid) + 500)] * 2, "they volunteer"
    )
    assert worker.terminate() == 0
