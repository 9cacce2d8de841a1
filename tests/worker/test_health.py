"""/healthz, /readyz and /metrics of a worker, over all of its processes."""

from __future__ import annotations

import os
import re
import signal
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.databases import Server, free_port, running_postgres
from tests.waiting import eventually
from tests.worker.harness import Project, Worker, children, get

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LAYOUTS = [[], ["--processes=2", "--threads=2"]]


@pytest.fixture
def port() -> int:
    return free_port()


def metrics(port: int) -> dict[str, float]:
    """Each sample by its name and labels; Prometheus must be able to read all of them."""
    code, text = get(port, "/metrics")
    assert code == 200
    return {
        sample.name + "".join(f" {key}={value}" for key, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def total(port: int, prefix: str) -> float:
    return sum(value for name, value in metrics(port).items() if name.startswith(prefix))


def start(project: Project, port: int, *flags: str, manage: str = "manage.py") -> Worker:
    worker = project.worker(*flags, f"--health-port={port}", "--interval=0.1", manage=manage)
    eventually(lambda: get(port, "/readyz")[0] == 200, "it is ready")
    return worker


def start_two(project: Project, port: int, folder: Path, *, manage: str = "manage.py") -> Worker:
    """Two processes that have both connected, and have no task.

    A machine with little time to give may have started the one long before the other, and a worker is ready
    with the first.
    """
    worker = start(project, port, "--processes=2", manage=manage)
    folder.mkdir()
    project.enqueue("meet", str(folder), 2, times=2)

    def rest() -> bool:
        seen = metrics(port)
        finished = seen["django_db_worker_tasks_finished_total status=SUCCESSFUL"]
        return finished == 2 and seen["django_db_worker_slots_active"] == 0

    eventually(rest, "both have worked and have nothing to do")
    return worker


@pytest.mark.parametrize("layout", LAYOUTS)
def test_counts_over_all_processes(postgres: Project, port: int, layout: list[str]) -> None:
    worker = start(postgres, port, *layout)
    assert get(port, "/healthz")[0] == 200
    postgres.enqueue("nap", 0.02, times=30)
    postgres.enqueue("fail", "x", times=5)
    postgres.all_finished(35)
    seen = eventually(
        # A task is counted a moment after its row is stored.
        lambda: total(port, "django_db_worker_tasks_finished_total") == 35 and metrics(port),
        "all are counted",
    )
    finished = {
        name: value
        for name, value in seen.items()
        if name.startswith("django_db_worker_tasks_finished_total")
    }
    assert sum(value for name, value in finished.items() if "status=SUCCESSFUL" in name) == 30
    assert sum(value for name, value in finished.items() if "status=FAILED" in name) == 5
    assert total(port, "django_db_worker_tasks_started_total") == 35
    by_task = {
        name.partition(" ")[2]: value
        for name, value in seen.items()
        if name.startswith("django_db_worker_finished_by_task_total")
    }
    assert {name: value for name, value in by_task.items() if value} == {
        "status=SUCCESSFUL task=chores.nap": 30,
        "status=FAILED task=chores.fail": 5,
    }
    assert seen["django_db_worker_started_by_task_total task=chores.nap"] == 30
    assert total(port, "django_db_worker_task_duration_seconds_count") == 35
    assert total(port, "django_db_worker_task_duration_seconds_sum") >= 30 * 0.02
    assert total(port, "django_db_worker_task_queue_wait_seconds_count") == 35
    assert seen["django_db_worker_claims_total outcome=claimed"] == 35
    eventually(lambda: metrics(port)["django_db_worker_claims_total outcome=empty"] > 0, "it looks again")
    assert get(port, "/nothing")[0] == 404
    assert worker.terminate() == 0


def test_a_long_task_is_neither_sick_nor_unready(postgres: Project, tmp_path: Path, port: int) -> None:
    gate = tmp_path / "gate"
    worker = start_two(postgres, port, tmp_path / "both", manage="impatient.py")
    task = postgres.enqueue_one("hold", str(gate))
    worker.runs(3)
    busy = int(postgres.result(task)["worker_ids"][0].rpartition("/")[2].partition(".")[0])
    processes = children(worker.pid)
    # The other one stands still from now on. When that is noticed, the task has run for longer.
    os.kill(processes[2 - busy], signal.SIGSTOP)
    code, text = eventually(lambda: (page := get(port, "/healthz"))[0] == 503 and page, "it is noticed")
    assert (code, text) == (503, f"stuck: {3 - busy}.1\n")
    assert get(port, "/readyz")[0] == 200
    eventually(lambda: processes[2 - busy] not in children(worker.pid), "the other one is replaced")
    assert processes[busy - 1] in children(worker.pid)
    eventually(lambda: get(port, "/healthz")[0] == 200, "nothing is stuck")
    gate.touch()
    assert postgres.finished(task)["status"] == "SUCCESSFUL"
    assert worker.output.count("is stuck") == 1
    assert worker.terminate() == 0


def test_a_drain_answers_until_its_end(postgres: Project, tmp_path: Path, port: int) -> None:
    gate = tmp_path / "gate"
    worker = start(postgres, port, "--processes=2")
    task = postgres.enqueue_one("note", "ran", 0, str(gate))
    worker.runs()
    worker.signal(signal.SIGTERM)
    eventually(lambda: get(port, "/readyz")[0] == 503, "it is no longer ready")
    assert get(port, "/healthz")[0] == 200
    gate.touch()
    assert worker.wait() == 0
    assert postgres.result(task)["status"] == "SUCCESSFUL"


def test_the_port_from_the_environment(postgres: Project, port: int) -> None:
    worker = postgres.worker(DB_WORKER_HEALTH_PORT=str(port))
    eventually(lambda: get(port, "/readyz")[0] == 200, "it is ready")
    assert worker.terminate() == 0


def test_counters_survive_a_process_that_is_replaced(postgres: Project, port: int) -> None:
    worker = start(postgres, port, "--processes=2")
    postgres.enqueue("nothing", times=20)
    postgres.all_finished(20)
    eventually(lambda: total(port, "django_db_worker_tasks_finished_total") == 20, "all are counted")
    first = children(worker.pid)
    os.kill(first[0], signal.SIGKILL)
    eventually(lambda: len(set(children(worker.pid)) - set(first)) == 1, "one is new")
    assert get(port, "/healthz")[0] == 200
    assert total(port, "django_db_worker_tasks_started_total") == 20
    postgres.enqueue("nothing", times=5)
    postgres.all_finished(25)
    eventually(lambda: total(port, "django_db_worker_tasks_started_total") == 25, "all are counted")
    assert worker.terminate() == 0


@pytest.fixture
def own_server() -> Iterator[tuple[Project, Server]]:
    with running_postgres() as server:
        project = Project(server.url())
        project.migrate()
        yield project, server
        project.clear()
        project.close()


def test_unready_but_alive_without_a_database(
    own_server: tuple[Project, Server], tmp_path: Path, port: int
) -> None:
    project, server = own_server
    worker = start_two(project, port, tmp_path / "both")
    # The console's connection would end with the server.
    project.close()
    server.stop()
    eventually(lambda: get(port, "/readyz")[0] == 503, "it is not ready")
    assert get(port, "/healthz")[0] == 200
    server.start()
    eventually(lambda: get(port, "/readyz")[0] == 200, "it is ready again")
    eventually(lambda: total(port, "django_db_worker_reconnects_total") >= 2, "both have connected again")
    assert worker.terminate() == 0


def test_a_process_that_hangs_is_noticed_and_replaced(postgres: Project, tmp_path: Path, port: int) -> None:
    worker = start_two(postgres, port, tmp_path / "both", manage="impatient.py")
    stopped = children(worker.pid)[0]
    os.kill(stopped, signal.SIGSTOP)
    code, text = eventually(lambda: (page := get(port, "/healthz"))[0] == 503 and page, "it is noticed")
    assert (code, text) == (503, "stuck: 1.1\n")
    postgres.enqueue("nothing", times=5)
    postgres.all_finished(7)
    eventually(lambda: stopped not in children(worker.pid), "it is gone")
    eventually(lambda: get(port, "/healthz")[0] == 200 and len(children(worker.pid)) == 2, "it is replaced")
    assert "Worker process 1 is stuck. It will be replaced." in worker.output
    assert worker.terminate() == 0


def test_metrics_say_nothing_secret(postgres: Project, port: int) -> None:
    worker = start(postgres, port)
    _, text = get(port, "/metrics")
    assert not re.search(r"127\.0\.0\.1:|password|://", text)
    assert worker.terminate() == 0
