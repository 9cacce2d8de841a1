from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.conftest import keep_together
from tests.integration.databases import Server, running

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    with running("postgres") as server:
        yield server


@pytest.fixture(scope="session")
def mariadb() -> Iterator[Server]:
    with running("mariadb") as server:
        yield server


@pytest.fixture(scope="session", params=["postgres", "mariadb"])
def server(request: pytest.FixtureRequest) -> Server:
    found: Server = request.getfixturevalue(request.param)
    return found


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    keep_together(items, Path(__file__).parent, _engine)


def _engine(item: pytest.Item) -> str | None:
    if not {"server", "postgres", "mariadb"} & set(getattr(item, "fixturenames", ())):
        return None
    params = item.callspec.params if hasattr(item, "callspec") else {}
    engine: str = params.get("server", "postgres")
    return engine
