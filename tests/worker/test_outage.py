"""A database that goes away and comes back: nothing crashes, nothing is lost, and one line says so."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from tests.databases import running_mariadb, running_postgres
from tests.worker.harness import Project, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(params=["postgres", "mariadb"])
def restartable(request: pytest.FixtureRequest) -> Iterator[tuple[Project, Callable[[float], None]]]:
    """A project on a server of its own, and a way to take that away for some seconds."""
    running = {"postgres": running_postgres, "mariadb": running_mariadb}[request.param]
    with running() as server:
        project = Project(server.url())
        project.migrate()

        def away(seconds: float) -> None:
            server.stop()
            time.sleep(seconds)
            server.start()

        yield project, away
        for worker in project.workers:
            worker.kill()
        project.close()


def test_a_restart_of_the_database(restartable: tuple[Project, Callable[[float], None]]) -> None:
    project, away = restartable
    worker = project.worker("--processes=2", "--threads=2", "--interval=0.1")
    before = project.enqueue("nap", 0.05, times=200)
    long = project.enqueue_one("nap", 4, priority=100)
    eventually(lambda: project.statuses().get("SUCCESSFUL", 0) > 10, "it works")
    eventually(lambda: project.result(long)["status"] == "RUNNING", "the long one runs")
    project.close()
    away(1.0)
    # It began before the outage and ended after it: its result waited for the database.
    project.finished(long, within_s=30)
    after = project.enqueue("note", times=20)
    everything = [*before, long, *after]
    project.all_finished(len(everything))
    assert project.statuses() == {"SUCCESSFUL": len(everything)}
    assert worker.process.poll() is None
    assert worker.terminate() == 0
    assert all(worker.output.count(f"id={one} path=") == 2 for one in everything), "each began and ended once"
    assert worker.output.count("does not answer") == 1, worker.output
    assert worker.output.count("answers again") == 1, worker.output
    assert "Traceback" not in worker.output
    assert "127.0.0.1" not in worker.output


def test_a_task_that_meets_the_outage_fails_alone(
    restartable: tuple[Project, Callable[[float], None]],
) -> None:
    project, away = restartable
    worker = project.worker("--interval=0.1")
    met = project.enqueue_one("note", "met it", 3)
    eventually(lambda: project.result(met)["status"] == "RUNNING", "it runs")
    project.close()
    away(0.5)
    # Its connection was made before the outage and its query comes after it.
    assert project.finished(met)["status"] == "FAILED"
    assert project.result(met)["exception_class_path"].endswith("OperationalError")
    assert project.finished(project.enqueue_one("note"))["status"] == "SUCCESSFUL"
    assert worker.terminate() == 0


def test_a_database_that_is_not_there_yet(restartable: tuple[Project, Callable[[float], None]]) -> None:
    project, _ = restartable
    elsewhere = Project(project.url.replace("127.0.0.1", "127.0.0.2"))
    worker = elsewhere.worker("--interval=0.1")
    try:
        worker.says("does not answer")
        time.sleep(1)
        assert worker.process.poll() is None
        assert "Traceback" not in worker.output
        assert worker.terminate(5) == 0
    finally:
        worker.kill()
