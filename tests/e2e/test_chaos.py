"""Every enqueued task ends, whatever breaks. `make bench-chaos` does the same for half an hour."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.e2e.chaos import Chaos

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.harness import TaskWorker
    from tests.e2e.postgres import Database
    from tests.e2e.release import Release

pytestmark = pytest.mark.alone

SECONDS = float(os.environ.get("CHAOS_SECONDS", "300"))
TASKS = int(os.environ.get("CHAOS_TASKS", "330"))
REPORT = os.environ.get("CHAOS_REPORT")


@pytest.mark.timeout(SECONDS + 600)
def test_every_task_ends_well_whatever_happens(
    make_worker: Callable[..., TaskWorker], database: Database, operator: Release, kind_node: str
) -> None:
    worker = make_worker(
        orphans={"policy": "Requeue", "graceSeconds": 5, "maxRequeues": 20},
        scaling={"maxReplicas": 3, "tasksPerReplica": 2, "scaleDownDelaySeconds": 5},
        terminationGracePeriodSeconds=60,
    )
    worker.becomes("Ready", "True")
    books = Chaos(worker, database, operator, kind_node).run(TASKS, SECONDS)
    report = books.report()
    if REPORT:
        Path(REPORT).write_text(report)

    assert books.tasks >= TASKS, report
    assert books.statuses == {"SUCCESSFUL": books.tasks}, report
    assert not books.runs[0], report
    # Only what was killed may have run twice: a pod runs one task at a time.
    killed = books.troubles["kill a pod"] + books.troubles["delete a pod"]
    assert books.more_than_once <= killed, report
