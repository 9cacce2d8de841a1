"""A PostgreSQL in the cluster. Pods use its Service, and the tests use a port of a node."""

from __future__ import annotations

import base64
import json
import uuid
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Self

import django
import psycopg
from django.conf import settings
from django.core.management import call_command
from django.db import connections, transaction
from psycopg import sql
from tests.e2e.harness import eventually
from tests.waiting import PATIENTLY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.tasks import Task, TaskResult
    from tests.conftest import Kubectl

# A process has one Django: the operator's own modules set it up if they are imported first.
if not settings.configured:
    settings.configure(INSTALLED_APPS=["django_tasks_db"], USE_TZ=True, LOGGING_CONFIG=None)
settings.TASKS = {"default": {"BACKEND": "django_tasks_db.DatabaseBackend", "QUEUES": []}}
django.setup()

# After the setup, because a task looks for its backend when it is defined.
from tests.e2e.project import chores  # noqa: E402

__all__ = ["Database", "Server", "chores"]

TEMPLATE = "migrated"
LOCKED_WITHIN_SECONDS = 10
DATA = "/var/lib/postgresql/data"
# A server that has ended is not started until the file is gone.
KEEP_RUNNING = (
    "while true; do"
    " if [ -e /tmp/stopped ]; then sleep 0.1; else entrypoint -c fsync=off -c max_connections=300; fi; "
    "done"
)


