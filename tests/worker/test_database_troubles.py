"""A database that answers with errors, or falls silent: results are kept, and tasks run once.

Both servers speak German here, because their words must not matter.
"""

from __future__ import annotations

import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from tests.databases import docker, running_mariadb, running_postgres
from tests.waiting import eventually
from tests.worker.harness import Project, Worker
from tests.worker.proxy import TO_THE_END, Fault, How, Part, Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tests.databases import Server

TABLE = "django_tasks_database_dbtaskresult"
# The exit code of a worker that was refused for too long.
REFUSED = 6


@dataclass(frozen=True)
class Place:
    """A server for these tests, and a project with a user that is not the server's administrator."""

    server: Server
    project: Project

    @property
    def postgres(self) -> bool:
        return self.server.scheme == "postgresql"

    def administer(self, *statements: str) -> str:
        """Run SQL with all rights; return its output."""
        if self.postgres:
            client = ["psql", "-U", "django", "-d", "tasks", "-v", "ON_ERROR_STOP=1", "-Atq"]
            chosen = [word for statement in statements for word in ("-c", statement)]
        else:
            client = ["mariadb", "-S", "/run/mysqld/mysqld.sock", "-u", "root", "-N", "tasks"]
            chosen = ["-e", ";\n".join(statements)]
        return docker("exec", self.server.container, *client, *chosen)

    def url(self, port: int | None = None, password: str = "secret") -> str:
        return f"{self.server.scheme}://app:{password}@127.0.0.1:{port or self.server.port}/tasks"

    def set_password(self, password: str) -> None:
        if self.postgres:
            self.administer(f"ALTER ROLE app PASSWORD '{password}'")
        else:
            self.administer(f"ALTER USER app@'%' IDENTIFIED BY '{password}'")

    def end_sessions(self) -> None:
        """End the sessions of the project's user."""
        if self.postgres:
            self.administer("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'")
        else:
            self.administer("KILL USER app")

    @contextmanager
    def answering(self, code: str | int) -> Iterator[None]:
        """Let the server refuse each change of the task table with this code, until the end of the block."""
        if self.postgres:
            body = f"$$BEGIN RAISE EXCEPTION 'nein' USING ERRCODE = '{code}'; END$$"
            on = [
                f"CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS {body}",
                f"CREATE TRIGGER refuse BEFORE UPDATE ON {TABLE} FOR EACH ROW EXECUTE FUNCTION refuse()",
            ]
            off = ["DROP FUNCTION refuse CASCADE"]
        else:
            signal = f"SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = {code}, MESSAGE_TEXT = 'nein'"
            on = [f"CREATE TRIGGER refuse BEFORE UPDATE ON {TABLE} FOR EACH ROW {signal}"]
            off = ["DROP TRIGGER refuse"]
        self.administer(*on)
        try:
            yield
        finally:
            self.administer(*off)

    @contextmanager
    def refusing(self, on: str, off: str) -> Iterator[None]:
        self.administer(*on.split("; "))
        try:
            yield
        finally:
            self.administer(*off.split("; "))


@pytest.fixture(scope="module")
def postgres_place() -> Iterator[Place]:
    with running_postgres("-c", "fsync=off", "-c", "lc_messages=de_DE.UTF-8") as server:
        place = Place(server, Project(""))
        place.administer(
            "CREATE ROLE app LOGIN PASSWORD 'secret'",
            "ALTER DATABASE tasks OWNER TO app",
            "ALTER SCHEMA public OWNER TO app",
        )
        yield from _migrated(place)


@pytest.fixture(scope="module")
def mariadb_place() -> Iterator[Place]:
    with running_mariadb("--innodb-flush-log-at-trx-commit=0", "--lc-messages=de_DE") as server:
        place = Place(server, Project(""))
        assert place.administer("SELECT @@lc_messages") == "de_DE"
        place.administer("CREATE USER app@'%' IDENTIFIED BY 'secret'", "GRANT ALL ON tasks.* TO app@'%'")
        yield from _migrated(place)


def _migrated(place: Place) -> Iterator[Place]:
    place.project.url = place.url()
    place.project.migrate()
    yield place
    place.project.close()


