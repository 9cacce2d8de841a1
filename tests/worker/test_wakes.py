"""New tasks wake idle workers by NOTIFY, where the trigger is and the notifications come through."""

from __future__ import annotations

import json
import os
import time
import uuid
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from tests.databases import free_port
from tests.waiting import eventually
from tests.worker.harness import RUNTIME, get
from tests.worker.packages import PSYCOPG_POOL, unpacked
from tests.worker.test_pooler import pooled

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.databases import Server
    from tests.worker.harness import Project, Worker

TABLE = "django_tasks_database_dbtaskresult"
TRIGGER = "django_task_operator_wake"
WOKEN = "New tasks wake this process."
# Longer than any test is patient: what is not announced is not found.
NEVER = "--interval=3600"
# Longer than the pauses between the looks of a worker that has just begun to wait.
SETTLED_S = 1.5
WAITING = (
    "SELECT count(DISTINCT pid) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock' AND granted"
)


@pytest.fixture
def announced(postgres: Project) -> Iterator[Project]:
    """A project whose new tasks are announced."""
    done = postgres.run("db_worker_setup", "--notify")
    assert done.returncode == 0, done.stderr
    yield postgres
    for worker in postgres.workers:
        worker.kill()
    assert postgres.run("db_worker_setup", "--remove").returncode == 0


@pytest.fixture
def session(postgres: Project) -> Iterator[psycopg.Connection[Any]]:
    """Somebody else's session in the same database."""
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        yield connection


def waits(session: psycopg.Connection[Any], count: int = 1) -> None:
    """Wait until exactly so many processes have told the server that they wait for tasks."""
    eventually(lambda: session.execute(WAITING).fetchone() == (count,), f"{count} processes wait")


def looks(port: int) -> str:
    """How often the slots of a worker have looked at the table in vain."""
    page = get(port, "/metrics")[1]
    return "".join(line for line in page.splitlines() if 'outcome="empty"' in line)


def settles(port: int) -> None:
    """Wait until a worker has stopped looking at the table by itself."""
    seen, since = "", time.monotonic()

    def settled() -> bool:
        nonlocal seen, since
        now = looks(port)
        if now != seen or not now:
            seen, since = now, time.monotonic()
        return time.monotonic() - since > SETTLED_S

    eventually(settled, "the worker only waits")


def watched(project: Project, *flags: str, **env: Any) -> tuple[Worker, int]:
    """A worker that never looks by itself, and its health port."""
    port = free_port()
    worker = project.worker(NEVER, f"--health-port={port}", *flags, **env)
    worker.says(WOKEN)
    return worker, port


def test_an_idle_worker_takes_a_new_task_when_it_is_announced(
    announced: Project, session: psycopg.Connection[Any]
) -> None:
    worker, port = watched(announced)
    waits(session)
    for _ in range(2):
        settles(port)
        announced.finished(announced.enqueue_one("nothing"))
    assert worker.terminate() == 0


def test_every_idle_slot_takes_a_task_of_one_statement(announced: Project, tmp_path: Path) -> None:
    worker, port = watched(announced, "--threads=4")
    settles(port)
    announced.enqueue_each("meet", [[str(tmp_path), 4]] * 4)
    announced.all_finished(4)
    assert worker.terminate() == 0


def test_slots_of_several_processes_take_tasks_one_by_one(
    announced: Project, session: psycopg.Connection[Any], tmp_path: Path
) -> None:
    worker, port = watched(announced, "--processes=2", "--threads=2")
    waits(session, 2)
    settles(port)
    announced.enqueue("meet", str(tmp_path), 4, times=4)
    announced.all_finished(4)
    assert worker.terminate() == 0


def test_it_listens_again_on_a_new_connection(announced: Project, session: psycopg.Connection[Any]) -> None:
    worker, port = watched(announced)
    waits(session)
    session.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock'"
    )
    eventually(lambda: worker.output.count(WOKEN) == 2, "it listens again")
    settles(port)
    announced.finished(announced.enqueue_one("nothing"))
    assert worker.terminate() == 0
    assert "Traceback" not in worker.output, worker.output


def test_a_worker_that_is_busy_does_not_wait(
    announced: Project, session: psycopg.Connection[Any], tmp_path: Path
) -> None:
    worker, _ = watched(announced)
    waits(session)
    held = announced.enqueue_one("hold", str(tmp_path / "go"))
    waits(session, 0)
    session.execute(f"LISTEN {channel(session)}")
    behind = announced.enqueue_one("nothing")
    assert list(session.notifies(timeout=0)) == []
    (tmp_path / "go").touch()
    assert announced.finished(held)["status"] == announced.finished(behind)["status"] == "SUCCESSFUL"
    waits(session)
    assert worker.terminate() == 0


def test_a_pool_of_connections_has_room_for_its_slots(announced: Project) -> None:
    pool = {"MORE_SETTINGS": json.dumps({"POOL": {"min_size": 2, "max_size": 2}})}
    worker, port = watched(
        announced, "--threads=2", PYTHONPATH=f"{unpacked(*PSYCOPG_POOL)}{os.pathsep}{RUNTIME}", **pool
    )
    settles(port)
    announced.finished(announced.enqueue_one("nothing"))
    assert worker.terminate() == 0


