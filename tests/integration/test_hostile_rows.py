"""Malicious rows in real PostgreSQL and MariaDB: what is shown of them is harmless."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from tests.contract.tasktable import DEFAULT, EVERYTHING, Row
from tests.integration.databases import create_database
from tests.integration.test_tasktable import RealTable
from tests.unit.report.test_events import event_object
from tests.unit.report.test_status import GOOD, status_of
from tests.unit.test_harmless import HOSTILE, is_harmless

from django_task_operator.harmless import LONGEST_NAME
from django_task_operator.keepers.evidence import pod_of, traces
from django_task_operator.keepers.orphans import settlement_of, told
from django_task_operator.spec import OrphanPolicy, Orphans

from django_tasks_db.models import DBTaskResult  # isort: skip

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.databases import Server

# As long as the column allows, and without NUL, which PostgreSQL refuses.
QUEUES = ("\x1b[2J\x1b]0;owned\x07", "\u202esliame\u200b\n", "<script>alert(1)</script>")
PATH = HOSTILE.replace("\x00", "") * 20_000
POD = "emails-5d9f-abcde"
ORPHANS = Orphans(policy=OrphanPolicy.FAIL, grace_seconds=0, max_requeues=0)


@pytest.fixture(scope="module")
def url(server: Server) -> str:
    return create_database(server, "shop_hostile")


@pytest.fixture
def stocked(url: str) -> Iterator[RealTable]:
    with RealTable.opened(url) as table:
        yield table


def test_queues_with_hostile_names_are_counted_and_told_harmlessly(stocked: RealTable) -> None:
    stocked.put([Row(queue=queue) for queue in QUEUES])
    unserved = tuple(sorted(each.queue for each in stocked.table.waiting_queues({DEFAULT})))
    counted = stocked.table.sample({EVERYTHING: 10}).demands[EVERYTHING]

    assert set(unserved) == set(QUEUES)
    assert counted.ready == len(QUEUES)
    (scaling,) = (
        each
        for each in status_of(replace(GOOD, unserved_queues=unserved))["conditions"]
        if each["reason"] == "QueueUnserved"
    )
    assert is_harmless(scaling["message"])
    assert r"\x1b[2J\x1b]0;owned\x07" in scaling["message"]


def test_orphans_with_hostile_paths_are_told_harmlessly(stocked: RealTable) -> None:
    stocked.put([Row(status="RUNNING", workers=(f"{POD}/{HOSTILE[:20]}",), started=-100)] * 12)
    DBTaskResult.objects.update(task_path=PATH)
    rows = stocked.table.running().rows
    found = traces(rows, {}, {"emails-5d9f"})

    assert len(found) == 12
    assert {len(row.task_path) for row in rows} == {LONGEST_NAME + 1}
    notes = [
        event_object(event.note)["note"]
        for event in told([(trace, settlement_of(trace, ORPHANS)) for trace in found])
    ]
    assert notes
    assert all(map(is_harmless, notes)), notes
    # The name alone is cut, not what happened to the task.
    assert all(POD in note or "their pods are gone" in note for note in notes)


@pytest.mark.parametrize("stored", [{"a": 1}, [1, None], "text", 7, [["x"]], []], ids=str)
def test_worker_ids_that_are_no_list_of_texts_belong_to_nobody(stocked: RealTable, stored: Any) -> None:
    stocked.put([Row(status="RUNNING", workers=("a",), started=-100)])
    DBTaskResult.objects.update(worker_ids=stored)
    (row,) = stocked.table.running().rows

    assert (pod_of(row.worker_id), row.attempts) == ("", 0)
