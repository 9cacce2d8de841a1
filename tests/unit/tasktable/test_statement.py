"""The text of the statement, for reviewers.

To renew a file of statements/, delete it and run the test twice.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from django_task_operator.tasktable import DatabaseURL, Selection, orm
from django_task_operator.tasktable.engines import Limits
from django_task_operator.tasktable.statement import Layout, compile_statement

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper

STATEMENTS = Path(__file__).parent / "statements"
URLS = {"postgresql": "postgres://u:p@h/n", "mysql": "mysql://u:p@h/n"}
INDEXED = Layout(indexed=True, queues={"default": ("emails", "reports")})
WITHOUT_INDEX = Layout(indexed=False, queues={})


def connection(vendor: str) -> BaseDatabaseWrapper:
    made = orm.new_connection(DatabaseURL.parse(URLS[vendor]), Limits(5, 10))
    # To compile a statement, Django asks a MySQL server for its version; there is none here.
    vars(made)["mysql_server_data"] = {
        "version": "11.8.3-MariaDB",
        "sql_mode": "",
        "default_storage_engine": "InnoDB",
        "lower_case_table_names": False,
        "has_zoneinfo_database": False,
    }
    return made


@pytest.mark.parametrize("vendor", URLS)
@pytest.mark.parametrize("layout", [INDEXED, WITHOUT_INDEX], ids=["indexed", "without-index"])
def test_text(vendor: str, layout: Layout) -> None:
    wanted = {
        Selection("default", ("emails", "Emails")): 100,
        Selection("default", ("*",), ("reports",)): 30,
        Selection("default", ("emails",)): 20,
    }
    statement = compile_statement(connection(vendor), wanted, layout)
    text = re.sub(
        r" (FROM|WHERE|GROUP BY|ORDER BY|LIMIT|UNION ALL)\b", r"\n\1", statement.sql.replace("%s", "{!r}")
    )
    text = text.format(*map(str, statement.params)) + "\n"
    golden = STATEMENTS / f"{vendor}-{'indexed' if layout.indexed else 'without-index'}.sql"
    if not golden.exists():
        golden.write_text(text)
        pytest.fail(f"{golden.name} was missing and has been written: read it, and run again")
    assert text == golden.read_text()


@pytest.mark.parametrize("vendor", URLS)
def test_workers_of_one_queue_share_its_arms(vendor: str) -> None:
    def arms(*selections: Selection) -> int:
        wanted = dict.fromkeys(selections, 10)
        return compile_statement(connection(vendor), wanted, INDEXED).sql.count(") arm")

    emails, both = Selection("default", ("emails",)), Selection("default", ("emails", "reports"))
    assert arms(emails) == 2
    assert arms(emails, both) == 4
    assert arms(emails, Selection("other", ("emails",))) == 4


@pytest.mark.parametrize("vendor", URLS)
@pytest.mark.parametrize("workers", [1, 50, 200, 1000])
def test_running_rows_are_read_once_however_many_workers(vendor: str, workers: int) -> None:
    wanted = {Selection("default", (f"q{number}",)): 10 for number in range(workers)}
    for layout in (INDEXED, WITHOUT_INDEX):
        statement = compile_statement(connection(vendor), wanted, layout)
        assert statement.sql.count("GROUP BY") == 1


def test_queues_that_are_too_many_to_name_are_counted_without() -> None:
    layout = Layout(indexed=True, queues={"default": None})
    statement = compile_statement(
        connection("postgresql"), {Selection("default", ("*",), ("slow",)): 9}, layout
    )
    assert statement.sql.count(") arm") == 2
    assert "NOT" in statement.sql
