"""Whatever a task does: its own row says what happened, its neighbours are untouched, and a result that was
computed is stored. The table of what tasks do is in poisons.py.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from tests.databases import docker
from tests.worker.harness import FINISHED, RUNTIME, Project
from tests.worker.packages import PSYCOPG_POOL, unpacked
from tests.worker.poisons import EMOJI, POISONS, TEXT, Poison, fails

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.databases import Server

SHAPES = {"1": [], "1x2": ["--threads=2"], "2x2": ["--processes=2", "--threads=2"]}
# Innocent tasks after each poison: several slots take them in any order.
INNOCENTS = 2


def enqueue(project: Project, poison: Poison) -> str:
    if poison.written is None and (poison.raw or not poison.task.startswith("poisons.")):
        written: Any = {"args": [], "kwargs": {}}
    else:
        written = poison.written
    if written is not None:
        ids: list[str] = project.ask("insert", times=1, task_path=poison.task, args_kwargs=written)
        if poison.raw:
            project.ask("write_raw", id=ids[0], name=poison.raw)
        return ids[0]
    return project.enqueue(poison.task, *poison.args, kwargs=poison.kwargs)[0]


def wrong(poison: Poison, row: dict[str, Any]) -> str:
    """What the row should say and does not."""
    said = (row["status"], row["exception_class_path"])
    if poison.error:
        fine = said[0] == "FAILED" and said[1].endswith(poison.error) and poison.says in row["traceback"]
    else:
        fine = said[0] == "SUCCESSFUL" and row["return_value"] == poison.value
    return "" if fine else f"{poison}: {said} {str(row['return_value'])[:200]} {row['traceback'][-2000:]}"


def poisoned(project: Project, poisons: Sequence[Poison], flags: list[str], **env: Any) -> str:
    """Run poisons, each with innocent tasks behind it; what the worker printed."""
    plan: list[tuple[Poison | None, str]] = []
    for poison in poisons:
        plan.append((poison, enqueue(project, poison)))
        plan += [(None, one) for one in project.enqueue("poisons.surroundings", times=INNOCENTS)]
    worker = project.worker("--interval=0.1", "--worker-id=w", *flags, **env)
    try:
        project.all_finished(len(plan), within_s=1200)
    except AssertionError as error:
        left = [str(poison) for poison, one in plan if project.result(one)["status"] not in FINISHED]
        raise AssertionError(f"{error}; left: {left[:5]}\n{worker.output[-5000:]}") from None
    code = worker.terminate(60)
    rows = project.results()

    assert not [text for poison, one in plan if poison and (text := wrong(poison, rows[one]))], worker.output[
        -5000:
    ]
    innocents = [rows[one] for poison, one in plan if poison is None]
    assert collections.Counter(row["status"] for row in innocents) == {"SUCCESSFUL": len(innocents)}
    found = collections.Counter(str(row["return_value"]) for row in innocents)
    assert list(found) == [str(unspoilt(project, *flags, **env))], found
    assert {len(row["worker_ids"]) for row in rows.values()} == {1}
    assert code == 0, worker.output
    for sign in ("Worker process", "was torn"):
        assert sign not in worker.output, worker.output
    return worker.output


def unspoilt(project: Project, *flags: str, **env: str) -> Any:
    """What a task finds that is the first of its worker."""
    one = project.enqueue_one("poisons.surroundings")
    project.batch(*flags, **env)
    return project.result(one)["return_value"]


def of(engine: str) -> list[Poison]:
    return [poison for poisons in POISONS.values() for poison in poisons if engine in poison.engines]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("shared", ["postgres", "mariadb"], indirect=True)
def test_poison_among_innocent_tasks(shared: Project, shape: str, request: pytest.FixtureRequest) -> None:
    poisoned(shared, of(request.node.callspec.params["shared"]), SHAPES[shape], SECOND_DATABASE="1")


def test_poison_on_sqlite(project_on: Callable[[str], Project]) -> None:
    project = project_on("sqlite")
    try:
        poisoned(project, of("sqlite"), [])
    finally:
        project.clear()


@pytest.mark.parametrize("shared", ["postgres", "mariadb"], indirect=True)
def test_poison_where_the_project_listens_to_the_model(
    shared: Project, request: pytest.FixtureRequest
) -> None:
    """Then rows are claimed and saved by Django's ORM."""
    poisons = of(request.node.callspec.params["shared"])
    poisoned(shared, poisons, SHAPES["1x2"], SECOND_DATABASE="1", MODEL_RECEIVERS="1")