@dataclass(frozen=True)
class Server:
    """A PostgreSQL server in a namespace."""

    kubectl: Kubectl
    host: str
    port: int
    password: str

    @classmethod
    def start(cls, kubectl: Kubectl) -> Self:
        """Start one in the namespace of ``kubectl``, or use the existing one."""
        if kubectl.run("get", "secret/postgres").returncode != 0:
            password = uuid.uuid4().hex
            kubectl("create", "secret", "generic", "postgres", f"--from-literal=POSTGRES_PASSWORD={password}")
        for manifest in _manifests():
            kubectl("apply", "--filename=-", manifest=manifest)
        kubectl("rollout", "status", "deployment/postgres", PATIENTLY)
        secret = json.loads(kubectl("get", "secret/postgres", "--output=json"))["data"]
        port = kubectl("get", "service/postgres", "--output=jsonpath={.spec.ports[0].nodePort}")
        address = '{.items[0].status.addresses[?(@.type=="InternalIP")].address}'
        server = cls(
            kubectl,
            host=kubectl("get", "nodes", f"--output=jsonpath={address}"),
            port=int(port),
            password=base64.b64decode(secret["POSTGRES_PASSWORD"]).decode(),
        )
        eventually(server.answers, "PostgreSQL answers at the node's port")
        return server

    def connect(self, name: str) -> psycopg.Connection:
        return psycopg.connect(
            host=self.host,
            port=self.port,
            user="postgres",
            password=self.password,
            dbname=name,
            autocommit=True,
            connect_timeout=60,
        )

    def execute(self, statement: str, **names: str) -> None:
        """Run a statement with names in the place of its braces."""
        composed = sql.SQL(statement).format(**{k: sql.Identifier(v) for k, v in names.items()})
        with self.connect("postgres") as connection:
            connection.execute(composed)

    @property
    def name(self) -> str:
        """The host name that pods use."""
        return f"postgres.{self.kubectl.namespace}.svc"

    def speaks_tls(self, certificate: str, key: str) -> None:
        """Offer TLS from now on."""
        files = {"tls.crt": certificate, "tls.key": key}
        for name, text in files.items():
            encoded = base64.b64encode(text.encode()).decode()
            # PostgreSQL refuses a key that others may read.
            script = f"umask 077 && echo {encoded} | base64 -d >{DATA}/{name}"
            self.kubectl("exec", "deployment/postgres", "--", "sh", "-c", script)
        settings_of_tls = {"ssl_cert_file": "tls.crt", "ssl_key_file": "tls.key", "ssl": "on"}
        with self.connect("postgres") as connection:
            for name, value in settings_of_tls.items():
                change = sql.SQL("ALTER SYSTEM SET {} = {}").format(sql.Identifier(name), sql.Literal(value))
                connection.execute(change)
            connection.execute("SELECT pg_reload_conf()")
        eventually(self._has_tls, "PostgreSQL offers TLS")

    def _has_tls(self) -> bool:
        try:
            with self.connect("postgres") as connection:
                return bool(connection.pgconn.ssl_in_use)
        except psycopg.OperationalError:
            return False

    def answers(self) -> bool:
        try:
            self.connect("postgres").close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self) -> None:
        """Stop the server and keep its data; connections are refused."""
        script = f"touch /tmp/stopped && pg_ctl --pgdata={DATA} --mode=immediate stop"
        self.kubectl("exec", "deployment/postgres", "--", "sh", "-c", script)

    def go_on(self) -> None:
        self.kubectl("exec", "deployment/postgres", "--", "rm", "-f", "/tmp/stopped")
        eventually(self.answers, "PostgreSQL is back")

    def make_template(self) -> None:
        """Migrate a template once, so that each test's database is a copy."""
        self.execute("DROP DATABASE IF EXISTS {name}", name=TEMPLATE)
        self.execute("CREATE DATABASE {name}", name=TEMPLATE)
        template = Database(self, TEMPLATE)
        template.migrate()
        template.leave()

    @contextmanager
    def database(self, *, migrated: bool = True) -> Iterator[Database]:
        """A database that exists until the end of the block."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        template = TEMPLATE if migrated else "template1"
        self.execute("CREATE DATABASE {name} TEMPLATE {template}", name=name, template=template)
        database = Database(self, name)
        yield database
        database.leave()
        self.execute("DROP DATABASE {name} WITH (FORCE)", name=name)


@dataclass
class Database:
    """One database, and Django's task API on it, from the test's process."""

    server: Server
    name: str
    _gates: dict[int, psycopg.Connection] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """The URL that pods use."""
        return f"postgres://postgres:{self.server.password}@{self.server.name}:5432/{self.name}"

    @contextmanager
    def user(
        self, may: str = "SELECT, INSERT, UPDATE, DELETE", tables: str = "ALL TABLES IN SCHEMA public"
    ) -> Iterator[User]:
        """A user with these rights on this database's tables and no others, until the end of the block."""
        user = User(self, f"user_{uuid.uuid4().hex[:12]}")
        self.server.execute("CREATE ROLE {name} LOGIN", name=user.name)
        with self.server.connect(self.name) as connection:
            grant = sql.SQL(f"GRANT {may} ON {tables} TO {{}}")
            connection.execute(grant.format(sql.Identifier(user.name)))
        yield user
        user.end_clients()
        with self.server.connect(self.name) as connection:
            connection.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(user.name)))
        self.server.execute("DROP ROLE {name}", name=user.name)

    @contextmanager
    def as_default(self) -> Iterator[None]:
        """Let Django's own calls use this database until the end of the block."""
        wanted = connections.settings["default"] | {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": self.server.host,
            "PORT": self.server.port,
            "USER": "postgres",
            "PASSWORD": self.server.password,
            "NAME": self.name,
            "CONN_MAX_AGE": None,
            "CONN_HEALTH_CHECKS": True,
            "OPTIONS": {},
        }
        if connections.settings["default"] != wanted:
            connections["default"].close()
            del connections["default"]
            connections.settings["default"] = wanted
        connections["default"].close_if_unusable_or_obsolete()
        yield

    def leave(self) -> None:
        """Close the test's connections."""
        for gate in list(self._gates):
            self.open_gate(gate)
        with self.as_default():
            connections["default"].close()

    def execute(self, statement: str) -> None:
        with self.server.connect(self.name) as connection:
            connection.execute(statement)

    def migrate(self) -> None:
        with self.as_default():
            call_command("migrate", verbosity=0)

    def enqueue(
        self,
        task: Task[..., Any],
        *args: Any,
        times: int = 1,
        queue: str = "default",
        run_after: datetime | None = None,
    ) -> list[TaskResult[..., Any]]:
        """Enqueue a task several times in one transaction."""
        with self.as_default(), transaction.atomic():
            task = task.using(queue_name=queue, run_after=run_after)
            return [task.enqueue(*args) for _ in range(times)]

    @contextmanager
    def enqueued_and_locked(
        self, task: Task[..., Any], *args: Any, times: int = 1, queue: str = "default"
    ) -> Iterator[list[TaskResult[..., Any]]]:
        """Enqueue a task several times; until the end of the block, workers cannot claim these tasks."""
        # A worker that looks between the two statements would find them.
        due = datetime.now(UTC) + timedelta(seconds=LOCKED_WITHIN_SECONDS)
        results = self.enqueue(task, *args, times=times, queue=queue, run_after=due)
        with self.lock_rows():
            assert datetime.now(UTC) < due, "the rows were locked too late"
            yield results

    def lock_rows(self) -> psycopg.Connection:
        """Lock all rows that exist now, so that workers cannot claim them until the connection is closed."""
        connection = self.server.connect(self.name)
        connection.autocommit = False
        connection.execute("SELECT id FROM django_tasks_database_dbtaskresult FOR UPDATE")
        return connection

    def clients(self, application: str) -> list[int]:
        """The server processes of an application's connections to this database."""
        with self.server.connect("postgres") as connection:
            found = connection.execute(
                "SELECT pid FROM pg_stat_activity WHERE datname = %s AND application_name = %s",
                [self.name, application],
            )
            return [pid for (pid,) in found]

    def users(self, application: str) -> set[str]:
        """The users with whose names an application is connected to this database."""
        with self.server.connect("postgres") as connection:
            found = connection.execute(
                "SELECT usename FROM pg_stat_activity WHERE datname = %s AND application_name = %s",
                [self.name, application],
            )
            return {user for (user,) in found}

    def is_encrypted(self, application: str) -> bool:
        """Whether the application is connected to this database, and only with encryption."""
        with self.server.connect("postgres") as connection:
            found = connection.execute(
                "SELECT bool_and(ssl) FROM pg_stat_activity JOIN pg_stat_ssl USING (pid)"
                " WHERE datname = %s AND application_name = %s",
                [self.name, application],
            )
            return bool(found.fetchone() == (True,))

    def end_clients(self, application: str) -> None:
        with self.server.connect("postgres") as connection:
            for pid in self.clients(application):
                connection.execute("SELECT pg_terminate_backend(%s)", [pid])

    def refresh(self, results: list[TaskResult[..., Any]]) -> list[TaskResult[..., Any]]:
        with self.as_default():
            for result in results:
                result.refresh()
        return results

    def statuses(self, results: list[TaskResult[..., Any]]) -> list[str]:
        return sorted(str(result.status) for result in self.refresh(results))

    def finish(self, results: list[TaskResult[..., Any]]) -> list[TaskResult[..., Any]]:
        """Wait until all tasks have ended, successfully or not."""

        def open_ones() -> int:
            return sum(not result.is_finished for result in self.refresh(results))

        eventually(lambda: not open_ones(), f"{len(results)} tasks finished")
        return results

    def close_gate(self, gate: int) -> None:
        """Let no task pass ``wait_at(gate)``."""
        self._gates[gate] = connection = self.server.connect(self.name)
        connection.execute("SELECT pg_advisory_lock(%s)", [gate])

    def open_gate(self, gate: int) -> None:
        self._gates.pop(gate).close()


