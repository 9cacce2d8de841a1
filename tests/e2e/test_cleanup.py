"""Old results are pruned by a CronJob while workers work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.e2e.harness import eventually
from tests.e2e.postgres import chores
from tests.waiting import PATIENTLY

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Kubectl
    from tests.e2e.harness import TaskWorker
    from tests.e2e.postgres import Database

type MakeWorker = Callable[..., TaskWorker]

# On New Year's Day, so never by itself here.
SELDOM = "0 0 1 1 *"
TABLE = "django_tasks_database_dbtaskresult"


def test_old_results_go_while_workers_work(
    make_worker: MakeWorker, database: Database, here: Kubectl
) -> None:
    worker = make_worker(
        scaling={"minReplicas": 1, "maxReplicas": 1},
        cleanup={"schedule": SELDOM, "olderThanDays": 7},
        processes=2,
    )
    old = database.finish(database.enqueue(chores.add, 1, 2, times=3))
    young = database.finish(database.enqueue(chores.add, 1, 2, times=2))
    for results, days in ((old, 8), (young, 6)):
        ids = ", ".join(f"'{result.id}'" for result in results)
        database.execute(
            f"UPDATE {TABLE} SET finished_at = finished_at - interval '{days} days' WHERE id IN ({ids})"
        )
    database.close_gate(1)
    (running,) = database.enqueue(chores.wait_at, 1)
    eventually(lambda: database.statuses([running]) == ["RUNNING"], "a task runs")
    # The clean-up comes to a halt in the middle of its batch.
    with database.server.connect(database.name) as lock:
        lock.autocommit = False
        lock.execute(f"SELECT id FROM {TABLE} WHERE id = '{max(old, key=lambda r: r.id).id}' FOR UPDATE")
        here("create", "job", "now", "--from=cronjob/worker-cleanup")
        eventually(lambda: waits_for_a_lock(database), "the clean-up waits for the row")
        database.finish(database.enqueue(chores.add, 3, 4))
        # Its pod is nobody's worker.
        assert len(worker.pods) == 1
        assert worker.status["replicas"] == 1
        budget = "--output=jsonpath={.status.expectedPods}"
        assert here("get", "pdb/worker", budget) == "1"
        lock.rollback()
    here("wait", "--for=condition=Complete", "job/now", PATIENTLY)

    assert here("logs", "job/now").strip() == "Deleted 3 results of tasks that finished more than 7 days ago."
    assert database.statuses([*young, running]) == ["RUNNING", "SUCCESSFUL", "SUCCESSFUL"]
    database.open_gate(1)
    database.finish([running])
    # Objects that are no longer wanted are deleted.
    worker.patch(cleanup={"schedule": ""})
    path = f"/apis/batch/v1/namespaces/{worker.namespace}/cronjobs/worker-cleanup"
    eventually(lambda: worker.api.get(path) is None, "the CronJob is gone")


def waits_for_a_lock(database: Database) -> bool:
    with database.server.connect("postgres") as connection:
        found = connection.execute(
            "SELECT 1 FROM pg_stat_activity "
            "WHERE datname = %s AND wait_event_type = 'Lock' AND query LIKE 'DELETE%%'",
            [database.name],
        )
        return found.fetchone() is not None
