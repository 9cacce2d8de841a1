"""Every form of a URL that libpq and Django's settings accept finds the same table on a real server."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

import psycopg
import pytest
from tests.contract.tasktable import DEFAULT
from tests.integration.databases import PASSWORD, TABLE, USER, create_database

from django_task_operator.tasktable import DatabaseURL, TaskTable, errors

if TYPE_CHECKING:
    from tests.integration.databases import Server

ENCODED = quote(PASSWORD, safe="")
HERE = "127.0.0.1"


def sampled(url: str) -> None:
    """Sample the table once; an error of the database fails the test."""
    table = TaskTable(DatabaseURL.parse(url))
    try:
        assert DEFAULT in table.sample({DEFAULT: 1}).demands
    finally:
        table.close()


@pytest.fixture(scope="module")
def name(postgres: Server) -> str:
    create_database(postgres, "shop_forms")
    return "shop_forms"


@pytest.mark.parametrize(
    ("form", "is_libpqs"),
    [
        ("postgresql://{user}:{password}@{here}:{port}/{name}", True),
        ("postgres://{user}:{password}@{here}:{port}/{name}", True),
        ("psql://{user}:{password}@{here}:{port}/{name}", False),
        ("pgsql://{user}:{password}@{here}:{port}/{name}", False),
        ("postgresql://{here}/{name}?user={user}&password={password}&port={port}", True),
        ("postgresql:///{name}?host={here}&user={user}&password={password}&port={port}", True),
        ("postgresql://{user}@{here}:{port}?dbname={name}&password={password}", True),
        # Nothing listens on the first one.
        ("postgresql://{user}:{password}@{here}:1,{here}:{port}/{name}", True),
        (
            "postgresql://{user}:{password}@{here}:1,{here}:{port}/{name}?target_session_attrs=read-write",
            True,
        ),
        ("postgresql://{user}:{password}@anything.invalid:{port}/{name}?hostaddr={here}", True),
        ("postgresql://{user}:{password}@{here}:{port}/{name}?sslmode=prefer&connect_timeout=30", True),
    ],
)
def test_postgresql(postgres: Server, name: str, form: str, is_libpqs: bool) -> None:
    url = form.format(user=USER, password=ENCODED, here=HERE, port=postgres.port, name=name)
    if is_libpqs:
        # The pods' own driver means the same by it.
        with psycopg.connect(url) as connection:
            assert connection.info.dbname == name
    sampled(url)


@pytest.mark.parametrize(
    "query", ["?schema=tasks", "?currentSchema=tasks", "?options=-c%20search_path%3Dtasks"]
)
def test_a_table_in_a_schema_of_its_own(postgres: Server, query: str) -> None:
    name = f"shop_schema_{len(query)}"
    url = create_database(postgres, name)
    postgres.administer("CREATE SCHEMA tasks", f"ALTER TABLE {TABLE} SET SCHEMA tasks", name=name)
    with pytest.raises(errors.TableMissing):
        sampled(url)
    sampled(f"{url}{query}")


@pytest.mark.parametrize(
    "form",
    [
        "mysql://{user}:{password}@{here}:{port}/{name}",
        "mariadb://{user}:{password}@{here}:{port}/{name}",
        "mysql2://{user}:{password}@{here}:{port}/{name}",
        "mysql://{here}/{name}?user={user}&password={password}&port={port}",
    ],
)
def test_mariadb(mariadb: Server, form: str) -> None:
    name = f"shop_forms_{len(form)}"
    create_database(mariadb, name)
    sampled(form.format(user=USER, password=ENCODED, here=HERE, port=mariadb.port, name=name))