def test_behind_a_pooler_that_swallows_notifications_it_polls(
    announced: Project, postgres_server: Server, tmp_path: Path, session: psycopg.Connection[Any]
) -> None:
    folder = tmp_path / "configuration"
    folder.mkdir()
    with pooled(postgres_server, folder, prepared=0) as (url, _):
        worker = announced.worker("--interval=0.1", "--threads=2", TASK_DATABASE_URL=url)
        worker.says("Notifications do not come through to this process, so it polls.")
        announced.finished(announced.enqueue_one("nothing"))
        waits(session, 0)
        assert worker.terminate() == 0
    assert WOKEN not in worker.output


def test_a_worker_whose_tasks_are_not_announced_any_more_polls_again(
    announced: Project, session: psycopg.Connection[Any]
) -> None:
    port = free_port()
    worker = announced.worker("--interval=0.2", f"--health-port={port}")
    worker.says(WOKEN)
    session.execute(f"ALTER TABLE {TABLE} DISABLE TRIGGER {TRIGGER}")

    def found_late() -> bool:
        # Just after it has begun to wait, a look in time finds it by chance.
        settles(port)
        return late(announced.finished(announced.enqueue_one("nothing")))

    eventually(found_late, "a task is late")
    before = looks(port)
    eventually(lambda: looks(port) != before, "it polls", every_s=0.1)
    assert worker.terminate() == 0


def late(row: dict[str, Any]) -> bool:
    waited: float = row["started_at"] - row["enqueued_at"]
    return waited > 1


def test_a_batch_does_not_listen(announced: Project) -> None:
    announced.enqueue("nothing", times=3)
    assert WOKEN not in announced.batch()


def channel(session: psycopg.Connection[Any]) -> str:
    found = session.execute(f"SELECT '{TRIGGER}_' || '{TABLE}'::regclass::oid").fetchone()
    assert found is not None
    return str(found[0])


def wait_for(session: psycopg.Connection[Any], name: str) -> None:
    """Say that somebody waits, as a worker of a queue does, or one of every queue of a backend."""
    session.execute(
        f"SELECT pg_advisory_lock_shared(hashtextextended(%s, '{TABLE}'::regclass::oid::bigint))", [name]
    )


def heard(session: psycopg.Connection[Any]) -> list[Any]:
    """What was announced until now."""
    mark = uuid.uuid4().hex
    session.execute(f"LISTEN {TRIGGER}_mark")
    session.execute(f"SELECT pg_notify('{TRIGGER}_mark', %s)", [mark])
    payloads: list[Any] = []
    for notice in session.notifies():
        if notice.payload == mark:
            return payloads
        payloads.append(json.loads(notice.payload))
    raise AssertionError("the connection ended")


def test_only_what_somebody_waits_for_is_announced(
    announced: Project, session: psycopg.Connection[Any]
) -> None:
    session.execute(f"LISTEN {channel(session)}")
    announced.enqueue("add", 1, 2, queue_name="mails")
    assert heard(session) == []
    wait_for(session, "default/mails")
    announced.enqueue("add", 1, 2, queue_name="reports")
    announced.enqueue("add", 1, 2, queue_name="default", backend="other")
    assert heard(session) == []
    announced.enqueue("add", 1, 2, queue_name="mails")
    # Which task it is, and with what arguments, is nobody's business.
    assert heard(session) == [["default", "mails", True, None]]
    announced.ask("insert", times=300, task_path="chores.nothing", queue_name="mails")
    assert heard(session) == [["default", "mails", True, None]]
    wait_for(session, "other")
    announced.enqueue("add", 1, 2, queue_name="default", backend="other")
    assert heard(session) == [["other", "default", True, None]]


def test_deferred_tasks_are_announced_only_if_they_are_due_soon(
    announced: Project, session: psycopg.Connection[Any]
) -> None:
    session.execute(f"LISTEN {channel(session)}")
    wait_for(session, "default")
    announced.enqueue("nothing", run_after=86_400)
    announced.enqueue("nothing", run_after=60)
    assert heard(session) == []
    row = announced.result(announced.enqueue_one("nothing", run_after=9))
    ((*what, due),) = heard(session)
    assert what == ["default", "default", False]
    assert due == pytest.approx(row["run_after"])


def test_a_role_that_only_enqueues_announces(announced: Project, session: psycopg.Connection[Any]) -> None:
    waiting = psycopg.connect(announced.url, autocommit=True)
    role = f"enqueuer_{uuid.uuid4().hex}"
    session.execute(f"CREATE ROLE {role}; GRANT INSERT ON {TABLE} TO {role}")
    try:
        session.execute(f"LISTEN {channel(session)}")
        wait_for(waiting, "default")
        # An operator of another schema must not be taken for PostgreSQL's own.
        session.execute(f"SET ROLE {role}; SET search_path = pg_temp, public")
        session.execute(
            f"INSERT INTO {TABLE} (id, task_path, queue_name, backend_name, status, priority, args_kwargs, "
            "worker_ids, exception_class_path, traceback, enqueued_at, run_after) VALUES (gen_random_uuid(), "
            "'chores.nothing', 'default', 'default', 'READY', 0, '{}', '[]', '', '', now(), '9999-01-01')"
        )
        session.execute("RESET ROLE; RESET search_path")
        assert heard(session) == [["default", "default", True, None]]
    finally:
        waiting.close()
        session.execute(f"RESET ROLE; DROP OWNED BY {role}; DROP ROLE {role}")


