"""A project for each kind of database, with empty tables when a test begins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.databases import Server, running_mariadb, running_postgres
from tests.worker.harness import Project

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[Server]:
    with running_mariadb() as server:
        yield server


@pytest.fixture(scope="session")
def project_on(request: pytest.FixtureRequest) -> Iterator[Callable[[str], Project]]:
    """The migrated project on an engine, whose server is started when it is first used."""
    made: dict[str, Project] = {}

    def make(engine: str) -> Project:
        if engine not in made:
            if engine == "sqlite":
                directory = request.getfixturevalue("tmp_path_factory").mktemp("sqlite")
                url = f"sqlite:///{directory / 'tasks.sqlite3'}"
            else:
                url = request.getfixturevalue(f"{engine}_server").url()
            made[engine] = Project(url)
            made[engine].migrate()
        return made[engine]

    yield make
    for project in made.values():
        project.close()


@pytest.fixture(params=["postgres", "mariadb", "sqlite"])
def project(request: pytest.FixtureRequest, project_on: Callable[[str], Project]) -> Iterator[Project]:
    """The project, on each engine in turn."""
    found = project_on(request.param)
    yield found
    found.clear()


@pytest.fixture(params=["postgres", "mariadb"])
def shared(request: pytest.FixtureRequest, project_on: Callable[[str], Project]) -> Iterator[Project]:
    """The project, on each engine that several processes can use."""
    found = project_on(request.param)
    yield found
    found.clear()


@pytest.fixture
def postgres(project_on: Callable[[str], Project]) -> Iterator[Project]:
    """The project on PostgreSQL, for tests that do not depend on the engine."""
    found = project_on("postgres")
    yield found
    found.clear()
