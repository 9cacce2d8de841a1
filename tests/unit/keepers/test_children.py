"""The objects other than the Deployment, against a fake API server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.unit.bench import Bench
from tests.unit.fakes import refusal

from django_task_operator.errors import WorkerGone
from django_task_operator.keepers.refusals import REFUSED_SECONDS
from django_task_operator.keepers.restorations import DELAY_SECONDS

if TYPE_CHECKING:
    from tests.unit.fakes import Manifest

BUDGETS = "poddisruptionbudgets"


@pytest.fixture
def bench() -> Bench:
    return Bench()


def budget(bench: Bench, name: str = "emails") -> Manifest | None:
    return bench.kube.read(BUDGETS, "shop", name)


async def test_a_worker_has_a_disruption_budget_of_its_own(bench: Bench) -> None:
    await bench.running(42)

    made = budget(bench)
    assert made
    assert made["spec"]["selector"] == {"matchLabels": {"djangotasks.dev/worker": "emails"}}
    assert made["metadata"]["ownerReferences"][0]["uid"] == "uid-of-emails"


async def test_a_worker_that_wants_clean_up_has_a_cron_job(bench: Bench) -> None:
    reconciler = await bench.running(42, cleanup={"schedule": "@daily"}, paused=True)

    made = bench.kube.read("cronjobs", "shop", "emails-cleanup")
    assert made
    assert made["spec"]["schedule"] == "@daily"
    assert "suspend" not in made["spec"], "paused is about replicas"

    bench.kube.edit("worker", "shop", "emails", {"spec": {"cleanup": {"schedule": ""}}})
    await bench.turn(reconciler)
    assert bench.kube.read("cronjobs", "shop", "emails-cleanup") is None
    assert budget(bench)


async def test_one_that_was_changed_or_deleted_by_hand_is_put_back(bench: Bench) -> None:
    reconciler = await bench.running(42)
    before = budget(bench)
    assert before

    bench.kube.edit(BUDGETS, "shop", "emails", {"spec": {"maxUnavailable": 0}})
    await bench.turn(reconciler)
    after = budget(bench)
    assert after
    assert after["spec"] == before["spec"]

    bench.kube.delete(BUDGETS, "shop", "emails")
    due = await bench.turn(reconciler)
    assert budget(bench) is None, "somebody insists"
    assert due <= DELAY_SECONDS[0]
    bench.clock.advance(due)
    await bench.turn(reconciler)
    assert budget(bench)
    bench.kube.requests.clear()
    await bench.turn(reconciler)
    assert bench.kube.requests == []


async def test_none_is_created_for_a_deleted_worker(bench: Bench) -> None:
    reconciler = await bench.running(42)
    manifest = bench.kube.read("worker", "shop", "emails")
    assert manifest
    bench.kube.delete("worker", "shop", "emails")
    bench.kube.delete(BUDGETS, "shop", "emails")

    with pytest.raises(WorkerGone):
        await reconciler.turn(manifest)
    assert budget(bench) is None


async def test_somebody_elses_of_the_same_name_is_left_alone_and_said(bench: Bench) -> None:
    theirs = bench.kube.create(BUDGETS, {"metadata": {"name": "emails", "namespace": "shop"}, "spec": {}})
    bench.worker()
    reconciler = bench.reconciler()
    await bench.turn(reconciler)
    bench.databases.sample(42)
    await bench.turn(reconciler)

    assert bench.replicas() == 5
    assert bench.condition("Stalled") == "True ObjectNameTaken"
    assert budget(bench) == theirs


async def test_one_that_an_orphaning_deletion_left_behind_is_taken_over(bench: Bench) -> None:
    await bench.running(42)
    made = budget(bench)
    assert made
    bench.kube.edit(BUDGETS, "shop", "emails", {"metadata": {"ownerReferences": None}})
    bench.restart(bench.clock)
    reconciler = bench.reconciler()
    await bench.turn(reconciler)
    bench.databases.sample(42)
    await bench.turn(reconciler)

    after = budget(bench)
    assert after
    assert after["metadata"]["uid"] == made["metadata"]["uid"]
    assert after["metadata"]["ownerReferences"] == made["metadata"]["ownerReferences"]
    assert bench.condition("Stalled") == "False NotStalled"


async def test_one_of_a_deleted_worker_of_the_same_name_is_waited_for(bench: Bench) -> None:
    reconciler = await bench.running(42)
    budget_of_before = budget(bench)
    assert budget_of_before
    owner = {**budget_of_before["metadata"]["ownerReferences"][0], "uid": "uid-before"}
    bench.kube.edit(BUDGETS, "shop", "emails", {"metadata": {"ownerReferences": [owner]}})
    await bench.turn(reconciler)

    assert bench.condition("Stalled") == "False NotStalled"
    assert bench.condition("Reconciling") == "True ObjectLeftOver"
    bench.kube.delete(BUDGETS, "shop", "emails")
    await bench.turn(reconciler)
    assert budget(bench)


async def test_what_a_worker_should_no_longer_have_is_deleted(bench: Bench) -> None:
    reconciler = await bench.running(42)
    made = budget(bench)
    assert made
    old = {key: value for key, value in made["metadata"].items() if key not in {"uid", "resourceVersion"}}
    bench.kube.create(BUDGETS, {"metadata": {**old, "name": "emails-old"}, "spec": made["spec"]})

    await bench.turn(reconciler)

    assert budget(bench, "emails-old") is None
    assert budget(bench) == made


async def test_a_refused_one_is_said_and_tried_again_later(bench: Bench) -> None:
    bench.worker()
    reconciler = bench.reconciler()
    await bench.turn(reconciler)
    bench.kube.refuse["apply poddisruptionbudget"] = [refusal(403, "no right to budgets")]
    bench.databases.sample(42)
    await bench.turn(reconciler)

    assert bench.replicas() == 5
    assert bench.condition("Stalled") == "True ObjectRejected"
    await bench.turn(reconciler)
    assert bench.kube.requests.count("apply poddisruptionbudget") == 1
    bench.clock.advance(REFUSED_SECONDS)
    await bench.turn(reconciler)
    assert budget(bench)
    assert bench.condition("Stalled") == "False NotStalled"


async def test_an_api_server_that_is_away_is_tried_again(bench: Bench) -> None:
    bench.worker()
    reconciler = bench.reconciler()
    await bench.turn(reconciler)
    bench.kube.refuse["apply poddisruptionbudget"] = [refusal(503)]
    bench.databases.sample(42)

    assert await bench.turn(reconciler) == 1
    assert bench.condition("Reconciling") == "True ApiUnavailable"
    await bench.turn(reconciler)
    assert budget(bench)
