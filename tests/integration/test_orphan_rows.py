"""Settling rows on real PostgreSQL and MariaDB while others change them."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from django.utils import timezone
from tests.contract.tasktable import Became, Row
from tests.integration.databases import TABLE, as_default, create_database, execute, opened
from tests.integration.pooler import refusing
from tests.integration.test_tasktable import RealTable
from tests.waiting import PATIENCE_S

from django_task_operator.tasktable import DatabaseURL, Failed, Requeued, Selection, TaskTable
from django_task_operator.tasktable.errors import DatabaseReadOnly, PermissionDenied
from django_task_operator.tasktable.running import running_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.integration.databases import Server

    from django_task_operator.tasktable import RunningRow, Settlement

FAILED = Failed("builtins.ChildProcessError", "ChildProcessError: gone\n")
ROW = Row(status="RUNNING", workers=("emails-5d9f-abcde/1.1",), started=-100)
FINISH = f"UPDATE {TABLE} SET status = 'SUCCESSFUL' WHERE id = %s"


@pytest.fixture(scope="module")
def url(server: Server) -> str:
    return create_database(server, "shop_orphans")


@pytest.fixture
def stocked(url: str) -> Iterator[RealTable]:
    with RealTable.opened(url) as table:
        yield table


def settled_of(url: str, rows: Iterable[RunningRow], settlement: Settlement) -> int:
    """Settle the rows as a separate operator would; return how many it settled."""
    table = TaskTable(DatabaseURL.parse(url))
    try:
        return sum(table.settle(row, settlement) for row in rows)
    finally:
        table.close()


@pytest.mark.parametrize("settlement", [FAILED, Requeued()], ids=str)
def test_a_task_that_finishes_in_the_same_moment_stays_finished(
    stocked: RealTable, settlement: Settlement
) -> None:
    stocked.put([replace(ROW, started=-100 + number) for number in range(200)])
    rows = stocked.table.running().rows
    barrier = threading.Barrier(2)

    def finish() -> None:
        with opened(stocked.url) as connection:
            for row in rows:
                barrier.wait(timeout=PATIENCE_S)
                execute(connection, FINISH, row.key)

    with ThreadPoolExecutor() as pool:
        finishing = pool.submit(finish)
        settled = []
        for row in rows:
            barrier.wait(timeout=PATIENCE_S)
            settled.append(stocked.table.settle(row, settlement))
        finishing.result()

    # Whoever was first: a stored result is never overwritten.
    assert {row.status for row in stocked.became()} == {"SUCCESSFUL"}
    assert len(settled) == 200


def test_a_task_that_finishes_in_an_open_transaction_stays_finished(stocked: RealTable) -> None:
    stocked.put([ROW])
    (row,) = stocked.table.running().rows
    with opened(stocked.url) as connection, ThreadPoolExecutor() as pool:
        connection.set_autocommit(False)
        execute(connection, FINISH, row.key)
        settling = pool.submit(settled_of, stocked.url, [row], FAILED)
        with pytest.raises(TimeoutError):
            settling.result(timeout=0.5)
        connection.commit()
        assert settling.result(timeout=PATIENCE_S) == 0

    assert stocked.became() == [Became("SUCCESSFUL", ROW.workers)]


def test_two_operators_settle_a_row_once(stocked: RealTable) -> None:
    stocked.put([replace(ROW, started=-100 + number) for number in range(50)])
    rows = stocked.table.running().rows

    with ThreadPoolExecutor() as pool:
        both = [pool.submit(settled_of, stocked.url, rows, Requeued()) for _ in range(2)]
        assert sum(each.result() for each in both) == 50


def test_a_listing_is_cut_off_and_says_so(stocked: RealTable) -> None:
    stocked.put([ROW] * 3)
    with opened(stocked.url) as connection:
        assert [
            (len(found.rows), found.complete)
            for most in (2, 3, 4)
            for found in [running_rows(connection, most)]
        ] == [
            (2, False),
            (3, True),
            (3, True),
        ]


@pytest.mark.parametrize("zone", [None, "America/New_York", "Asia/Kolkata"])
def test_a_project_with_a_time_zone_of_its_own(server: Server, url: str, zone: str | None) -> None:
    """Its rows never seem older than they are, and can still be settled."""
    with as_default(url) as connection:
        connection.settings_dict["TIME_ZONE"] = zone
        vars(connection).pop("timezone", None)
        table = TaskTable(DatabaseURL.parse(url))
        stocked = RealTable(table, url, timezone.now())
        stocked.put([replace(ROW, started=-100)])
        (row,) = table.running().rows
        certain = server.kind == "postgres" or zone is None
        assert row.started_at == (stocked.now - timedelta(seconds=100) if certain else None)
        assert row.since is not None
        assert table.settle(row, FAILED)
        assert table.running().rows == ()
        table.close()
        execute(connection, f"DELETE FROM {TABLE}")


def test_a_user_who_may_only_read_is_refused_and_goes_on_reading(stocked: RealTable, server: Server) -> None:
    name = stocked.url.rpartition("/")[2]
    if server.kind == "postgres":
        server.administer(
            "CREATE USER spectator PASSWORD 'r'", f"GRANT SELECT ON {TABLE} TO spectator", name=name
        )
    else:
        server.administer(
            "CREATE USER spectator@'%' IDENTIFIED BY 'r'", f"GRANT SELECT ON {name}.{TABLE} TO spectator@'%'"
        )
    stocked.put([ROW])
    table = TaskTable(DatabaseURL.parse(server.url(name, user="spectator", password="r")))
    (row,) = table.running().rows
    with pytest.raises(PermissionDenied):
        table.settle(row, FAILED)

    assert [each.id for each in table.running().rows] == [row.id]
    table.close()


def test_a_database_that_takes_no_changes_says_so_and_is_read_on(postgres: Server) -> None:
    url = create_database(postgres, "shop_read_only")
    with as_default(url):
        table = TaskTable(DatabaseURL.parse(url))
        RealTable(table, url, timezone.now()).put([ROW])
        postgres.administer("ALTER DATABASE shop_read_only SET default_transaction_read_only = on")
        (row,) = table.running().rows
        table.close()
        with pytest.raises(DatabaseReadOnly):
            table.settle(row, FAILED)
        assert [each.id for each in table.running().rows] == [row.id]
        table.close()


def test_behind_a_pooler_rows_are_listed_and_settled_under_the_time_out(postgres: Server) -> None:
    url = create_database(postgres, "shop_orphans_pooled")
    with refusing(postgres.port) as pooler, as_default(url):
        through = url.replace(str(postgres.port), str(pooler.server_address[1]))
        table = TaskTable(DatabaseURL.parse(through), statement_timeout=1)
        RealTable(table, url, timezone.now()).put([ROW])
        (row,) = table.running().rows
        with opened(url) as other:
            other.set_autocommit(False)
            execute(other, f"SELECT id FROM {TABLE} FOR UPDATE")
            with pytest.raises(Exception, match="longer than 1 s"):
                table.settle(row, FAILED)
            other.rollback()
        assert table.settle(row, FAILED)
        assert table.sample({Selection("default", ("default",)): 1}).demands
        assert table.running().rows == ()
        table.close()
