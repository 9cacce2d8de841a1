"""Turns of one worker, one by one, against a fake API server and a fake database."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.bench import URL, Bench, encoded
from tests.unit.fakes import refusal

from django_task_operator.cluster.kube import DEPLOYMENTS
from django_task_operator.errors import WorkerGone
from django_task_operator.keepers.refusals import REFUSED_SECONDS
from django_task_operator.reconcile.reconciler import LONGEST_WAIT_SECONDS, TROUBLE_SECONDS
from django_task_operator.spec import KIND
from django_task_operator.tasktable import UnservedQueue
from django_task_operator.tasktable.errors import ConnectionRefused

if TYPE_CHECKING:
    from django_task_operator.cluster.kube import Kind


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_from_zero_to_the_target_in_one_write(bench: Bench) -> None:
    bench.worker()
    reconciler = bench.reconciler()

    await bench.turn(reconciler)
    assert bench.replicas() is None, "the first sample is on its way"
    assert bench.condition("Reconciling") == "True Starting"

    bench.databases.sample(42)
    await bench.turn(reconciler)
    assert bench.replicas() == 5
    assert bench.kube.requests.count("apply deployment") == 1
    assert bench.told() == ["ScaledUp: 42 ready and 0 running, 10 per replica: 0 -> 5"]
    assert bench.condition("ScalingActive") == "True ScaledUp"
    assert bench.condition("Ready") == "False Scaling"

    bench.kube.run_deployment("shop", "emails")
    await bench.turn(reconciler)
    assert bench.condition("Ready") == "True ReplicasReady"
    assert bench.condition("Reconciling") == "False Settled"


async def test_and_back_to_zero_after_the_delay(bench: Bench) -> None:
    reconciler = await bench.running(42)

    bench.databases.sample(0)
    wait = await bench.turn(reconciler)
    assert bench.replicas() == 5
    assert wait == pytest.approx(60, abs=0.01)
    bench.clock.advance(59)
    await bench.turn(reconciler)
    assert bench.replicas() == 5
    bench.clock.advance(1.1)
    await bench.turn(reconciler)
    assert bench.replicas() == 0
    assert bench.told() == ["ScaledDown: no tasks: 5 -> 0"]


async def test_a_settled_turn_makes_no_request(bench: Bench) -> None:
    reconciler = await bench.running(42)

    for _ in range(50):
        bench.databases.sample(42)
        assert await bench.turn(reconciler) == LONGEST_WAIT_SECONDS
        bench.clock.advance(1)

    assert bench.kube.requests == []


async def test_fast_counts_are_written_every_ten_seconds(bench: Bench) -> None:
    reconciler = await bench.running(42)
    bench.clock.advance(10)
    for second in range(40):
        bench.databases.sample(42 + second % 2)
        await bench.turn(reconciler)
        bench.clock.advance(1)

    # Every other second the counts are those of the status before.
    assert 3 <= bench.kube.requests.count("apply status") <= 4
    assert set(bench.kube.requests) == {"apply status"}


async def test_what_the_status_still_owes_is_due_in_time(bench: Bench) -> None:
    reconciler = await bench.running(42)
    bench.clock.advance(4)
    bench.databases.sample(43)

    assert await bench.turn(reconciler) == 6
    assert bench.kube.requests == []
    bench.clock.advance(6)
    await bench.turn(reconciler)
    assert bench.kube.statuses[-1]["pendingTasks"] == 43


@pytest.mark.parametrize("error", [refusal(503), refusal(429), aiohttp.ClientError("away"), TimeoutError()])
async def test_an_api_that_is_away_is_tried_again_with_a_growing_delay(
    bench: Bench, error: BaseException
) -> None:
    reconciler = await bench.running(42)
    bench.databases.sample(80)
    bench.kube.refuse["apply deployment"] = [error] * 7

    waits = []
    for _ in range(7):
        waits.append(await bench.turn(reconciler))
        bench.clock.advance(waits[-1])
    assert waits == [1, 2, 4, 8, 16, 30, 30]
    assert bench.condition("Reconciling") == "True ApiUnavailable"
    assert bench.told() == [], "not scaled yet"
    await bench.turn(reconciler)
    assert bench.replicas() == 8
    assert bench.told() == ["ScaledUp: 80 ready and 0 running, 10 per replica: 5 -> 8"]

    bench.databases.sample(90)
    bench.kube.refuse["apply deployment"] = [error]
    assert await bench.turn(reconciler) == 1, "the delay starts anew"


async def test_an_event_that_cannot_be_written_stops_nothing(bench: Bench) -> None:
    reconciler = await bench.running(42)
    bench.databases.sample(80)
    bench.kube.refuse["create event"] = [refusal(403)]

    await bench.turn(reconciler)

    assert bench.replicas() == 8
    assert bench.condition("ScalingActive") == "True ScaledUp"


async def test_a_status_that_cannot_be_written_is_written_later(bench: Bench) -> None:
    reconciler = await bench.running(42)
    bench.databases.fail(ConnectionRefused())
    bench.kube.refuse["apply status"] = [refusal(500)]

    assert await bench.turn(reconciler) == 2
    assert bench.told() == [], "no event that the status does not confirm"
    bench.clock.advance(2)
    await bench.turn(reconciler)
    assert bench.condition("DatabaseReachable") == "False ConnectionRefused"
    assert [told.split(":")[0] for told in bench.told()] == ["ConnectionRefused"]


def deployment(**metadata: Any) -> dict[str, Any]:
    return {
        "kind": "Deployment",
        "metadata": {"name": "emails", "namespace": "shop", **metadata},
        "spec": {"replicas": 7, "template": {"spec": {"containers": [{"name": "web", "image": "web:1"}]}}},
        "status": {},
    }


LABELS = {
    "app.kubernetes.io/name": "emails",
    "app.kubernetes.io/component": "task-worker",
    "app.kubernetes.io/managed-by": "django-task-operator",
    "djangotasks.dev/worker": "emails",
}


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"labels": {"app": "emails"}},
        {"ownerReferences": [{"kind": "App", "uid": "a-1", "controller": True}]},
        {"labels": LABELS, "ownerReferences": [{"kind": "App", "uid": "a-1", "controller": True}]},
    ],
)
async def test_a_deployment_of_somebody_else_is_left_alone(bench: Bench, metadata: dict[str, Any]) -> None:
    theirs = bench.kube.create("deployments", deployment(**metadata))
    bench.worker()
    reconciler = bench.reconciler()
    await bench.turn(reconciler)
    bench.databases.sample(42)

    assert await bench.turn(reconciler) <= TROUBLE_SECONDS
    assert bench.kube.read("deployments", "shop", "emails") == theirs
    assert bench.condition("Stalled") == "True DeploymentNameTaken"

    bench.kube.delete("deployments", "shop", "emails")
    await bench.turn(reconciler)
    ours = bench.kube.read("deployments", "shop", "emails")
    assert ours
    assert ours["metadata"]["ownerReferences"][0]["uid"] == "uid-of-emails"
    assert bench.condition("Stalled") == "False NotStalled"


async def test_a_deployment_made_at_the_same_moment_is_left_alone(bench: Bench) -> None:
    bench.worker()
    reconciler = bench.reconciler()
    await bench.turn(reconciler)
    bench.databases.sample(42)
    really = bench.kube.get_object

    async def get_object(kind: Any, key: Any) -> Any:
        found = await really(kind, key)
        bench.kube.create("deployments", deployment())
        return found

    bench.kube.get_object = get_object  # type: ignore[method-assign]
    await bench.turn(reconciler)

    assert bench.replicas() == 7
    assert bench.condition("Stalled") == "True DeploymentNameTaken"


async def test_what_a_deleted_worker_left_is_waited_for(bench: Bench) -> None:
    owner = {"kind": "DjangoTaskWorker", "uid": "uid-of-its-forerunner", "controller": True}
    bench.kube.create("deployments", deployment(labels=LABELS, ownerReferences=[owner]))
    bench.worker()
    reconciler = bench.reconciler()
    await bench.turn(reconciler)
    bench.databases.sample(42)

    assert await bench.turn(reconciler) == 1, "it will pass by itself"
    assert bench.replicas() == 7
    assert bench.condition("Reconciling") == "True DeploymentLeftOver"
    bench.kube.delete("deployments", "shop", "emails")
    await bench.turn(reconciler)
    new = bench.kube.read("deployments", "shop", "emails")
    assert new
    assert new["metadata"]["ownerReferences"][0]["uid"] == "uid-of-emails"


async def test_an_orphan_is_taken_over_as_it_runs(bench: Bench) -> None:
    orphan = bench.kube.create("deployments", deployment(labels=LABELS))
    bench.worker()
    reconciler = bench.reconciler()
    await bench.turn(reconciler)
    bench.databases.sample(0, running=1)
    await bench.turn(reconciler)

    adopted = bench.kube.read("deployments", "shop", "emails")
    assert adopted
    assert adopted["metadata"]["uid"] == orphan["metadata"]["uid"]
    assert adopted["metadata"]["ownerReferences"][0]["uid"] == "uid-of-emails"
    assert adopted["spec"]["replicas"] == 7


@pytest.mark.parametrize(
    "mistake",
    [
        {"volumeMounts": [{"name": "media", "mountPath": "/media"}]},
        {"unknownField": 1},
    ],
)
async def test_a_template_that_is_refused_still_scales(bench: Bench, mistake: dict[str, Any]) -> None:
    reconciler = await bench.running(42)
    overlay = {"podTemplate": {"spec": {"containers": [{"name": "worker", **mistake}]}}, "image": "shop:2"}
    bench.kube.edit("worker", "shop", "emails", {"spec": overlay})
    bench.databases.sample(80)
    await bench.turn(reconciler)

    kept = bench.kube.read("deployments", "shop", "emails")
    assert kept
    assert kept["spec"]["replicas"] == 8
    assert kept["spec"]["template"]["spec"]["containers"][0]["image"] == "shop:1"
    assert bench.condition("Stalled") == "True DeploymentRejected"
    assert [told.split(":")[0] for told in bench.told()] == ["ScaledUp", "DeploymentRejected"]

    bench.kube.edit("worker", "shop", "emails", {"spec": {"podTemplate": None}})
    await bench.turn(reconciler)
    mended = bench.kube.read("deployments", "shop", "emails")
    assert mended
    assert mended["spec"]["template"]["spec"]["containers"][0]["image"] == "shop:2"
    assert bench.condition("Stalled") == "False NotStalled"


async def test_what_the_operator_scaled_itself_is_not_called_changed_by_somebody_else(bench: Bench) -> None:
    reconciler = await bench.running(42, scaling={"scaleDownDelaySeconds": 0})
    wrong = {"podTemplate": {"spec": {"containers": [{"name": "worker", "unknownField": 1}]}}}
    bench.kube.edit("worker", "shop", "emails", {"spec": wrong})
    bench.databases.sample(80)
    await bench.turn(reconciler)
    assert bench.replicas() == 8

    bench.kube.edit("worker", "shop", "emails", {"spec": {"podTemplate": None}})
    bench.databases.sample(42)
    await bench.turn(reconciler)
    assert bench.replicas() == 5
    assert not [told for told in bench.told() if told.startswith("DeploymentRestored")]


async def test_a_template_that_is_refused_is_not_asked_for_again_at_once(bench: Bench) -> None:
    reconciler = await bench.running(42)
    wrong = {"podTemplate": {"spec": {"containers": [{"name": "worker", "unknownField": 1}]}}}
    bench.kube.edit("worker", "shop", "emails", {"spec": wrong})
    await bench.turn(reconciler)
    bench.kube.requests.clear()

    bench.databases.sample(80)
    await bench.turn(reconciler)
    assert bench.replicas() == 8
    assert "apply deployment" not in bench.kube.requests

    bench.clock.advance(REFUSED_SECONDS)
    await bench.turn(reconciler)
    assert "apply deployment" in bench.kube.requests


async def test_a_first_template_that_is_refused(bench: Bench) -> None:
    bench.worker(podTemplate={"spec": {"containers": [{"name": "sidecar"}]}})
    reconciler = bench.reconciler()
    await bench.turn(reconciler)
    bench.databases.sample(42)

    assert await bench.turn(reconciler) <= TROUBLE_SECONDS
    assert bench.replicas() is None
    assert bench.condition("Stalled") == "True DeploymentRejected"
    assert not any(told.startswith("ScaledUp") for told in bench.told())


@pytest.mark.parametrize(
    "template",
    [
        {"metadata": {"annotations": {"mesh.example.org/status": "injected"}}},
        # A registry's mirror, by Kyverno or Harbor.
        {"spec": {"containers": [{"name": "worker", "image": "mirror.example.org/shop:1"}]}},
    ],
    ids=["adds", "changes"],
)
async def test_what_a_webhook_does_to_the_deployment_stays_and_is_not_fought_over(
    bench: Bench, template: dict[str, Any]
) -> None:
    """It changes Deployments, not only pods: every answer differs from what was asked for."""
    apply = bench.kube.apply_object

    async def mutated(kind: Kind, manifest: dict[str, Any], *, uid: str | None) -> dict[str, Any]:
        answer = await apply(kind, manifest, uid=uid)
        if kind != DEPLOYMENTS:
            return answer
        place = (kind.plural, "shop", "emails")
        return bench.kube.edit(*place, {"spec": {"template": template}})

    bench.kube.apply_object = mutated  # type: ignore[method-assign]
    reconciler = await bench.running(42)
    for _ in range(5):
        await bench.turn(reconciler)
    assert bench.kube.requests == []
    bench.kube.edit("worker", "shop", "emails", {"spec": {"image": "shop:2"}})
    for _ in range(5):
        await bench.turn(reconciler)
    assert bench.kube.requests.count("apply deployment") == 1
    assert bench.told() == []


async def test_deleted_by_hand_is_put_back(bench: Bench) -> None:
    reconciler = await bench.running(42)
    bench.kube.delete("deployments", "shop", "emails")

    await bench.turn(reconciler)

    assert bench.replicas() == 5
    assert bench.told() == [
        (
            "DeploymentRestored: The Deployment was deleted by someone else and has been restored. Delete"
            " DjangoTaskWorker emails instead, to end its pods for good."
        )
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"spec": {"replicas": 1}},
        {"spec": {"template": {"spec": {"containers": [{"name": "worker", "image": "other:1"}]}}}},
    ],
)
async def test_changed_by_hand_is_put_back(bench: Bench, change: dict[str, Any]) -> None:
    reconciler = await bench.running(42)
    before = bench.kube.read("deployments", "shop", "emails")
    bench.kube.edit("deployments", "shop", "emails", change)

    await bench.turn(reconciler)

    after = bench.kube.read("deployments", "shop", "emails")
    assert before
    assert after
    assert after["spec"] == before["spec"]
    assert bench.told() == [
        (
            "DeploymentRestored: The Deployment was changed by someone else and has been restored."
            " Change the spec of DjangoTaskWorker emails instead."
        )
    ]


RESTARTED = "kubectl.kubernetes.io/restartedAt"
NOON = "2026-01-01T12:00:00Z"


def restarted_at(time: str) -> dict[str, Any]:
    return {"spec": {"template": {"metadata": {"annotations": {RESTARTED: time}}}}}


async def test_rollout_restart_is_no_change_that_is_put_back(bench: Bench) -> None:
    reconciler = await bench.running(42)
    for time in (NOON, "2026-01-01T12:05:00Z"):
        bench.kube.edit(
            "deployments",
            "shop",
            "emails",
            restarted_at(time),
            by={"manager": "kubectl-rollout", "time": time},
        )
        await bench.turn(reconciler)

        restarted = bench.kube.read("deployments", "shop", "emails")
        assert restarted
        assert restarted["spec"]["template"]["metadata"]["annotations"][RESTARTED] == time
        assert bench.told() == []
    bench.kube.requests.clear()
    await bench.turn(reconciler)
    assert "apply deployment" not in bench.kube.requests


async def test_what_a_rollback_brings_back_does_not_stay(bench: Bench) -> None:
    """An apply would leave it, because the field belongs to that client alone."""
    reconciler = await bench.running(42)
    bench.kube.edit("deployments", "shop", "emails", restarted_at(NOON), by={"manager": "kubectl-rollout"})
    await bench.turn(reconciler)
    before = bench.kube.read("deployments", "shop", "emails")
    bench.kube.edit(
        "deployments",
        "shop",
        "emails",
        {"spec": {"template": {"spec": {"hostname": "old"}}}},
        by={"manager": "kubectl", "time": NOON},
    )
    bench.clock.advance(1)
    await bench.turn(reconciler)

    after = bench.kube.read("deployments", "shop", "emails")
    assert before
    assert after
    assert after["spec"] == before["spec"], "with the time of the restart"
    (told,) = bench.told()
    assert told.startswith(f"DeploymentRestored: The Deployment was rolled back by kubectl at {NOON}")
    await bench.turn(reconciler)
    bench.kube.requests.clear()
    await bench.turn(reconciler)
    assert bench.kube.requests == []
    assert len(bench.told()) == 1


WORKER_IMAGE = {"spec": {"template": {"spec": {"containers": [{"name": "worker", "image": "shop:0"}]}}}}


@pytest.mark.parametrize(
    ("by", "change", "told"),
    [
        (
            {"manager": "kubectl-edit"},
            {"spec": {"replicas": 1}},
            (
                "changed by kubectl-edit at 2026-01-01T12:00:00Z and has been restored."
                " Change the spec of DjangoTaskWorker emails instead."
            ),
        ),
        (
            {"manager": "argocd-controller", "operation": "Apply"},
            WORKER_IMAGE,
            (
                "changed by argocd-controller at 2026-01-01T12:00:00Z and has been restored."
                " Change the spec of DjangoTaskWorker emails instead."
            ),
        ),
        (
            {"manager": "kubectl", "subresource": "scale"},
            {"spec": {"replicas": 9}},
            (
                "scaled by kubectl at 2026-01-01T12:00:00Z and has been restored."
                " Change spec.scaling.minReplicas and maxReplicas of DjangoTaskWorker emails instead,"
                " or set spec.scaling.driver to External and scale that: kubectl scale djtw emails."
            ),
        ),
        (
            {"manager": "kubectl"},
            WORKER_IMAGE,
            (
                "rolled back by kubectl at 2026-01-01T12:00:00Z and has been restored."
                " After kubectl rollout undo the DjangoTaskWorker still asks for the new version:"
                " change its spec instead, to the image and settings of the previous version"
                " (kubectl edit djtw emails)."
            ),
        ),
        # A server-side apply of a manifest by hand.
        (
            {"manager": "kubectl", "operation": "Apply"},
            WORKER_IMAGE,
            (
                "changed by kubectl at 2026-01-01T12:00:00Z and has been restored."
                " Change the spec of DjangoTaskWorker emails instead."
            ),
        ),
    ],
)
async def test_who_changed_it_is_told_with_what_to_do_instead(
    bench: Bench, by: dict[str, Any], change: dict[str, Any], told: str
) -> None:
    """The message names the last client that changed the spec, not one before, or one of the status."""
    reconciler = await bench.running(42)
    before = bench.kube.read("deployments", "shop", "emails")
    assert before
    for earlier, field in (
        ("kubectl-rollout", restarted_at(NOON)),
        ("kube-controller-manager", {"status": {}}),
    ):
        bench.kube.edit(
            "deployments",
            "shop",
            "emails",
            field,
            by={
                "manager": earlier,
                "time": "2026-01-01T11:00:00Z" if "spec" in field else "2026-01-01T13:00:00Z",
            },
        )
    bench.kube.edit("deployments", "shop", "emails", change, by={**by, "time": NOON})
    await bench.turn(reconciler)

    after = bench.kube.read("deployments", "shop", "emails")
    assert after
    assert after["spec"]["replicas"] == before["spec"]["replicas"]
    image = after["spec"]["template"]["spec"]["containers"][0]["image"]
    assert image == before["spec"]["template"]["spec"]["containers"][0]["image"]
    assert bench.told() == [f"DeploymentRestored: The Deployment was {told}"]


async def test_who_changed_it_is_told_although_it_has_lost_its_labels_too(bench: Bench) -> None:
    """It is in no cache any more."""
    reconciler = await bench.running(42)
    bench.kube.edit("deployments", "shop", "emails", WORKER_IMAGE, by={"manager": "kubectl-set"})
    bench.kube.edit("deployments", "shop", "emails", {"metadata": {"labels": dict.fromkeys(LABELS)}})
    await bench.turn(reconciler)

    (told,) = bench.told()
    assert "changed by kubectl-set and has been restored" in told


@pytest.mark.parametrize("label", sorted(LABELS))
async def test_a_label_taken_away_is_put_back(bench: Bench, label: str) -> None:
    reconciler = await bench.running(42)
    bench.kube.edit("deployments", "shop", "emails", {"metadata": {"labels": {label: None}}})

    await bench.turn(reconciler)

    after = bench.kube.read("deployments", "shop", "emails")
    assert after
    assert after["metadata"]["labels"] == LABELS
    assert after["spec"]["replicas"] == 5


@pytest.mark.parametrize("how", ["gone", "another", "going"])
async def test_nothing_is_created_for_a_worker_that_is_gone(bench: Bench, how: str) -> None:
    manifest = bench.worker()
    reconciler = bench.reconciler()
    await reconciler.turn(manifest)
    bench.databases.sample(42)
    if how == "going":
        bench.kube.edit(
            "worker", "shop", "emails", {"metadata": {"deletionTimestamp": "2026-11-22T12:00:00Z"}}
        )
    else:
        bench.kube.delete("worker", "shop", "emails")
    if how == "another":
        bench.kube.create("worker", {**manifest, "metadata": {**manifest["metadata"], "uid": "another"}})

    with pytest.raises(WorkerGone):
        await reconciler.turn(manifest)
    assert bench.replicas() is None


async def test_a_status_of_a_worker_that_is_gone(bench: Bench) -> None:
    reconciler = await bench.running(42)
    manifest = bench.kube.read("worker", "shop", "emails")
    assert manifest
    bench.kube.delete("worker", "shop", "emails")
    bench.databases.fail(ConnectionRefused())

    with pytest.raises(WorkerGone):
        await reconciler.turn(manifest)


async def test_a_status_is_never_written_to_another_worker_of_the_name(bench: Bench) -> None:
    reconciler = await bench.running(42)
    manifest = bench.kube.read("worker", "shop", "emails")
    assert manifest
    bench.kube.delete("worker", "shop", "emails")
    bench.kube.create("worker", {**manifest, "metadata": {**manifest["metadata"], "uid": "another"}})
    bench.databases.fail(ConnectionRefused())

    with pytest.raises(WorkerGone):
        await reconciler.turn(manifest)


async def test_a_deployment_of_a_deleted_worker_lends_no_replicas(bench: Bench) -> None:
    await bench.running(70)
    former = {"kind": KIND, "name": "emails", "uid": "old", "controller": True}
    bench.kube.edit("deployments", "shop", "emails", {"metadata": {"ownerReferences": [former]}})
    bench.restart(bench.clock)

    assert bench.reconciler()._replicas == 0


async def test_replicas_are_held_while_the_database_is_away(bench: Bench) -> None:
    reconciler = await bench.running(42)
    bench.databases.fail(ConnectionRefused())
    for _ in range(100):
        await bench.turn(reconciler)
        bench.clock.advance(5)

    assert bench.replicas() == 5
    assert bench.condition("DatabaseReachable") == "False ConnectionRefused"
    assert [told.split(":")[0] for told in bench.told()] == ["ConnectionRefused"]

    bench.databases.sample(60)
    await bench.turn(reconciler)
    assert bench.replicas() == 6
    assert [told.split(":")[0] for told in bench.told()[1:]] == ["ScaledUp", "DatabaseReachable"]


async def test_a_restart_changes_nothing_and_repeats_nothing(bench: Bench) -> None:
    await bench.running(42)
    before = bench.kube.read("deployments", "shop", "emails")
    bench.restart(bench.clock)
    reconciler = bench.reconciler()
    await bench.turn(reconciler)
    bench.databases.sample(0)
    await bench.turn(reconciler)
    bench.clock.advance(59)
    await bench.turn(reconciler)

    assert bench.kube.read("deployments", "shop", "emails") == before
    assert bench.told() == []
    bench.clock.advance(2)
    await bench.turn(reconciler)
    assert bench.replicas() == 0


async def test_a_restart_while_the_database_is_away_repeats_nothing(bench: Bench) -> None:
    reconciler = await bench.running(42)
    bench.databases.fail(ConnectionRefused())
    await bench.turn(reconciler)
    bench.kube.requests.clear()
    bench.kube.events.clear()

    bench.restart(bench.clock)
    reconciler = bench.reconciler()
    await bench.turn(reconciler)
    bench.databases.fail(ConnectionRefused())
    await bench.turn(reconciler)

    assert bench.replicas() == 5
    assert bench.told() == []
    assert "apply status" not in bench.kube.requests


async def test_paused_holds_the_replicas_and_nothing_else(bench: Bench) -> None:
    reconciler = await bench.running(42)
    bench.kube.edit("worker", "shop", "emails", {"spec": {"paused": True, "image": "shop:2"}})
    bench.databases.sample(80)
    await bench.turn(reconciler)

    held = bench.kube.read("deployments", "shop", "emails")
    assert held
    assert held["spec"]["replicas"] == 5
    assert held["spec"]["template"]["spec"]["containers"][0]["image"] == "shop:2"
    assert bench.condition("Paused") == "True Paused"

    bench.kube.edit("worker", "shop", "emails", {"spec": {"paused": False}})
    await bench.turn(reconciler)
    assert bench.replicas() == 8
    assert [told.split(":")[0] for told in bench.told()] == ["Paused", "ScaledUp", "Resumed"]


async def test_the_database_is_asked_for_what_the_spec_says(bench: Bench) -> None:
    reconciler = await bench.running(42)
    scaling = {"maxReplicas": 4, "tasksPerReplica": 3, "pollIntervalSeconds": 7}
    spec = {"queues": ["*"], "excludeQueues": ["slow"], "backend": "mails", "scaling": scaling}
    bench.kube.edit("worker", "shop", "emails", {"spec": spec})
    await bench.turn(reconciler)

    ((url, subscription),) = bench.databases.subscriptions
    assert url.text == URL
    assert subscription.poll_seconds == 7
    assert subscription.limit == 12
    selection = subscription.selection
    assert (selection.backend, selection.queues, selection.exclude_queues) == ("mails", ("*",), ("slow",))

    reconciler.close()
    assert bench.databases.subscriptions == []


async def test_a_rotated_secret_takes_effect(bench: Bench) -> None:
    reconciler = await bench.running(42)
    bench.kube.edit("secrets", "shop", "shop-db", {"data": encoded("mysql://u:p@other/shop")})
    bench.clock.advance(60)
    await bench.turn(reconciler)

    ((url, _),) = bench.databases.subscriptions
    assert url.text == "mysql://u:p@other/shop"
    assert bench.replicas() == 5


async def test_a_new_password_is_looked_for_at_once_while_the_old_one_fails(bench: Bench) -> None:
    reconciler = await bench.running(42)
    bench.databases.fail(ConnectionRefused())
    await bench.turn(reconciler)
    bench.kube.edit("secrets", "shop", "shop-db", {"data": encoded("postgres://u:new@db/shop")})
    bench.clock.advance(TROUBLE_SECONDS)
    await bench.turn(reconciler)

    ((url, _),) = bench.databases.subscriptions
    assert url.password == "new"


async def test_a_watch_that_lags_makes_nobody_apply_twice(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    reconciler = await bench.running(42)
    monkeypatch.setattr(bench.kube, "_tell", lambda *_, **__: None)
    bench.databases.sample(80)
    for _ in range(5):
        await bench.turn(reconciler)

    assert bench.kube.requests.count("apply deployment") == 1


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "SecretValueInvalid"),
        ("shop", "InvalidURL"),
        ("postgres://u:p@db:port/shop", "InvalidURL"),
        ("sqlite:////data/db.sqlite3", "UnsupportedDatabase"),
    ],
)
async def test_a_url_that_cannot_be_used(bench: Bench, url: str, reason: str) -> None:
    bench.kube.edit("secrets", "shop", "shop-db", {"data": encoded(url)})
    bench.worker()
    reconciler = bench.reconciler()

    assert await bench.turn(reconciler) == TROUBLE_SECONDS
    assert bench.condition("Stalled") == f"True {reason}"
    assert bench.replicas() == 0

    bench.kube.edit("secrets", "shop", "shop-db", {"data": encoded(URL)})
    bench.clock.advance(TROUBLE_SECONDS)
    await bench.turn(reconciler)
    bench.databases.sample(42)
    await bench.turn(reconciler)
    assert bench.replicas() == 5


async def test_an_invalid_spec_leaves_running_what_runs(bench: Bench) -> None:
    reconciler = await bench.running(42)
    bench.kube.edit("worker", "shop", "emails", {"spec": {"image": ""}})
    await bench.turn(reconciler)

    assert bench.replicas() == 5
    assert bench.condition("Stalled") == "True InvalidSpec"
    assert bench.kube.statuses[-1]["replicas"] == 5


async def test_a_restricted_pod_template_is_refused_by_its_field_and_what_runs_is_left(bench: Bench) -> None:
    reconciler = await bench.running(42)
    bench.restart(bench.clock, restrict_pod_templates=True)
    reconciler = bench.reconciler()
    bench.kube.edit("worker", "shop", "emails", {"spec": {"podTemplate": {"spec": {"hostNetwork": True}}}})
    await bench.turn(reconciler)

    assert bench.replicas() == 5
    assert bench.condition("Stalled") == "True InvalidSpec"
    (stalled,) = (each for each in bench.kube.statuses[-1]["conditions"] if each["type"] == "Stalled")
    assert "spec.podTemplate.spec.hostNetwork: this operator refuses it" in stalled["message"]


async def test_a_queue_that_nobody_serves_is_named(bench: Bench) -> None:
    reconciler = await bench.running(42)
    bench.databases.warn([UnservedQueue("default", "reports")])
    await bench.turn(reconciler)

    assert bench.condition("ScalingActive") == "True QueueUnserved"
    assert "reports" in bench.told()[0]


async def test_two_workers_on_one_queue_are_told_of_each_other(bench: Bench) -> None:
    emails, mails = await bench.running(42), await bench.running(42, "mails")
    await bench.turn(emails)
    await bench.turn(mails, "mails")

    assert bench.condition("ScalingActive") == "True QueueShared"
    assert bench.condition("ScalingActive", "mails") == "True QueueShared"
    mails.close()
    await bench.turn(emails)
    assert bench.condition("ScalingActive") == "True DemandMet"


LETTERS = st.characters(categories=["L", "N"], max_codepoint=0x2FF)
passwords = st.text(st.one_of(LETTERS, st.sampled_from("!$%&*+-_.~ ")), min_size=8, max_size=30)


@settings(max_examples=40)
@given(
    password=passwords,
    quoted=st.booleans(),
    filler=st.integers(0, 1500),
    usable=st.booleans(),
    form=st.sampled_from(
        ["{url}", "connecting to {url} failed", "password {password}", '"{password}" {host}', "{user}"]
    ),
)
def test_no_secret_is_ever_told(password: str, quoted: bool, filler: int, usable: bool, form: str) -> None:
    scheme = "postgres" if usable else "postgresql+psycopg"
    in_url = quote(password, safe="")
    host, user = "db-7f3a.internal", "user-9c1e"
    url = f"{scheme}://{user}:{in_url}@{host}:5432/shop"
    words = form.format(url=url, password=in_url if quoted else password, host=host, user=user)
    bench, records = Bench(), []
    bench.kube.edit("secrets", "shop", "shop-db", {"data": encoded(url)})
    handler = logging.Handler()
    handler.emit = lambda record: records.append(f"{vars(record)} {record.getMessage()}")  # type: ignore[method-assign]
    logging.getLogger("django_task_operator").addHandler(handler)

    async def turns() -> None:
        reconciler = await bench.running(42) if usable else None
        if reconciler is None:
            bench.worker()
            reconciler = bench.reconciler()
        ended = {"exitCode": 1, "finishedAt": "2026-11-22T12:00:00Z", "message": "x" * filler + " " + words}
        container = {
            "name": "worker",
            "image": "shop:1",
            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": ended},
        }
        metadata = {"name": "emails-1", "namespace": "shop", "labels": LABELS}
        bench.kube.create("pods", {"metadata": metadata, "status": {"containerStatuses": [container]}})
        await bench.turn(reconciler)
        assert bench.condition("Stalled").startswith("True")

    try:
        asyncio.run(turns())
    finally:
        logging.getLogger("django_task_operator").removeHandler(handler)
    told = f"{bench.kube.statuses} {bench.kube.events} {records}"
    for secret in (url, password, in_url, host, user):
        assert secret not in told
