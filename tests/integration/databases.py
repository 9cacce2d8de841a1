"""Real servers in containers, from the images of cluster/databases, and task tables in them."""

from __future__ import annotations

import contextlib
import io
import secrets
import socket
import subprocess
import tarfile
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from django.core.management import call_command
from django.db import Error, connections
from tests.databases import LABEL
from tests.waiting import PATIENCE_S

from django_task_operator.tasktable import DatabaseURL, orm
from django_task_operator.tasktable.engines import Limits

from django_tasks_db.models import DBTaskResult  # isort: skip
from django_db_worker.setup import remove, set_up  # isort: skip

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from django.db.backends.base.base import BaseDatabaseWrapper

USER = "shop"
# Characters that a URL, SQL and Python's % formatting each take for something else.
PASSWORD = "p%s@ss'/w\\rd"
PORTS = {"postgres": 5432, "mariadb": 3306}
ARGUMENTS = {
    "postgres": ["-c", "fsync=off", "-c", "shared_preload_libraries=pg_stat_statements"],
    "mariadb": ["--innodb-flush-log-at-trx-commit=0"],
}


@dataclass(frozen=True)
class Server:
    """A database server that exists for one test run."""

    kind: str
    container: str
    port: int

    def url(self, name: str = "shop", *, user: str = USER, password: str = PASSWORD, query: str = "") -> str:
        scheme = {"postgres": "postgres", "mariadb": "mysql"}[self.kind]
        return f"{scheme}://{user}:{quote(password, safe='')}@127.0.0.1:{self.port}/{name}{query}"

    def docker(self, *args: str) -> None:
        docker(*args, self.container)

    def administer(self, *statements: str, name: str | None = None) -> str:
        """Run SQL with all rights; return its output."""
        text = ";\n".join(statements) + ";\n"
        if self.kind == "postgres":
            command = ["psql", "-U", USER, "-v", "ON_ERROR_STOP=1", "-Atq", name or "postgres"]
        else:
            command = [
                "mariadb",
                # Through a socket nobody can be in between.
                "--disable-ssl-verify-server-cert",
                "-S",
                "/run/mysqld/mysqld.sock",
                "-u",
                "root",
                "-N",
                *([name] if name else []),
            ]
        return docker("exec", "-i", self.container, *command, given=text)

    def wait(self) -> None:
        """Wait until the server accepts connections."""
        for _ in range(300):
            with contextlib.suppress(Error), opened(self.url()):
                return
            time.sleep(0.1)
        raise TimeoutError(f"{self.kind} does not take connections: {docker('logs', self.container)}")


def docker(*args: str, given: str | None = None) -> str:
    command = ["docker", *args]
    done = subprocess.run(
        command, input=given, capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )
    assert done.returncode == 0, f"docker {args[0]}: {done.stderr}"
    return done.stdout


@contextlib.contextmanager
def running(kind: str, *arguments: str, files: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Start a server that is removed at the end, with these arguments, and ``files`` in its folder /files."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        # Chosen here, because Docker would choose another one after a restart.
        port = free.getsockname()[1]
    name = f"test-{kind}-{secrets.token_hex(4)}"
    prefix = {"postgres": "POSTGRES", "mariadb": "MARIADB"}[kind]
    variables = {"USER": USER, "PASSWORD": PASSWORD, "DB" if kind == "postgres" else "DATABASE": "shop"}
    docker(
        *(
            "create",
            "--label",
            LABEL,
            "--name",
            name,
            "--publish",
            f"127.0.0.1:{port}:{PORTS[kind]}",
        ),
        *(f"--env={prefix}_{variable}={value}" for variable, value in variables.items()),
        f"django-task-{kind}:dev",
        *ARGUMENTS[kind],
        *arguments,
    )
    server = Server(kind, name, port)
    try:
        if files:
            docker_bytes("cp", "-", f"{name}:/", given=_archive(files))
        docker("start", name)
        server.wait()
        if kind == "mariadb":
            server.administer(f"GRANT ALL ON *.* TO {USER}@'%'")
        yield server
    finally:
        docker("rm", "--force", "--volumes", name)


def docker_bytes(*args: str, given: bytes) -> None:
    done = subprocess.run(
        ["docker", *args], input=given, capture_output=True, check=False, timeout=PATIENCE_S
    )
    assert done.returncode == 0, f"docker {args[0]}: {done.stderr!r}"


def _archive(files: Mapping[str, str]) -> bytes:
    """Files that only the server's user may read, which PostgreSQL requires for its key."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, text in {"": "", **files}.items():
            entry = tarfile.TarInfo(f"files/{name}".rstrip("/"))
            entry.uid = entry.gid = 999
            entry.type, entry.mode = (tarfile.REGTYPE, 0o600) if name else (tarfile.DIRTYPE, 0o700)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return packed.getvalue()


@contextlib.contextmanager
def opened(url: str) -> Iterator[BaseDatabaseWrapper]:
    """A connection for the test."""
    connection = orm.new_connection(DatabaseURL.parse(url), Limits(5, 60))
    try:
        connection.ensure_connection()
        yield connection
    finally:
        connection.close()


@contextlib.contextmanager
def as_default(url: str) -> Iterator[BaseDatabaseWrapper]:
    """Make it the default database, as in a project that has it in its settings."""
    before = connections["default"]
    with opened(url) as connection:
        connections["default"] = connection
        try:
            yield connection
        finally:
            connections["default"] = before


def execute(connection: BaseDatabaseWrapper, sql: str, *params: str) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, params or None)
        return list(cursor.fetchall()) if cursor.description else []


def create_database(server: Server, name: str, *, migrated: bool = True, indexed: bool = False) -> str:
    """Create a database with django-tasks-db's migrations; return its URL."""
    server.administer(f"CREATE DATABASE {name}")
    url = server.url(name)
    if migrated:
        with as_default(url) as connection:
            call_command("migrate", verbosity=0)
            if indexed:
                create_indexes(connection)
    return url


def create_indexes(connection: BaseDatabaseWrapper) -> None:
    """As `manage.py db_worker_setup` does."""
    set_up(connection, lambda _line: None)


def drop_indexes(connection: BaseDatabaseWrapper) -> None:
    remove(connection, lambda _line: None)


TABLE = DBTaskResult._meta.db_table
