"""What the operator costs the cluster and the database when nothing happens."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from tests.e2e.conftest import manifest
from tests.e2e.harness import TaskWorker, eventually
from tests.e2e.postgres import chores

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Kubectl
    from tests.e2e.harness import Api
    from tests.e2e.postgres import Database
    from tests.e2e.release import Release

pytestmark = pytest.mark.alone

type MakeWorker = Callable[..., TaskWorker]

QUIET_SECONDS = 20
# One read of each worker's Secret a minute, and the renewals of the Lease, are all that a settled world
# may cost.
ALLOWED = {("GET", "secrets"), ("PUT", "leases")}


def test_a_settled_worker_costs_no_request_to_the_api_server(
    make_worker: MakeWorker, database: Database, operator: Release
) -> None:
    worker = make_worker(scaling={"minReplicas": 1})
    worker.scales_to(1)
    database.finish(database.enqueue(chores.add, 1, 2))
    worker.becomes("Ready", "True")

    def requests() -> dict[tuple[str, str], float]:
        return {what: count for what, count in operator.requests().items() if what not in ALLOWED}

    seen, since = requests(), time.monotonic()

    def is_quiet() -> bool:
        nonlocal seen, since
        now = requests()
        if now != seen:
            seen, since = now, time.monotonic()
        return time.monotonic() - since >= QUIET_SECONDS

    # Other namespaces may still be on their way out, and the last counts follow within ten seconds.
    eventually(is_quiet, f"no request in {QUIET_SECONDS} s")
    assert worker.replicas == 1


def test_fifty_workers_on_one_database_share_one_connection(
    operator: Release, here: Kubectl, api: Api, namespace: str, database: Database
) -> None:
    names = [f"worker-{number}" for number in range(50)]
    workers = [manifest(name, queues=[name]) for name in names]
    here("create", "--filename=-", manifest={"apiVersion": "v1", "kind": "List", "items": workers})

    def reachable() -> bool:
        listed = api.items(f"/apis/djangotasks.dev/v1alpha1/namespaces/{namespace}/djangotaskworkers")
        found = [c for w in listed for c in w.get("status", {}).get("conditions", ())]
        reachable = [c for c in found if (c["type"], c["status"]) == ("DatabaseReachable", "True")]
        return len(reachable) == len(names)

    eventually(reachable, "50 workers see their database")
    assert len(database.clients("django-task-operator")) == 1
    last = TaskWorker(here, api, namespace, names[-1])
    database.finish(database.enqueue(chores.add, 1, 2, queue=last.name))
    assert len(database.clients("django-task-operator")) == 1
    assert not TaskWorker(here, api, namespace, names[0]).events("ScaledUp")
