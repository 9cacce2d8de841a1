from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
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
