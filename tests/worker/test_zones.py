"""Times without a time zone, as MariaDB stores them, in whatever zone the project writes them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from tests.waiting import eventually

from django_task_operator.keepers.evidence import Fate, traces
from django_task_operator.observed.pods import Pod
from django_task_operator.tasktable import DatabaseURL, TaskTable

if TYPE_CHECKING:
    from pathlib import Path

    from tests.worker.harness import Project

POD = "emails-5d9f-abcde"
OWN = frozenset({"emails-5d9f"})


@pytest.mark.parametrize(
    "zone",
    [
        {},
        {"DATABASE_TIME_ZONE": "America/New_York"},
        {"DATABASE_TIME_ZONE": "Asia/Kolkata", "TIME_ZONE": "Asia/Tokyo"},
        {"USE_TZ": "0", "TIME_ZONE": "America/New_York"},
        {"USE_TZ": "0", "TIME_ZONE": "Asia/Tokyo"},
    ],
    ids=lambda zone: "-".join(zone.values()) or "UTC",
)
def test_a_running_task_is_never_taken_for_one_of_the_container_before(
    shared: Project, zone: dict[str, str], tmp_path: Path
) -> None:
    """Its pod has been restarted: what started before, by the node's clock, is lost."""
    before = datetime.now(UTC).replace(microsecond=0)
    pod = Pod(POD, restarts=1, running_since=before - timedelta(seconds=5), ended_at=before)
    gate = tmp_path / "gate"
    code = f"import chores; chores.note.enqueue(gate={str(gate)!r})"
    assert shared.run("shell", "--no-imports", "--command", code, **zone).returncode == 0
    worker = shared.worker("--threads=2", "--interval=0.1", f"--worker-id={POD}", **zone)  # type: ignore[arg-type]
    worker.runs()
    table = TaskTable(DatabaseURL.parse(shared.url))
    try:
        (row,) = table.running().rows
    finally:
        table.close()
    assert [trace.fate for trace in traces([row], {POD: pod}, OWN)] == [Fate.ALIVE]
    # Nor by the worker itself, which looks for rows of a process that ended.
    gate.touch()
    eventually(lambda: shared.statuses() == {"SUCCESSFUL": 1}, "it is finished")
    assert worker.terminate() == 0

    code = (
        "from django.utils import timezone as t; from django_tasks_db.models import DBTaskResult as D; "
        "row = D.objects.get(); "
        "print((t.now() - row.enqueued_at).total_seconds(), (t.now() - row.started_at).total_seconds(), "
        "(t.now() - row.finished_at).total_seconds())"
    )
    shown = shared.run("shell", "--no-imports", "--command", code, **zone)
    assert shown.returncode == 0, shown.stderr
    enqueued, started, finished = map(float, shown.stdout.split())
    # An error would be of half an hour, or hours.
    assert 600 > enqueued >= started >= finished > 0