def test_the_trigger_is_created_checked_and_removed(
    postgres: Project, session: psycopg.Connection[Any]
) -> None:
    assert postgres.run("db_worker_setup").returncode == 0
    unwoken = postgres.run("db_worker_setup", "--check")
    assert (unwoken.returncode, "No trigger wakes workers" in unwoken.stdout) == (0, True), unwoken.stderr
    missing = postgres.run("db_worker_setup", "--check", "--notify")
    assert (missing.returncode, "db_worker_setup --notify" in missing.stderr) == (1, True), missing.stderr
    assert "Created the trigger" in postgres.run("db_worker_setup", "--notify").stdout
    assert "Created" not in postgres.run("db_worker_setup", "--notify").stdout
    assert postgres.run("db_worker_setup", "--check", "--notify").returncode == 0
    # That of an older version is replaced.
    session.execute(
        f"CREATE OR REPLACE FUNCTION {TRIGGER}() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"
    )
    assert postgres.run("db_worker_setup", "--check", "--notify").returncode == 1
    assert "Created the trigger" in postgres.run("db_worker_setup", "--notify").stdout
    assert f"Removed the trigger {TRIGGER}" in postgres.run("db_worker_setup", "--remove").stdout
    assert session.execute(f"SELECT to_regproc('{TRIGGER}')").fetchone() == (None,)
    for statement in postgres.run("db_worker_setup", "--notify", "--sql").stdout.split(";\nCREATE OR")[1:]:
        session.execute("CREATE OR" + statement.removesuffix(";\n"))
    session.execute(f"ALTER TABLE {TABLE} DISABLE TRIGGER {TRIGGER}")
    assert postgres.run("db_worker_setup", "--check", "--notify").returncode == 1
    assert postgres.run("db_worker_setup", "--remove").returncode == 0


def test_the_trigger_waits_for_an_open_transaction_and_lets_others_pass(
    postgres: Project, session: psycopg.Connection[Any]
) -> None:
    assert postgres.run("db_worker_setup").returncode == 0
    with session.transaction():
        session.execute(f"DELETE FROM {TABLE} WHERE false")
        setup = postgres.command("db_worker_setup", "--notify")
        setup.says("Waiting: a transaction that uses the task table is open.")
        postgres.enqueue("nothing")
    assert setup.wait() == 0
    assert "Created the trigger" in setup.output
    assert postgres.run("db_worker_setup", "--remove").returncode == 0


def test_other_databases_have_no_trigger(project_on: Any) -> None:
    done = project_on("mariadb").run("db_worker_setup", "--notify")
    assert (done.returncode, "has no NOTIFY" in done.stdout) == (0, True), done.stderr
    assert project_on("mariadb").run("db_worker_setup", "--remove").returncode == 0


@pytest.mark.parametrize(
    "flags", [["--queue=mails"], ["--queue=reports,mails"], ["--queue=*", "--exclude=default"]]
)
def test_deferred_tasks_start_when_they_are_due(announced: Project, flags: list[str]) -> None:
    flags = [flag.replace("--exclude=", "--exclude-queues=") for flag in flags]
    _, port = watched(announced, *flags)
    # Due later than what is announced, and at the same time as another one.
    ids = [announced.enqueue_one("nothing", run_after=after, queue_name="mails") for after in (14, 2, 4, 4)]
    announced.enqueue("nothing", run_after=3, queue_name="default")
    assert all(announced.finished(one)["status"] == "SUCCESSFUL" for one in ids)
    settles(port)
    assert announced.statuses() == {"SUCCESSFUL": 4, "READY": 1}


@pytest.mark.parametrize("queues", ["default", "*"])
def test_deferred_tasks_start_when_they_are_due_without_notifications(postgres: Project, queues: str) -> None:
    assert postgres.run("db_worker_setup").returncode == 0
    one = postgres.enqueue_one("nothing", run_after=4)
    # Polls too rarely to find it: it is known from the first look.
    postgres.worker(NEVER, f"--queue={queues}").says("Starting worker")
    assert postgres.finished(one)["status"] == "SUCCESSFUL"
    assert postgres.run("db_worker_setup", "--remove").returncode == 0


def test_without_the_index_it_does_not_ask_for_deferred_tasks(postgres: Project) -> None:
    assert postgres.run("db_worker_setup", "--remove").returncode == 0
    one = postgres.enqueue_one("nothing", run_after=2)
    worker = postgres.worker("--interval=0.2")
    assert postgres.finished(one)["status"] == "SUCCESSFUL"
    assert "Traceback" not in worker.output
