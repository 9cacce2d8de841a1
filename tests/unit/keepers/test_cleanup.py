"""The pods of a worker's clean-up, against a fake API server."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.bench import Bench
from tests.unit.fakes import refusal

from django_task_operator.keepers.cleanup import REST_SECONDS
from django_task_operator.resources import build_children
from django_task_operator.spec import Worker


def running() -> dict[str, Any]:
    return {"running": {"startedAt": "2026-01-01T00:00:00Z"}}


def ended(code: int) -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "finishedAt": "2026-01-01T00:00:00Z"}}


def run_of(bench: Bench, state: dict[str, Any], beside: dict[str, Any] | None) -> None:
    """A Job of the CronJob, and its pod."""
    manifest = bench.kube.read("worker", "shop", "emails")
    assert manifest
    worker = Worker.parse(manifest)
    (cron,) = (each for each in build_children(worker, bench.world.runtime) if each["kind"] == "CronJob")
    template = cron["spec"]["jobTemplate"]["spec"]["template"]
    job = bench.kube.create("jobs", {"metadata": {"name": "emails-cleanup-1", "namespace": "shop"}})
    owner = {"kind": "Job", "name": "emails-cleanup-1", "uid": job["metadata"]["uid"], "controller": True}
    statuses = [{"name": "worker", "image": "shop:1", "state": state}]
    if beside:
        statuses.append({"name": "mesh", "image": "mesh:1", "state": beside})
    bench.kube.create(
        "pods",
        {
            "metadata": {
                "name": "emails-cleanup-1-x",
                "namespace": "shop",
                "labels": template["metadata"]["labels"],
                "ownerReferences": [owner],
            },
            "status": {"phase": "Running", "containerStatuses": statuses},
        },
    )


@pytest.mark.parametrize(
    ("state", "beside", "goes"),
    [
        (ended(0), running(), True),
        (running(), running(), False),
        # Its log says why.
        (ended(1), running(), False),
        # It ends by itself, in a moment.
        (ended(0), None, False),
        (ended(0), ended(0), False),
    ],
)
async def test_one_that_has_done_it_does_not_wait_for_a_container_of_a_webhook(
    state: dict[str, Any], beside: dict[str, Any] | None, goes: bool
) -> None:
    bench = Bench()
    reconciler = await bench.running(42, cleanup={"schedule": "@daily"})
    run_of(bench, state, beside)
    await bench.turn(reconciler)
    assert (bench.kube.read("jobs", "shop", "emails-cleanup-1") is None) == goes
    assert bench.replicas() == 5
    assert bench.condition("Stalled") == "False NotStalled"


async def test_an_end_that_is_refused_is_tried_again() -> None:
    bench = Bench()
    reconciler = await bench.running(42, cleanup={"schedule": "@daily"})
    run_of(bench, ended(0), running())
    bench.kube.refuse["delete job"] = [refusal(503, "away")]
    await bench.turn(reconciler)
    assert bench.kube.read("jobs", "shop", "emails-cleanup-1")
    bench.clock.advance(REST_SECONDS)
    await bench.turn(reconciler)
    assert bench.kube.read("jobs", "shop", "emails-cleanup-1") is None