@pytest.fixture(params=["postgres", "mariadb"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    found: Place = request.getfixturevalue(f"{request.param}_place")
    yield found
    found.project.clear()


@dataclass
class Held:
    """A task that runs until it is released."""

    project: Project
    path: Path

    def __post_init__(self) -> None:
        self.id = self.project.enqueue_one("hold", str(self.path))
        eventually(lambda: self.status == "RUNNING", "it runs")

    @property
    def status(self) -> str:
        return str(self.project.result(self.id)["status"])

    def let_go(self) -> None:
        self.path.touch()

    def is_kept(self) -> None:
        row = self.project.finished(self.id)
        assert (row["status"], len(row["worker_ids"])) == ("SUCCESSFUL", 1)


def counted(record: Path) -> Counter[int]:
    return Counter(int(line) for line in record.read_text().split())


def without_a_trace(worker: Worker) -> None:
    assert worker.terminate() == 0
    assert "Traceback" not in worker.output, worker.output
    for secret in ("secret", "127.0.0.1", "nein"):
        assert secret not in worker.output


POSTGRES = {
    "57014": "the statement took too long",
    "55P03": "waiting for a lock took too long",
    "40P01": "a deadlock",
    "40001": "the transaction could not be serialized",
    "25006": "the server is read-only",
    "57P03": "the server is starting up, shutting down or in recovery",
    "53300": "too many connections",
    "42501": "permission denied",
}
MARIADB = {
    1205: "waiting for a lock took too long",
    1213: "a deadlock",
    1020: "the transaction could not be serialized",
    1969: "the statement took too long",
    1290: "the server is read-only",
    1836: "the server is read-only",
    1047: "the server is not ready",
    1040: "too many connections",
}
BUSY = {"57014", "55P03", "40P01", "40001", 1205, 1213, 1020, 1969}


def test_whatever_the_server_answers_the_result_is_kept(place: Place, tmp_path: Path) -> None:
    worker = place.project.worker("--threads=2", "--interval=0.1")
    for code, words in (POSTGRES if place.postgres else MARIADB).items():
        kind = "The task table is busy" if code in BUSY else "The database cannot be used"
        end = "The task table works again" if code in BUSY else "The database answers again"
        held = Held(place.project, tmp_path / str(code))
        keeps(held, place.answering(code), worker, f"{kind} ({words})", end)
    without_a_trace(worker)


def keeps(held: Held, trouble: AbstractContextManager[None], worker: Worker, begin: str, end: str) -> None:
    """Let one slot store a result and the other one claim a task while the server refuses both."""
    said = len(worker.output)
    with trouble:
        waits = held.project.enqueue_one("add", 1, 2)
        held.let_go()
        eventually(lambda: begin in worker.output[said:], begin)
        # Nobody has stored anything else instead.
        assert held.status == "RUNNING"
        assert held.project.result(waits)["status"] == "READY"
    held.is_kept()
    row = held.project.finished(waits)
    assert (row["status"], row["return_value"], len(row["worker_ids"])) == ("SUCCESSFUL", 3, 1)
    eventually(lambda: end in worker.output[said:], end)


@pytest.mark.parametrize("place", ["postgres"], indirect=True)
@pytest.mark.parametrize(
    ("on", "off", "words"),
    [
        pytest.param(
            "ALTER ROLE app SET statement_timeout = '1s'",
            "ALTER ROLE app RESET statement_timeout",
            "the statement took too long",
            id="statement_timeout",
        ),
        pytest.param(
            "ALTER ROLE app SET lock_timeout = '1s'",
            "ALTER ROLE app RESET lock_timeout",
            "waiting for a lock took too long",
            id="lock_timeout",
        ),
    ],
)
def test_a_limit_of_the_role(place: Place, on: str, off: str, words: str, tmp_path: Path) -> None:
    with place.refusing(on, off):
        worker = place.project.worker("--interval=0.1")
        held = Held(place.project, tmp_path / "go")
        holds_lock(held, worker, words)
    held.is_kept()
    without_a_trace(worker)


@pytest.mark.parametrize("place", ["mariadb"], indirect=True)
@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("innodb_lock_wait_timeout", "1", "waiting for a lock took too long"),
        ("max_statement_time", "1", "the statement took too long"),
    ],
)
def test_a_limit_of_the_server(place: Place, name: str, value: str, words: str, tmp_path: Path) -> None:
    with place.refusing(f"SET GLOBAL {name} = {value}", f"SET GLOBAL {name} = DEFAULT"):
        worker = place.project.worker("--interval=0.1")
        held = Held(place.project, tmp_path / "go")
        holds_lock(held, worker, words)
    held.is_kept()
    without_a_trace(worker)


