"""An operator with another worker image, turn by turn."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
from tests.unit.bench import Bench
from tests.unit.fakes import refusal

from django_task_operator.keepers.runtime import MISSING_SECONDS
from django_task_operator.keepers.stages import SOAK_SECONDS
from django_task_operator.resources import RuntimeSource
from django_task_operator.startup.options import Options

if TYPE_CHECKING:
    from django_task_operator.reconcile.reconciler import Reconciler

OLD, NEW = "worker:0.1.0", "worker:0.2.0"
NOON = "2026-01-01T12:00:00Z"
WORKERS = ("emails", "images", "reports")


@pytest.fixture
def bench() -> Bench:
    return Bench(options=Options(instance="operator-1", runtime=RuntimeSource(OLD)))


def upgrade(bench: Bench, image: str = NEW) -> None:
    """Replace the operator by another version, in whose memory there is nothing."""
    bench.databases.subscriptions.clear()
    bench.restart(bench.clock, runtime=RuntimeSource(image))


async def upgraded(bench: Bench, ready: int = 42, **spec: Any) -> Reconciler:
    """A worker with pods, and then another version of the operator that has settled."""
    await bench.running(ready, **spec)
    upgrade(bench)
    return await bench.running(ready)


def template(bench: Bench, name: str = "emails") -> dict[str, Any]:
    deployment = bench.kube.read("deployments", "shop", name)
    assert deployment
    found: dict[str, Any] = deployment["spec"]["template"]
    return found


def runtime(bench: Bench, name: str = "emails") -> str:
    (copy,) = template(bench, name)["spec"]["initContainers"]
    image: str = copy["image"]
    return image


def status(bench: Bench, name: str = "emails") -> tuple[str | None, str | None]:
    manifest = bench.kube.read("worker", "shop", name)
    assert manifest
    return manifest["status"].get("runtime"), manifest["status"].get("pendingRuntime")


def restart(bench: Bench, at: str = NOON) -> None:
    """`kubectl rollout restart`."""
    annotations = {"kubectl.kubernetes.io/restartedAt": at}
    change = {"spec": {"template": {"metadata": {"annotations": annotations}}}}
    bench.kube.edit("deployments", "shop", "emails", change, by={"manager": "kubectl-rollout", "time": at})


async def test_an_upgrade_replaces_no_pod_and_says_what_is_pending(bench: Bench) -> None:
    await bench.running(42)
    before = template(bench)
    assert status(bench) == (OLD, None)

    upgrade(bench)
    reconciler = await bench.running(42)
    for _ in range(5):
        await bench.turn(reconciler)
        bench.clock.advance(1)
    assert template(bench) == before
    assert status(bench) == (OLD, NEW)
    assert bench.told() == []
    assert bench.kube.requests == []


async def test_an_upgrade_from_a_version_without_records_replaces_no_pod(bench: Bench) -> None:
    await bench.running(42)
    bench.kube.edit(
        "deployments", "shop", "emails", {"metadata": {"annotations": {"djangotasks.dev/runtime": None}}}
    )
    before = template(bench)
    upgrade(bench)
    await bench.running(42)

    assert template(bench) == before
    assert status(bench) == (OLD, NEW)


@pytest.mark.parametrize(
    "change", [{"image": "shop:2"}, {"queues": ["emails"]}, {"terminationGracePeriodSeconds": 5}]
)
async def test_the_next_rollout_takes_the_new_runtime(bench: Bench, change: dict[str, Any]) -> None:
    reconciler = await upgraded(bench)
    bench.kube.edit("worker", "shop", "emails", {"spec": change})
    await bench.turn(reconciler)
    bench.databases.sample(42)
    await bench.turn(reconciler)

    assert runtime(bench) == NEW
    assert status(bench) == (NEW, None)
    assert bench.kube.requests.count("apply deployment") == 1


async def test_what_changes_no_pod_takes_no_runtime(bench: Bench) -> None:
    reconciler = await upgraded(bench)
    for change in ({"scaling": {"maxReplicas": 3}}, {"paused": True}, {"runtimeUpgrade": "OnNextRollout"}):
        bench.kube.edit("worker", "shop", "emails", {"spec": change})
        await bench.turn(reconciler)

    assert runtime(bench) == OLD


async def test_a_new_start_from_zero_takes_it(bench: Bench) -> None:
    reconciler = await upgraded(bench, 0)
    assert (bench.replicas(), runtime(bench)) == (0, NEW)
    bench.databases.sample(42)
    await bench.turn(reconciler)
    assert (bench.replicas(), runtime(bench)) == (5, NEW)


async def test_a_restart_takes_it_and_an_earlier_one_does_not(bench: Bench) -> None:
    await bench.running(42)
    restart(bench, "2026-01-01T11:00:00Z")
    upgrade(bench)
    reconciler = await bench.running(42)
    assert runtime(bench) == OLD

    restart(bench)
    await bench.turn(reconciler)
    assert runtime(bench) == NEW
    annotations = template(bench)["metadata"]["annotations"]
    assert annotations["kubectl.kubernetes.io/restartedAt"] == NOON
    assert bench.told() == []
    await bench.turn(reconciler)
    bench.kube.requests.clear()
    await bench.turn(reconciler)
    assert bench.kube.requests == []


async def test_a_restart_while_no_operator_runs_takes_it(bench: Bench) -> None:
    await upgraded(bench)
    restart(bench)
    upgrade(bench)
    await bench.running(42)

    assert runtime(bench) == NEW


async def test_what_others_change_is_put_back_with_the_runtime_that_it_had(bench: Bench) -> None:
    reconciler = await upgraded(bench)
    before = template(bench)
    other = {"spec": {"initContainers": [{"name": "django-db-worker", "image": "other:1"}]}}
    bench.kube.edit("deployments", "shop", "emails", {"spec": {"template": other}})
    await bench.turn(reconciler)

    assert template(bench) == before
    (told,) = bench.told()
    assert told.startswith("DeploymentRestored: The Deployment was changed by someone else")


async def test_a_rollback_is_put_back_to_the_very_pods_that_ran_before(bench: Bench) -> None:
    """`kubectl rollout undo` also brings back the annotations of the version before."""
    reconciler = await upgraded(bench)
    before = template(bench)
    record = '{"image": "worker:0.0.9", "hash": "0", "template": "1"}'
    undo = {
        "metadata": {"annotations": {"djangotasks.dev/runtime": record}},
        "spec": {"template": {"spec": {"hostname": "old"}}},
    }
    bench.kube.edit("deployments", "shop", "emails", undo, by={"manager": "kubectl", "time": NOON})
    await bench.turn(reconciler)

    assert template(bench) == before


async def test_a_deployment_that_was_deleted_comes_back_with_the_new_runtime(bench: Bench) -> None:
    reconciler = await upgraded(bench)
    bench.kube.delete("deployments", "shop", "emails")
    await bench.turn(reconciler)

    assert runtime(bench) == NEW
    assert bench.told() == [
        (
            "DeploymentRestored: The Deployment was deleted by someone else and has been restored. Delete"
            " DjangoTaskWorker emails instead, to end its pods for good."
        )
    ]


async def test_an_operator_that_is_downgraded_again_replaces_no_pod(bench: Bench) -> None:
    await upgraded(bench)
    before = template(bench)
    upgrade(bench, OLD)
    await bench.running(42)

    assert template(bench) == before
    assert status(bench) == (OLD, None)


async def test_a_refused_template_is_asked_for_again_with_the_new_runtime(bench: Bench) -> None:
    reconciler = await upgraded(bench)
    bench.kube.edit("worker", "shop", "emails", {"spec": {"image": "shop:2"}})
    bench.kube.refuse["apply deployment"] = [refusal(503)]
    await bench.turn(reconciler)
    assert runtime(bench) == OLD
    await bench.turn(reconciler)
    assert runtime(bench) == NEW


async def test_a_runtime_that_cannot_be_pulled_any_more_is_replaced(bench: Bench) -> None:
    reconciler = await upgraded(bench)
    state = {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}
    (pod,) = bench.kube.run_pods(
        "shop",
        "emails",
        1,
        phase="Pending",
        initContainerStatuses=[{"name": "django-db-worker", "image": OLD, "state": state}],
    )
    await bench.turn(reconciler)
    assert runtime(bench) == OLD, "a registry that is away for a moment is no reason"
    # It comes back, and goes away for long.
    running = {"state": {"terminated": {"exitCode": 0}}}
    copy = {"name": "django-db-worker", "image": OLD}
    bench.kube.edit("pods", "shop", pod, {"status": {"initContainerStatuses": [{**copy, **running}]}})
    bench.clock.advance(MISSING_SECONDS)
    await bench.turn(reconciler)
    waiting = {**copy, "state": state}
    bench.kube.edit("pods", "shop", pod, {"status": {"initContainerStatuses": [waiting]}})
    bench.databases.sample(42)
    wait = await bench.turn(reconciler)
    assert runtime(bench) == OLD
    assert wait <= 60
    bench.clock.advance(MISSING_SECONDS)
    await bench.turn(reconciler)

    assert runtime(bench) == NEW
    (told,) = (each for each in bench.told() if each.startswith("RuntimeUpgraded"))
    assert told == (
        "RuntimeUpgraded: The pods are replaced, because the image of their runtime cannot be pulled any"
        " more: their runtime was worker:0.1.0, and will be worker:0.2.0."
    )


@pytest.mark.parametrize("other", ["Stock", "Image"])
async def test_a_worker_that_brings_its_own_runtime_has_none_to_wait_for(bench: Bench, other: str) -> None:
    reconciler = await upgraded(bench)
    bench.kube.edit("worker", "shop", "emails", {"spec": {"runtime": other}})
    await bench.turn(reconciler)
    bench.databases.sample(42)
    await bench.turn(reconciler)

    assert status(bench) == (None, None)
    deployment = bench.kube.read("deployments", "shop", "emails")
    assert deployment
    assert "djangotasks.dev/runtime" not in deployment["metadata"].get("annotations", {})


async def fleet(bench: Bench) -> dict[str, Reconciler]:
    """Three workers that are to be upgraded in stages, and a new operator that has just seen them."""
    for name in WORKERS:
        await bench.running(42, name, runtimeUpgrade="Staged", queues=[name])
    upgrade(bench)
    found = {name: await bench.running(42, name) for name in WORKERS}
    bench.kube.requests.clear()
    return found


async def turns(bench: Bench, workers: dict[str, Reconciler]) -> list[str]:
    """Take a turn of each after a while; return the runtimes."""
    bench.clock.advance(SOAK_SECONDS)
    for name, reconciler in workers.items():
        bench.databases.sample(42)
        await bench.turn(reconciler, name)
    return [runtime(bench, name) for name in WORKERS]


async def test_stages_are_one_worker_at_a_time_each_when_the_one_before_works(bench: Bench) -> None:
    workers = await fleet(bench)
    assert [runtime(bench, name) for name in WORKERS] == [OLD] * 3
    assert await turns(bench, workers) == [NEW, OLD, OLD]
    assert bench.told() == [
        (
            "RuntimeUpgraded: The pods are replaced, because spec.runtimeUpgrade is Staged, and it is this"
            " worker's turn: their runtime was worker:0.1.0, and will be worker:0.2.0."
        )
    ]
    # Its pods are not ready yet.
    assert await turns(bench, workers) == [NEW, OLD, OLD]
    bench.kube.run_deployment("shop", "emails", ready=4)
    assert await turns(bench, workers) == [NEW, OLD, OLD]

    bench.kube.run_deployment("shop", "emails")
    assert await turns(bench, workers) == [NEW, NEW, OLD]
    bench.kube.run_deployment("shop", "images")
    assert await turns(bench, workers) == [NEW, NEW, NEW]
    bench.kube.run_deployment("shop", "reports")
    await turns(bench, workers)
    bench.kube.requests.clear()
    await turns(bench, workers)
    assert "apply deployment" not in bench.kube.requests


async def test_what_a_worker_waits_for_is_logged(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    workers = await fleet(bench)
    caplog.set_level(logging.DEBUG)
    await turns(bench, workers)
    await turns(bench, workers)

    whys = [record.why for record in caplog.records if hasattr(record, "why")]
    assert whys[-1] == "no new runtime yet: the pods of DjangoTaskWorker shop/emails are being replaced"
    chosen = [record for record in caplog.records if record.message == "runtime chosen"]
    assert [(record.worker, record.reason) for record in chosen] == [  # type: ignore[attr-defined]
        ("shop/emails", "it is this worker's turn"),
        ("shop/emails", "it is the operator's"),
    ]


async def test_pods_have_to_stay_ready_for_a_while(bench: Bench) -> None:
    workers = await fleet(bench)
    assert await turns(bench, workers) == [NEW, OLD, OLD]
    # The one in its stage is seen to be ready a moment after it was seen not to be.
    await turns(bench, workers)
    bench.kube.run_deployment("shop", "emails")
    wait = await bench.turn(workers["images"], "images")
    assert runtime(bench, "images") == OLD
    assert wait <= 5
    bench.clock.advance(SOAK_SECONDS)
    await bench.turn(workers["images"], "images")
    assert runtime(bench, "images") == NEW


async def test_another_operator_continues_where_one_has_stopped(bench: Bench) -> None:
    workers = await fleet(bench)
    assert await turns(bench, workers) == [NEW, OLD, OLD]
    upgrade(bench)
    again = {name: bench.reconciler(name) for name in WORKERS}
    for _ in range(3):
        assert await turns(bench, again) == [NEW, OLD, OLD], "its pods are still not ready"
    bench.kube.run_deployment("shop", "emails")
    assert await turns(bench, again) == [NEW, NEW, OLD]


async def test_a_worker_that_is_not_healthy_is_passed_over(bench: Bench) -> None:
    workers = await fleet(bench)
    bench.kube.run_deployment("shop", "emails", ready=1)

    assert await turns(bench, workers) == [OLD, NEW, OLD]
    bench.kube.run_deployment("shop", "images")
    assert await turns(bench, workers) == [OLD, NEW, NEW]
    # What corrects it takes the new runtime, and is in nobody's way.
    bench.kube.edit("worker", "shop", "emails", {"spec": {"image": "shop:2"}})
    assert await turns(bench, workers) == [NEW, NEW, NEW]


async def test_a_stage_that_does_not_end_is_over_with_the_workers_next_change(bench: Bench) -> None:
    workers = await fleet(bench)
    assert await turns(bench, workers) == [NEW, OLD, OLD]
    bench.kube.edit("worker", "shop", "emails", {"spec": {"image": "shop:2"}})
    await turns(bench, workers)

    assert await turns(bench, workers) == [NEW, NEW, OLD]


async def test_a_worker_that_is_deleted_in_its_stage_is_in_nobodys_way(bench: Bench) -> None:
    workers = await fleet(bench)
    assert await turns(bench, workers) == [NEW, OLD, OLD]
    bench.kube.delete("worker", "shop", "emails")
    bench.kube.delete("deployments", "shop", "emails")
    del workers["emails"]
    bench.clock.advance(SOAK_SECONDS)
    for name, reconciler in workers.items():
        await bench.turn(reconciler, name)

    assert [runtime(bench, name) for name in workers] == [NEW, OLD]