def test_poison_with_a_pool_of_connections(postgres: Project) -> None:
    """What is given back to psycopg's pool comes out of it again, session and all."""
    more = json.dumps({"POOL": {"min_size": 2, "max_size": 4}})
    path = f"{RUNTIME}{os.pathsep}{unpacked(*PSYCOPG_POOL)}"
    poisoned(
        postgres, of("postgres"), SHAPES["1x2"], SECOND_DATABASE="1", MORE_SETTINGS=more, PYTHONPATH=path
    )


@pytest.mark.parametrize(
    ("shared", "shape", "receivers", "logged"),
    [
        ("postgres", "1", "raise", ["the receiver's own trouble\n", "the receiver's own trouble, later\n"]),
        ("mariadb", "2x2", "break", ["SystemExit: 9\n", "has no attribute '__qualname__'"]),
    ],
    indirect=["shared"],
)
def test_poison_with_receivers_that_raise(
    shared: Project, shape: str, receivers: str, logged: list[str], request: pytest.FixtureRequest
) -> None:
    poisons = of(request.node.callspec.params["shared"])
    flags = SHAPES[shape]
    output = poisoned(shared, poisons, flags, SECOND_DATABASE="1", POISONED_RECEIVERS=receivers)
    for text in logged:
        assert text in output


@pytest.mark.parametrize(
    ("signal", "error"),
    [
        ("post_init", "LookupError"),
        ("pre_save", "LookupError"),
        ("post_save", "LookupError"),
        # Nothing of the database's: only what drivers raise is an outage.
        ("pre_save", "OperationalError"),
        ("post_init", "InterfaceError"),
        ("post_save", "DatabaseError"),
    ],
)
@pytest.mark.parametrize("shared", ["postgres", "mariadb"], indirect=True)
def test_receivers_of_the_model_that_refuse_a_row(shared: Project, signal: str, error: str) -> None:
    """When it is claimed, and when its result is stored: only that row is FAILED, with what they raise."""
    refused = shared.enqueue("poisons.return_value", "emoji", times=2)
    late = shared.enqueue("poisons.raise_instance_of", "Own", times=2)
    fine = shared.enqueue("poisons.surroundings", times=6)
    env = {
        "REFUSED_ROWS": f"{refused[0]} {late[0]}",
        "REFUSING_SIGNAL": signal,
        "REFUSING_ERROR": error,
    }
    worker = shared.worker("--processes=2", "--interval=0.1", **env)  # type: ignore[arg-type]
    shared.all_finished(10)
    assert worker.terminate() == 0, worker.output

    rows = shared.results()
    for one in (refused[0], late[0]):
        assert rows[one]["status"] == "FAILED"
        assert rows[one]["exception_class_path"].endswith(f".{error}")
        assert "this row is refused" in rows[one]["traceback"]
    assert rows[refused[1]]["status"] == "SUCCESSFUL"
    assert rows[late[1]]["exception_class_path"] == "poisons.Own"
    assert {rows[one]["status"] for one in fine} == {"SUCCESSFUL"}
    assert {len(row["worker_ids"]) for row in rows.values()} == {1}
    for sign in ("Worker process", "The database"):
        assert sign not in worker.output, worker.output


@pytest.mark.parametrize("error", ["ValueError", "IntegrityError", "OperationalError"])
def test_a_receiver_of_the_model_that_refuses_results(postgres: Project, error: str) -> None:
    ids = postgres.enqueue("nothing", times=3)
    output = postgres.batch("--processes=2", REFUSING_SIGNAL="finished", REFUSING_ERROR=error)
    rows = postgres.results()
    for one in ids:
        assert rows[one]["status"] == "FAILED"
        assert rows[one]["exception_class_path"].endswith(error)
        assert "this row is refused" in rows[one]["traceback"]
    assert "Worker process" not in output, output


@pytest.mark.parametrize("more", [{}, {"MODEL_RECEIVERS": "1"}], ids=["sql", "orm"])
@pytest.mark.parametrize("shared", ["mariadb"], indirect=True)
def test_rows_that_violate_a_constraint_of_their_table(shared: Project, more: dict[str, str]) -> None:
    """Every change of such a row is refused, also the claim: it fails alone, with the value replaced."""
    ids = shared.enqueue("poisons.surroundings", times=4)
    shared.ask("write_raw", id=ids[0], name="torn")
    shared.ask("write_raw", id=ids[1], name="nested")
    shared.ask("write_unchecked", id=ids[2], column="priority", value=1000)
    worker = shared.worker("--interval=0.1", **more)  # type: ignore[arg-type]
    shared.all_finished(4)
    assert worker.terminate() == 0, worker.output

    rows = shared.results()
    found = [(rows[one]["status"], rows[one]["exception_class_path"].rpartition(".")[2]) for one in ids]
    assert found == [
        ("FAILED", "JSONDecodeError"),
        ("FAILED", "IntegrityError"),
        ("FAILED", "IntegrityError"),
        ("SUCCESSFUL", ""),
    ]
    # What was there is still to be seen.
    assert shared.ask("arguments", id=ids[0]) == {"args": ['{"args": ['], "kwargs": {}}
    assert shared.ask("arguments", id=ids[2]) == {"args": [], "kwargs": {}}
    assert "Worker process" not in worker.output, worker.output