def holds_lock(held: Held, worker: Worker, words: str) -> None:
    """Let another session lock the task's row until the worker has logged that."""
    assert held.project.ask("lock", id=held.id) is True
    try:
        held.let_go()
        worker.says(f"The task table is busy ({words})")
    finally:
        held.project.ask("unlock")
    worker.says("works again")


@pytest.mark.parametrize("place", ["postgres"], indirect=True)
@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_workers_in_one_anothers_way(place: Place, level: str, tmp_path: Path) -> None:
    record = tmp_path / "record"
    default = "default_transaction_isolation"
    with place.refusing(f"ALTER ROLE app SET {default} = '{level}'", f"ALTER ROLE app RESET {default}"):
        place.project.enqueue_each("count", [[str(record), number] for number in range(200)])
        workers = [place.project.worker("--threads=4", "--interval=0.1") for _ in range(2)]
        place.project.all_finished(200)
    assert place.project.statuses() == {"SUCCESSFUL": 200}
    assert set(counted(record).values()) == {1}
    for worker in workers:
        without_a_trace(worker)


def test_a_server_that_becomes_read_only(place: Place, tmp_path: Path) -> None:
    if place.postgres:
        on = "ALTER SYSTEM SET default_transaction_read_only = on; SELECT pg_reload_conf()"
        off = "ALTER SYSTEM RESET default_transaction_read_only; SELECT pg_reload_conf()"
    else:
        on, off = "SET GLOBAL read_only = 1", "SET GLOBAL read_only = 0"
    worker = place.project.worker("--interval=0.1")
    held = Held(place.project, tmp_path / "go")
    with place.refusing(on, off):
        if place.postgres:
            # New sessions begin with it only after the others have been told.
            eventually(lambda: place.administer("SHOW default_transaction_read_only") == "on", "the reload")
        held.let_go()
        worker.says("The database cannot be used (the server is read-only)")
        assert held.status == "RUNNING"
    held.is_kept()
    without_a_trace(worker)


def test_a_connection_that_falls_silent_during_a_long_task(place: Place, tmp_path: Path) -> None:
    with Proxy(place.server.port) as proxy:
        worker = Project(place.url(proxy.port)).worker("--interval=0.1")
        try:
            held = Held(place.project, tmp_path / "go")
            assert proxy.silence() == 1
            # From five seconds on a connection is tried before it is used.
            begun = place.project.result(held.id)["started_at"]
            eventually(lambda: time.time() > begun + 6, "a long task")
            held.let_go()
            held.is_kept()
            assert proxy.connections > 1
            after = place.project.enqueue_one("add", 1, 2)
            assert place.project.finished(after)["status"] == "SUCCESSFUL"
            without_a_trace(worker)
        finally:
            worker.kill()


def test_a_database_that_does_not_exist(place: Place) -> None:
    """The server says so in German, when a worker connects."""
    if not place.postgres:
        # Somebody without this right would learn nothing about it.
        place.administer("GRANT ALL ON nirgends.* TO app@'%'")
    worker = Project(place.url().replace("/tasks", "/nirgends")).worker("--interval=0.1")
    try:
        worker.says("The database cannot be used (no such database). Trying until it can.")
        assert worker.process.poll() is None
        without_a_trace(worker)
    finally:
        worker.kill()


@pytest.mark.parametrize("place", ["postgres"], indirect=True)
def test_a_role_without_a_connection_left(place: Place) -> None:
    waiting = place.project.enqueue_one("add", 1, 2)
    with place.refusing("ALTER ROLE app CONNECTION LIMIT 0", "ALTER ROLE app CONNECTION LIMIT -1"):
        worker = place.project.worker("--interval=0.1")
        worker.says("The database cannot be used (too many connections). Trying until it can.")
    assert place.project.finished(waiting)["status"] == "SUCCESSFUL"
    without_a_trace(worker)


@pytest.mark.parametrize("flags", [[], ["--processes=2", "--threads=2"]])
def test_a_password_that_stays_wrong(place: Place, flags: list[str]) -> None:
    elsewhere = Project(place.url(password="wrong"))
    worker = elsewhere.worker("--interval=0.1", *flags, manage="hasty.py", REFUSED_SECONDS="2")
    try:
        assert worker.wait() == REFUSED, worker.output
    finally:
        worker.kill()
    said = "password authentication failed" if place.postgres else "access denied"
    assert worker.output.count(f"The database cannot be used ({said})") == 1, worker.output
    assert worker.output.count("The database has refused the user or the password for a minute") == 1
    assert "Traceback" not in worker.output
    assert "wrong" not in worker.output


