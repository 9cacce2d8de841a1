"""/healthz, /readyz and /metrics of a worker, over all of its processes."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.databases import free_port, running_postgres
from tests.worker.harness import PROJECT, Project, Worker, children, eventually, get

if TYPE_CHECKING:
    from collections.abc import Iterator

LAYOUTS = [[], ["--processes=2", "--threads=2"]]


@pytest.fixture
def port() -> int:
    return free_port()


def metrics(port: int) -> dict[str, float]:
    """Each sample under its name and labels; all of it must be what Prometheus can read."""
    code, text = get(port, "/metrics")
    assert code == 200
    return {
        sample.name + "".join(f" {key}={value}" for key, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def total(port: int, prefix: str) -> float:
    return sum(value for name, value in metrics(port).items() if name.startswith(prefix))


def start(project: Project, port: int, *flags: str) -> Worker:
    worker = project.worker(*flags, f"--health-port={port}", "--interval=0.1")
    eventually(lambda: get(port, "/readyz")[0] == 200, "it is ready")
    return worker


@pytest.mark.parametrize("layout", LAYOUTS)
def test_counts_over_all_processes(postgres: Project, port: int, layout: list[str]) -> None:
    worker = start(postgres, port, *layout)
    assert get(port, "/healthz")[0] == 200
    postgres.enqueue("nap", 0.02, times=30)
    postgres.enqueue("fail", "x", times=5)
    postgres.all_finished(35)
    seen = eventually(
        lambda: total(port, "django_db_worker_tasks_started_total") == 35 and metrics(port), "all are counted"
    )
    finished = {
        name: value
        for name, value in seen.items()
        if name.startswith("django_db_worker_tasks_finished_total")
    }
    assert sum(value for name, value in finished.items() if "status=SUCCESSFUL" in name) == 30
    assert sum(value for name, value in finished.items() if "status=FAILED" in name) == 5
    assert total(port, "django_db_worker_task_duration_seconds_count") == 35
    assert total(port, "django_db_worker_task_duration_seconds_sum") >= 30 * 0.02
    assert total(port, "django_db_worker_task_queue_wait_seconds_count") == 35
    assert get(port, "/nothing")[0] == 404
    assert worker.terminate() == 0


def test_a_long_task_is_neither_sick_nor_unready(postgres: Project, port: int) -> None:
    worker = start(postgres, port, "--processes=2")
    task = postgres.enqueue_one("nap", 3)
    eventually(lambda: postgres.result(task)["status"] == "RUNNING", "it runs")
    until = time.monotonic() + 2
    while time.monotonic() < until:
        assert get(port, "/healthz")[0] == 200
        assert get(port, "/readyz")[0] == 200
        time.sleep(0.2)
    assert worker.terminate() == 0


def test_a_drain_answers_until_its_end(postgres: Project, port: int) -> None:
    worker = start(postgres, port, "--processes=2")
    task = postgres.enqueue_one("note", "ran", 2)
    worker.runs()
    worker.signal(signal.SIGTERM)
    eventually(lambda: get(port, "/readyz")[0] == 503, "it is no longer ready", within_s=2)
    assert get(port, "/healthz")[0] == 200
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
def own_server() -> Iterator[tuple[Project, object]]:
    with running_postgres() as server:
        project = Project(server.url())
        project.migrate()
        yield project, server
        project.clear()
        project.close()


def test_unready_but_alive_without_a_database(own_server, port: int) -> None:
    project, server = own_server
    worker = start(project, port, "--processes=2")
    server.stop()
    eventually(lambda: get(port, "/readyz")[0] == 503, "it is not ready", within_s=10)
    assert get(port, "/healthz")[0] == 200
    server.start()
    eventually(lambda: get(port, "/readyz")[0] == 200, "it is ready again", within_s=15)
    assert worker.terminate() == 0


def test_a_process_that_hangs_is_noticed_and_replaced(postgres: Project, port: int) -> None:
    argv = [sys.executable, "impatient.py", "db_worker", "--processes=2", f"--health-port={port}"]
    worker = Worker([*argv, "--interval=0.1", "--no-startup-delay"], postgres.env(), PROJECT)
    postgres.workers.append(worker)
    eventually(lambda: get(port, "/readyz")[0] == 200, "it is ready")
    stopped = children(worker.pid)[0]
    os.kill(stopped, signal.SIGSTOP)
    code, text = eventually(
        lambda: get(port, "/healthz")[0] == 503 and get(port, "/healthz"), "it is noticed"
    )
    assert (code, text) == (503, "stuck: 1.1\n")
    postgres.enqueue("nothing", times=5)
    postgres.all_finished(5)
    eventually(lambda: stopped not in children(worker.pid), "it is gone")
    eventually(lambda: get(port, "/healthz")[0] == 200 and len(children(worker.pid)) == 2, "it is replaced")
    assert "Worker process 1 is stuck. It will be replaced." in worker.output
    assert worker.terminate() == 0


def test_metrics_say_nothing_secret(postgres: Project, port: int) -> None:
    worker = start(postgres, port)
    _, text = get(port, "/metrics")
    assert not re.search(r"127\.0\.0\.1:|password|://", text)
    assert worker.terminate() == 0