@pytest.mark.parametrize("more", [{}, {"MODEL_RECEIVERS": "1"}], ids=["sql", "orm"])
@pytest.mark.parametrize("shared", ["postgres", "mariadb"], indirect=True)
def test_rows_that_violate_a_constraint_of_the_projects(shared: Project, more: dict[str, str]) -> None:
    """It holds for new rows only (NOT VALID). A row that cannot even be FAILED is passed over."""
    fine = shared.enqueue("poisons.surroundings", times=3)
    fails = shared.enqueue_one("poisons.surroundings", "too", "many", priority=1)
    refused = shared.enqueue_one("poisons.surroundings", priority=77)
    length = "jsonb_array_length(args_kwargs->'args')"
    if shared.engine != "postgresql":
        length = "JSON_LENGTH(args_kwargs, '$.args')"
    with constraints(shared, no_77="priority <> 77", args_kwargs_of_two=f"{length} <> 2"):
        worker = shared.worker("--processes=2", "--interval=0.1", **more)  # type: ignore[arg-type]
        try:
            shared.all_finished(4)
            assert worker.terminate() == 0, worker.output
        finally:
            worker.kill()
        rows = shared.results()
        assert {rows[one]["status"] for one in fine} == {"SUCCESSFUL"}
        assert rows[fails]["status"] == "FAILED"
        assert rows[fails]["exception_class_path"] == "django.db.utils.IntegrityError"
        assert (rows[refused]["status"], rows[refused]["worker_ids"]) == ("READY", [])
    assert f"Task id={refused} is passed over" in worker.output
    assert "Worker process" not in worker.output, worker.output
    # Once the row can be changed, it is a task like others.
    shared.batch(**more)
    assert shared.result(refused)["status"] == "SUCCESSFUL"


@contextlib.contextmanager
def constraints(project: Project, **checks: str) -> Iterator[None]:
    """Constraints of the task table that rows which are there already may violate."""
    table = "ALTER TABLE django_tasks_database_dbtaskresult"
    postgres = project.engine == "postgresql"
    add = [
        f"{table} ADD CONSTRAINT {name} CHECK ({check}) {'NOT VALID' if postgres else ''}"
        for name, check in checks.items()
    ]
    if not postgres:
        add = ["SET check_constraint_checks = 0", *add, "SET check_constraint_checks = 1"]
    try:
        for statement in add:
            project.ask("execute", sql=statement)
        yield
    finally:
        for name in checks:
            project.ask("execute", sql=f"{table} DROP CONSTRAINT IF EXISTS {name}")


@pytest.mark.parametrize(
    ("shared", "charset"), [("postgres", "latin1"), ("mariadb", "latin1"), ("mariadb", "utf8mb3")]
)
def test_poisonous_text_in_tables_of_other_character_sets(
    shared: str, charset: str, request: pytest.FixtureRequest
) -> None:
    """Of exceptions, and of results, which JSON writes in ASCII: only PostgreSQL looks at what that means."""
    server: Server = request.getfixturevalue(f"{shared}_server")
    project = Project(create_database(server, f"poison_{charset}", charset))
    project.migrate()
    try:
        result = EMOJI
        if shared == "postgres":
            result = fails("django.db.utils.DataError", EMOJI.task, *EMOJI.args, says="LATIN1")
        poisoned(project, [*map(in_ascii, POISONS[TEXT]), result], [])
    finally:
        project.clear()
        project.close()


def create_database(server: Server, name: str, charset: str) -> str:
    """The URL of a new database."""
    if server.scheme == "postgresql":
        with psycopg.connect(server.url(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{charset}' LOCALE 'C'")
    else:
        create = f"CREATE DATABASE {name} CHARACTER SET {charset}; GRANT ALL ON {name}.* TO django@'%'"
        docker("exec", server.container, "mariadb", "-uroot", "-e", create)
    return server.url(name)


def in_ascii(poison: Poison) -> Poison:
    """As it is told where the table has no room for more."""
    error, says = (text.encode("ascii", "backslashreplace").decode() for text in (poison.error, poison.says))
    return replace(poison, error=error, says=says)
