"""`db_worker_setup`: the indexes of the task table, created, checked, repaired and removed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.worker.harness import Project

NAMES = ("django_task_claims_idx", "django_task_operator_idx")


@pytest.fixture
def bare(shared: Project) -> Iterator[Project]:
    """A project whose table has none of the indexes, before and after."""
    assert shared.run("db_worker_setup", "--remove").returncode == 0
    yield shared
    assert shared.run("db_worker_setup", "--remove").returncode == 0


def test_it_creates_what_is_missing_and_nothing_twice(bare: Project) -> None:
    missing = bare.run("db_worker_setup", "--check")
    assert missing.returncode == 1
    assert missing.stdout.count("is missing") == 2
    assert "manage.py db_worker_setup" in missing.stderr

    first = bare.run("db_worker_setup")
    assert first.returncode == 0, first.stderr
    assert all(f"Created {name}" in first.stdout for name in NAMES)
    there = bare.run("db_worker_setup", "--check")
    assert there.returncode == 0, there.stderr
    assert there.stdout.count("is there") == 2

    again = bare.run("db_worker_setup")
    assert again.returncode == 0
    assert "Creat" not in again.stdout
    assert "manage.py db_worker_setup" not in bare.batch()

    assert bare.run("db_worker_setup", "--remove").returncode == 0
    assert bare.run("db_worker_setup", "--check").returncode == 1


def test_an_index_of_another_name_will_do(bare: Project) -> None:
    printed = bare.run("db_worker_setup", "--sql").stdout
    assert all(name in printed for name in NAMES)
    for statement in printed.split(";\n")[:-1]:
        bare.ask("execute", sql=statement.replace("_idx", "_by_hand"))
    try:
        assert bare.run("db_worker_setup", "--check").returncode == 0
        assert "Creat" not in bare.run("db_worker_setup").stdout
        assert "manage.py db_worker_setup" not in bare.batch()
    finally:
        for statement in bare.run("db_worker_setup", "--sql", "--remove").stdout.split(";\n")[:-1]:
            bare.ask("execute", sql=statement.replace("_idx", "_by_hand"))


def test_what_has_our_name_and_is_not_ours_is_replaced(bare: Project) -> None:
    table = "django_tasks_database_dbtaskresult"
    bare.ask("execute", sql=f"CREATE INDEX {NAMES[0]} ON {table} (priority)")
    assert bare.run("db_worker_setup", "--check").returncode == 1
    done = bare.run("db_worker_setup")
    assert f"Removing {NAMES[0]}" in done.stdout, done.stderr
    assert bare.run("db_worker_setup", "--check").returncode == 0


def test_what_an_interrupted_build_leaves_is_rebuilt(postgres: Project) -> None:
    postgres.run("db_worker_setup")
    postgres.ask(
        "execute",
        sql=f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{NAMES[0]}'::regclass",
    )
    assert postgres.run("db_worker_setup", "--check").returncode == 1
    assert "manage.py db_worker_setup" in postgres.batch()
    done = postgres.run("db_worker_setup")
    assert f"Removing {NAMES[0]}" in done.stdout, done.stderr
    assert f"Created {NAMES[0]}" in done.stdout
    assert postgres.run("db_worker_setup", "--check").returncode == 0
    assert postgres.run("db_worker_setup", "--remove").returncode == 0


def test_a_partial_index_of_other_rows_does_not_count(postgres: Project) -> None:
    (statement,) = (
        line for line in postgres.run("db_worker_setup", "--sql").stdout.splitlines() if NAMES[0] in line
    )
    wrong = statement.replace("status = 'READY'", "status = 'READY' AND priority = 0")
    postgres.ask("execute", sql=wrong.replace(";", ""))
    assert postgres.run("db_worker_setup", "--check").returncode == 1
    assert postgres.run("db_worker_setup", "--remove").returncode == 0


def test_other_databases_need_none(project_on: Callable[[str], Project]) -> None:
    project = project_on("sqlite")
    for flag in ((), ("--check",), ("--sql",)):
        done = project.run("db_worker_setup", *flag)
        assert (done.returncode, "SQLite needs no other indexes" in done.stdout) == (0, True), done.stderr


def test_without_a_table_it_says_what_to_do(postgres: Project) -> None:
    done = postgres.run("db_worker_setup", TASK_DATABASE_URL=postgres.url.replace("/tasks", "/postgres"))
    assert done.returncode == 1
    assert "Run `manage.py migrate` first" in done.stderr