def test_a_password_that_changes_under_a_task(place: Place, tmp_path: Path) -> None:
    """A worker that has to store a result does not end, however long it is refused."""
    worker = place.project.worker("--interval=0.1", manage="hasty.py", REFUSED_SECONDS="1")
    held = Held(place.project, tmp_path / "go")
    place.set_password("another")
    try:
        place.end_sessions()
        held.let_go()
        worker.says("The database cannot be used")
        with pytest.raises(AssertionError, match="still running"):
            worker.wait(5)
    finally:
        place.set_password("secret")
        place.project.close()
    held.is_kept()
    without_a_trace(worker)


@pytest.mark.parametrize("place", ["mariadb"], indirect=True)
@pytest.mark.parametrize("signals", [False, True])
def test_a_server_without_skip_locked(place: Place, signals: bool, tmp_path: Path) -> None:
    record = tmp_path / "record"
    apps = '["old_server", "diary_of_rows"]' if signals else '["old_server"]'
    log = ("SET GLOBAL log_output = 'TABLE'", "TRUNCATE mysql.general_log", "SET GLOBAL general_log = 1")
    place.administer(*log)
    try:
        place.project.enqueue_each("count", [[str(record), number] for number in range(100)])
        worker = place.project.worker("--processes=2", "--threads=2", "--interval=0.1", MORE_APPS=apps)
        place.project.all_finished(100)
    finally:
        place.administer("SET GLOBAL general_log = 0")
    assert place.project.statuses() == {"SUCCESSFUL": 100}
    assert set(counted(record).values()) == {1}
    without_a_trace(worker)
    locks = "SELECT COUNT(*) FROM mysql.general_log WHERE argument LIKE 'SELECT%FOR UPDATE%'"
    assert int(place.administer(locks)) > 100
    assert int(place.administer(f"{locks} AND argument LIKE '%SKIP%'")) == 0


def test_a_server_that_is_too_old_for_django(place: Place) -> None:
    worker = place.project.worker("--interval=0.1", MORE_APPS='["old_server"]', OLDEST_SERVER="99")
    name = "PostgreSQL" if place.postgres else "MariaDB"
    worker.says(f"The database cannot be used ({name} 99 or later is required")
    assert worker.process.poll() is None
    without_a_trace(worker)
    assert worker.output.count("cannot be used") == 1


def test_the_first_connection_of_a_command_falls_silent(place: Place) -> None:
    """On MySQL that is the one of Django's checks, which ask the server for its version."""
    turns = range(1, 11, 2)
    # Each command is the first to connect at its own turn; whoever connects later is not disturbed.
    faults = iter([Fault(How.HALF_OPEN, turn, Part.REQUEST, 1) for turn in turns])
    with Proxy(place.server.port, lambda _: next(faults, None)) as proxy:
        through = Project(place.url(proxy.port))
        try:
            workers = [through.worker("--interval=0.1", manage="hasty.py") for _ in turns]
            for worker in workers:
                worker.says("Starting worker")
            place.project.enqueue("nothing", times=20)
            place.project.all_finished(20)
            assert [worker.terminate() for worker in workers] == [0] * len(workers)
        finally:
            for each in through.workers:
                each.kill()


@pytest.mark.parametrize(
    "zone",
    [{}, {"USE_TZ": "0", "TIME_ZONE": "Asia/Tokyo"}, {"TIME_ZONE": "America/New_York"}],
    ids=["UTC", "without zones", "New York"],
)
def test_a_claim_whose_answer_is_lost_is_found(place: Place, zone: dict[str, str], tmp_path: Path) -> None:
    """Each connection breaks one turn later than the one before, in any time zone of the project."""
    record = tmp_path / "record"
    faults = iter([Fault(How.RESET, turn, Part.REQUEST, TO_THE_END) for turn in range(1, 40)])
    with Proxy(place.server.port, lambda _: next(faults, None)) as proxy:
        through = Project(place.url(proxy.port))
        try:
            enqueue = f"from chores import count\nfor n in range(200): count.enqueue({str(record)!r}, n)"
            done = place.project.run("shell", "--no-imports", "-c", enqueue, **zone)
            assert done.returncode == 0, done.stderr
            worker = through.worker("--interval=0.1", manage="hasty.py", **zone)  # type: ignore[arg-type]
            place.project.all_finished(200)
            assert place.project.statuses() == {"SUCCESSFUL": 200}
            assert counted(record) == Counter(range(200))
            assert len(proxy.fired) > 15
            without_a_trace(worker)
        finally:
            for each in through.workers:
                each.kill()