@dataclass(frozen=True)
class User:
    """A user of one database, whose password a test can change."""

    database: Database
    name: str

    def has_password(self, password: str) -> str:
        """Set the user's password; return the URL that pods use."""
        change = sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(self.name), sql.Literal(password))
        with self.database.server.connect("postgres") as connection:
            connection.execute(change)
        return f"postgres://{self.name}:{password}@{self.database.server.name}:5432/{self.database.name}"

    def end_clients(self) -> None:
        with self.database.server.connect("postgres") as connection:
            end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s"
            connection.execute(end, [self.name])


def _manifests() -> list[dict[str, Any]]:
    labels = {"app.kubernetes.io/name": "postgres"}
    container = {
        "name": "postgres",
        "image": "django-task-postgres:dev",
        "command": ["sh", "-c", KEEP_RUNNING],
        "envFrom": [{"secretRef": {"name": "postgres"}}],
        "readinessProbe": {
            # No command: starting one each second costs a small machine more than the server does.
            "tcpSocket": {"port": 5432},
            "periodSeconds": 1,
        },
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "data", "mountPath": "/var/lib/postgresql"}],
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}},
    }
    pod = {
        # The shell that keeps it running ignores signals.
        "terminationGracePeriodSeconds": 0,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 999,
            "fsGroup": 999,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [{"name": "data", "emptyDir": {}}],
    }
    return [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "postgres"},
            "spec": {
                "strategy": {"type": "Recreate"},
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": pod},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "postgres"},
            # Not ready is not gone: a stopped server must refuse, as one does that is not behind a Service.
            "spec": {
                "type": "NodePort",
                "selector": labels,
                "publishNotReadyAddresses": True,
                "ports": [{"port": 5432}],
            },
        },
    ]
