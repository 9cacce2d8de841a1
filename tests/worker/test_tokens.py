"""A project whose database password is a token: each connection is made with the one that is good then."""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING

import psycopg
import pytest
from tests.waiting import eventually
from tests.worker.harness import Project

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.databases import Server
    from tests.worker.harness import Worker


class Issuer:
    """A role whose password is a token in a file."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.role, self.file, self.token = f"iam_{secrets.token_hex(4)}", folder / "token", ""
        self._server = server
        self._run(f"CREATE ROLE {self.role} LOGIN IN ROLE CURRENT_USER")
        self.rotate()

    def _run(self, statement: str) -> None:
        with psycopg.connect(self._server.url(), autocommit=True) as connection:
            connection.execute(statement)

    def rotate(self) -> None:
        """Let only another token in, and write it to the file."""
        self.token = secrets.token_hex(20)
        self._run(f"ALTER ROLE {self.role} PASSWORD '{self.token}' VALID UNTIL 'infinity'")
        self.file.write_text(self.token, "utf-8")

    def expire(self) -> None:
        """Let the token end by itself, and wait until it has."""
        with psycopg.connect(self._server.url(), autocommit=True) as connection:
            (end,) = connection.execute("SELECT (now() + interval '1 second')::text").fetchone() or ("",)
        self._run(f"ALTER ROLE {self.role} VALID UNTIL '{end}'")
        eventually(self._is_refused, "the token has expired")

    def _is_refused(self) -> bool:
        try:
            psycopg.connect(self.url, password=self.token).close()
        except psycopg.OperationalError:
            return True
        return False

    def cut(self) -> None:
        """End the role's connections, so that its clients need others."""
        self._run(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{self.role}'")

    @property
    def url(self) -> str:
        """The database without a password."""
        return f"postgresql://{self.role}@{self._server.url().partition('@')[2]}"


@pytest.fixture
def issuer(postgres_server: Server, tmp_path: Path) -> Issuer:
    return Issuer(postgres_server, tmp_path)


@pytest.fixture
def rotating(postgres: Project, issuer: Issuer) -> Iterator[Project]:
    """The project with the backend of its own; ``postgres`` enqueues and reads as another user."""
    project = Project(issuer.url)
    yield project
    for worker in project.workers:
        worker.kill()


def started(project: Project, issuer: Issuer, *flags: str, **more: object) -> Worker:
    settings = json.dumps({"ENGINE": "rotating", **more})
    return project.worker("--interval=0.1", *flags, TOKEN_FILE=str(issuer.file), MORE_SETTINGS=settings)


@pytest.mark.parametrize("flags", [[], ["--processes=2", "--threads=2"]])
def test_each_connection_is_made_with_the_token_of_the_moment(
    postgres: Project, rotating: Project, issuer: Issuer, flags: list[str]
) -> None:
    worker = started(rotating, issuer, *flags)
    tokens = []
    for _ in range(3):
        ids = postgres.enqueue("note", times=8)
        for one in ids:
            assert postgres.finished(one)["status"] == "SUCCESSFUL"
        tokens.append(issuer.token)
        issuer.rotate()
        issuer.cut()
    assert postgres.finished(postgres.enqueue_one("note"))["status"] == "SUCCESSFUL"
    assert worker.terminate() == 0
    assert "is refused" not in worker.output, worker.output
    assert not any(token in worker.output for token in tokens)


def test_a_token_that_expires_while_no_other_is_there_is_an_outage(
    postgres: Project, rotating: Project, issuer: Issuer
) -> None:
    worker = started(rotating, issuer, "--processes=2")
    assert postgres.finished(postgres.enqueue_one("note"))["status"] == "SUCCESSFUL"
    issuer.expire()
    # Who is connected stays so.
    assert postgres.finished(postgres.enqueue_one("note"))["status"] == "SUCCESSFUL"
    issuer.cut()
    worker.says("password authentication failed")
    waiting = postgres.enqueue_one("note")
    issuer.rotate()
    assert postgres.finished(waiting)["status"] == "SUCCESSFUL"
    worker.says("answers again")
    assert worker.terminate() == 0
    assert "Traceback" not in worker.output, worker.output


def test_a_service_without_tokens_is_an_outage(postgres: Project, rotating: Project, issuer: Issuer) -> None:
    worker = started(rotating, issuer, "--processes=2")
    assert postgres.finished(postgres.enqueue_one("note"))["status"] == "SUCCESSFUL"
    issuer.file.unlink()
    issuer.cut()
    worker.says("Trying until it can")
    waiting = postgres.enqueue_one("note")
    issuer.rotate()
    assert postgres.finished(waiting)["status"] == "SUCCESSFUL"
    assert worker.process.poll() is None
    assert worker.terminate() == 0
    assert "Traceback" not in worker.output, worker.output
