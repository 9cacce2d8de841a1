"""The migration of the app `django_db_worker`: what `db_worker_setup` does, for those who install the app."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import psycopg
import pytest
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.worker.harness import Project

APP = "django_db_worker"
NAMES = {"django_task_claims_idx", "django_task_operator_idx"}
TABLE = "django_tasks_database_dbtaskresult"
# Otherwise the project leaves it out.
WITH: dict[str, str] = {"MORE_SETTINGS": json.dumps({"MIGRATION_MODULES": {}})}


def _done(project: Project, *args: str, **env: str) -> str:
    done = project.run(*args, **{**WITH, **env})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _is_set_up(project: Project, **env: str) -> bool:
    return project.run("db_worker_setup", "--check", **env).returncode == 0


@pytest.fixture
def bare(shared: Project) -> Iterator[Project]:
    """A project with neither the migration nor the indexes, before and after."""
    yield from _bare(shared)


@pytest.fixture
def bare_postgres(postgres: Project) -> Iterator[Project]:
    """The same on PostgreSQL."""
    yield from _bare(postgres)


def _bare(project: Project) -> Iterator[Project]:
    _done(project, "migrate", APP, "zero")
    _done(project, "db_worker_setup", "--remove")
    yield project
    _done(project, "migrate", APP, "zero")
    _done(project, "db_worker_setup", "--remove")


def test_it_creates_the_indexes_and_removes_them(bare: Project) -> None:
    assert not _is_set_up(bare)
    assert "Applying django_db_worker.0001_setup... OK" in _done(bare, "migrate", APP)
    assert "Creat" not in _done(bare, "db_worker_setup")
    assert "Unapplying django_db_worker.0001_setup... OK" in _done(bare, "migrate", APP, "zero")
    assert not _is_set_up(bare)


def test_it_may_follow_the_command(bare: Project) -> None:
    _done(bare, "db_worker_setup")
    _done(bare, "migrate", APP)
    assert _is_set_up(bare)
    assert "Creat" not in _done(bare, "db_worker_setup")


def test_it_can_be_undone_after_the_command_has_removed_the_indexes(bare: Project) -> None:
    _done(bare, "migrate", APP)
    _done(bare, "db_worker_setup", "--remove")
    _done(bare, "migrate", APP, "zero")
    assert not _is_set_up(bare)


def test_there_is_nothing_to_migrate_beside_it(project: Project) -> None:
    _done(project, "makemigrations", "--check", "--dry-run")
    _done(project, "migrate", APP)
    _done(project, "migrate", APP, "zero")


def test_a_limit_on_the_time_of_a_statement_is_lifted_for_it_alone(bare_postgres: Project) -> None:
    """The index is built while somebody writes: it waits for longer than the limit until they commit."""
    limited = {"OPTIONS": {"options": "-c statement_timeout=1000"}, "MIGRATION_MODULES": {}}
    with (
        psycopg.connect(bare_postgres.url) as writer,
        psycopg.connect(bare_postgres.url, autocommit=True) as observer,
        ThreadPoolExecutor() as threads,
    ):
        writer.execute(f"LOCK TABLE {TABLE} IN ROW EXCLUSIVE MODE")
        migration = threads.submit(_done, bare_postgres, "migrate", APP, MORE_SETTINGS=json.dumps(limited))
        try:
            eventually(
                lambda: (
                    observer.execute(
                        "SELECT FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX CONCURRENTLY%' "
                        "AND query_start < clock_timestamp() - interval '2 s' AND wait_event_type = 'Lock'"
                    ).fetchone()
                    is not None
                ),
                "it waits for longer than the limit",
            )
            # Nobody who writes waits for it.
            with observer.transaction():
                observer.execute(f"LOCK TABLE {TABLE} IN ROW EXCLUSIVE MODE NOWAIT")
        finally:
            writer.rollback()
        migration.result()
    assert _is_set_up(bare_postgres)


def test_several_may_begin_at_the_same_moment(bare_postgres: Project) -> None:
    """PostgreSQL sees a deadlock there: each waits for the lock of a build, and the build for the waiting."""
    with (
        psycopg.connect(bare_postgres.url) as holder,
        psycopg.connect(bare_postgres.url, autocommit=True) as observer,
        ThreadPoolExecutor() as threads,
    ):
        holder.execute(f"LOCK TABLE {TABLE} IN SHARE UPDATE EXCLUSIVE MODE")
        setups = [threads.submit(bare_postgres.run, "db_worker_setup") for _ in range(3)]
        try:
            eventually(
                lambda: (
                    observer.execute(
                        "SELECT count(*) FROM pg_stat_activity "
                        "WHERE query LIKE 'CREATE INDEX CONCURRENTLY%' AND wait_event_type = 'Lock'"
                    ).fetchone()
                    == (3,)
                ),
                "all wait to begin",
            )
        finally:
            holder.rollback()
        done = [setup.result() for setup in setups]
    assert [each.returncode for each in done] == [0, 0, 0], done
    assert _is_set_up(bare_postgres)


def test_it_goes_where_routers_send_the_task_table(
    bare_postgres: Project, project_on: Callable[[str], Project], tmp_path: Path
) -> None:
    """The router of a project knows nothing of an app without models, and sends it to the default one."""
    given = {"DATABASE_ROUTERS": ["elsewhere.TasksElsewhere"], "MIGRATION_MODULES": {}}
    env = {
        "TASK_DATABASE_URL": f"sqlite:///{tmp_path / 'default.sqlite3'}",
        "SECOND_DATABASE": bare_postgres.url,
        "MORE_SETTINGS": json.dumps(given),
    }
    _done(bare_postgres, "migrate", **env)
    assert not _is_set_up(bare_postgres)
    _done(bare_postgres, "migrate", "--database=second", **env)
    assert _is_set_up(bare_postgres)
    assert _is_set_up(bare_postgres, **env)


def test_it_ignores_the_task_table_of_a_database_that_is_not_for_it(
    bare_postgres: Project, project_on: Callable[[str], Project]
) -> None:
    """As when an old copy of the table is still in the default database."""
    given = {"DATABASE_ROUTERS": ["elsewhere.TasksElsewhere"], "MIGRATION_MODULES": {}}
    more = {"SECOND_DATABASE": project_on("sqlite").url, "MORE_SETTINGS": json.dumps(given)}
    _done(bare_postgres, "migrate", APP, **more)
    assert not _is_set_up(bare_postgres)
