"""A database that goes away and comes back: nothing crashes, nothing is lost, and one line is logged."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from tests.databases import running_mariadb, running_postgres
from tests.waiting import eventually
from tests.worker.harness import Project

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    type Away = Callable[[], AbstractContextManager[None]]


@pytest.fixture(params=["postgres", "mariadb"])
def restartable(request: pytest.FixtureRequest) -> Iterator[tuple[Project, Away]]:
    """A project with its own server, and a way to stop that for a while."""
    running = {"postgres": running_postgres, "mariadb": running_mariadb}[request.param]
    with running() as server:
        project = Project(server.url())
        project.migrate()

        @contextmanager
        def away() -> Iterator[None]:
            project.close()
            server.stop()
            yield
            server.start()

        yield project, away
        for worker in project.workers:
            worker.kill()
        project.close()


def test_a_restart_of_the_database(restartable: tuple[Project, Away], tmp_path: Path) -> None:
    (project, away), gate = restartable, tmp_path / "gate"
    worker = project.worker("--processes=2", "--threads=2", "--interval=0.1")
    before = project.enqueue("nap", 0.05, times=200)
    long = project.enqueue_one("hold", str(gate), priority=100)
    eventually(lambda: project.statuses().get("SUCCESSFUL", 0) > 10, "it works")
    eventually(lambda: project.result(long)["status"] == "RUNNING", "the long one runs")
    with away():
        worker.says("does not answer")
        gate.touch()
        eventually((tmp_path / "gate.passed").exists, "the long one ends")
    # It began before the outage and ended during it, so its result had to wait for the database.
    assert project.finished(long)["status"] == "SUCCESSFUL"
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


def test_a_task_that_meets_the_outage_fails_alone(restartable: tuple[Project, Away], tmp_path: Path) -> None:
    (project, away), gate = restartable, tmp_path / "gate"
    worker = project.worker("--interval=0.1")
    met = project.enqueue_one("note", "met it", 0, str(gate))
    eventually(lambda: project.result(met)["status"] == "RUNNING", "it runs")
    with away():
        pass
    gate.touch()
    # Its connection was made before the outage and its query comes after it.
    assert project.finished(met)["status"] == "FAILED"
    assert project.result(met)["exception_class_path"].endswith("OperationalError")
    assert project.finished(project.enqueue_one("note"))["status"] == "SUCCESSFUL"
    assert worker.terminate() == 0


class Caller:
    """A server that closes every connection at once, and counts them."""

    def __init__(self, listener: socket.socket) -> None:
        self.calls = 0
        self._listener = listener
        threading.Thread(target=self._hang_up, daemon=True).start()

    def _hang_up(self) -> None:
        while True:
            try:
                self._listener.accept()[0].close()
            except OSError:
                return
            self.calls += 1


@pytest.mark.parametrize("scheme", ["postgresql", "mysql"])
def test_a_database_that_is_not_there_yet(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        caller = Caller(listener)
        elsewhere = Project(f"{scheme}://django:x@127.0.0.1:{listener.getsockname()[1]}/tasks")
        worker = elsewhere.worker("--interval=0.1")
        try:
            worker.says("does not answer")
            before = caller.calls
            eventually(lambda: caller.calls >= before + 3, "it goes on trying")
            assert worker.process.poll() is None
            assert "Traceback" not in worker.output
            assert worker.terminate() == 0
        finally:
            worker.kill()
