from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.integration.databases import Server, running

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent


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
    """Tests on one kind of server run in one process, so that there is one server of that kind."""
    for item in items:
        if item.path.is_relative_to(HERE) and {"server", "postgres", "mariadb"} & set(item.fixturenames):
            kind = item.callspec.params.get("server", "postgres") if hasattr(item, "callspec") else "postgres"
            item.add_marker(pytest.mark.xdist_group(f"integration on {kind}"))
