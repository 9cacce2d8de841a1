"""Real database servers in containers, for the tests and benchmarks of whatever talks to them."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg
import pymysql
from tests.waiting import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

USER, NAME = "django", "tasks"
# On every container that tests start, with the run that it belongs to (tests/run).
LABEL = f"django-task-operator-test={os.environ.get('TEST_RUN', 'none')}"


def docker(*args: str) -> str:
    """Run docker and return its output; an error contains its message."""
    done = subprocess.run(["docker", *args], capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    if done.returncode:
        raise RuntimeError(f"docker {args[0]}: {done.stderr.strip()} (images come from `make images`)")
    return done.stdout.strip()


def free_port() -> int:
    """A port of the loopback interface that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclass(frozen=True)
class Server:
    """A database server in a container. Its port stays the same when it is restarted."""

    container: str
    scheme: str
    port: int
    password: str

    def url(self, name: str = NAME) -> str:
        """The URL of one of its databases."""
        return f"{self.scheme}://{USER}:{self.password}@127.0.0.1:{self.port}/{name}"

    def stop(self) -> None:
        """Stop it, and keep its data."""
        docker("stop", "--time=10", self.container)

    def start(self) -> None:
        """Start it again, and wait until it answers."""
        docker("start", self.container)
        self.wait()

    def wait(self) -> None:
        """Wait until it answers."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                self._greet()
            except (psycopg.OperationalError, pymysql.OperationalError, OSError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
            else:
                return

    def _greet(self) -> None:
        if self.scheme == "postgresql":
            psycopg.connect(self.url(), connect_timeout=2).close()
        else:
            connection = pymysql.connect(
                host="127.0.0.1",
                port=self.port,
                user=USER,
                password=self.password,
                database=NAME,
                connect_timeout=2,
            )
            connection.close()


@contextlib.contextmanager
def _running(
    scheme: str, image: str, variables: Callable[[str], dict[str, str]], *flags: str
) -> Iterator[Server]:
    password = uuid.uuid4().hex
    server = Server(f"test-{scheme}-{uuid.uuid4().hex[:8]}", scheme, free_port(), password)
    inside = {"postgresql": 5432, "mysql": 3306}[scheme]
    docker(
        "run",
        "--detach",
        f"--label={LABEL}",
        f"--name={server.container}",
        f"--publish=127.0.0.1:{server.port}:{inside}",
        *(f"--env={key}={value}" for key, value in variables(password).items()),
        image,
        *flags,
    )
    try:
        server.wait()
        yield server
    finally:
        docker("rm", "--force", "--volumes", server.container)


@contextlib.contextmanager
def running_postgres(*flags: str) -> Iterator[Server]:
    """A PostgreSQL whose user may create databases. Without flags, it does not wait for the disk."""
    with _running(
        "postgresql",
        "django-task-postgres:dev",
        lambda password: {"POSTGRES_USER": USER, "POSTGRES_PASSWORD": password, "POSTGRES_DB": NAME},
        *(flags or ("-c", "fsync=off", "-c", "max_connections=200")),
    ) as server:
        yield server


@contextlib.contextmanager
def running_mariadb(*flags: str) -> Iterator[Server]:
    """A MariaDB whose user has rights on its only database."""
    with _running(
        "mysql",
        "django-task-mariadb:dev",
        lambda password: {"MARIADB_USER": USER, "MARIADB_PASSWORD": password, "MARIADB_DATABASE": NAME},
        *(flags or ("--innodb-flush-log-at-trx-commit=0",)),
    ) as server:
        yield server
