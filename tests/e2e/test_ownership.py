"""Ownership of the Deployment: it is restored, left alone, handed over, or deleted with its worker."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from tests.e2e.conftest import SPEC
from tests.e2e.harness import always, deployment_writes, eventually
from tests.e2e.postgres import chores
from tests.waiting import PATIENTLY

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Kubectl
    from tests.e2e.harness import Api, TaskWorker
    from tests.e2e.postgres import Database
    from tests.e2e.release import Release

type MakeWorker = Callable[..., TaskWorker]

UNRELATED = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "worker", "labels": {"team": "other"}},
    "spec": {
        "replicas": 0,
        "selector": {"matchLabels": {"team": "other"}},
        "template": {
            "metadata": {"labels": {"team": "other"}},
            "spec": {"containers": [{"name": "other", "image": "other:1"}]},
        },
    },
}


def test_a_deployment_edited_by_hand_is_put_back(
    make_worker: MakeWorker, database: Database, here: Kubectl
) -> None:
    worker = make_worker(scaling={"minReplicas": 1})
    worker.scales_to(1)
    here("scale", "deployment/worker", "--replicas=0")
    worker.tells("DeploymentRestored")
    here("scale", "deployment/worker", "--replicas=2")
    worker.tells("DeploymentRestored", "was scaled by kubectl and")
    here("set", "image", "deployment/worker", "worker=other:1")
    here("label", "deployment/worker", "app.kubernetes.io/managed-by-")

    def is_as_before() -> bool:
        deployment = worker.deployment
        assert deployment
        labels, template = deployment["metadata"]["labels"], deployment["spec"]["template"]
        return bool(
            template["spec"]["containers"][0]["image"] == "shop:dev"
            and labels.get("app.kubernetes.io/managed-by") == "django-task-operator"
        )

    eventually(is_as_before, "the Deployment as it was")
    worker.scales_to(1)
    restored = "The Deployment was scaled to zero by someone else and has been restored."
    worker.tells("DeploymentRestored", restored)
    worker.tells("DeploymentRestored", "changed by kubectl-set")


def test_rollout_restart_replaces_the_pods_and_is_not_put_back(
    make_worker: MakeWorker, database: Database, here: Kubectl
) -> None:
    worker = make_worker(scaling={"minReplicas": 1})
    worker.scales_to(1)
    before = worker.pod_names
    here("rollout", "restart", "deployment/worker")
    here("rollout", "status", "deployment/worker", PATIENTLY)

    worker.scales_to(1)
    assert not worker.pod_names & before
    assert worker.deployment
    annotations = worker.deployment["spec"]["template"]["metadata"]["annotations"]
    assert "kubectl.kubernetes.io/restartedAt" in annotations
    assert worker.events("DeploymentRestored") == []


def test_rollout_undo_is_told_that_the_worker_still_asks_for_the_new_version(
    make_worker: MakeWorker, database: Database, here: Kubectl
) -> None:
    env = [*SPEC["env"], {"name": "OLD", "value": "1"}]
    worker = make_worker(scaling={"minReplicas": 1}, env=env)
    worker.scales_to(1)
    worker.patch(verbosity=2, env=SPEC["env"])
    eventually(lambda: "--verbosity=2" in str(worker.deployment), "the new version")
    worker.scales_to(1)
    assert worker.deployment
    template = worker.deployment["spec"]["template"]
    here("rollout", "undo", "deployment/worker")
    (event,) = worker.tells("DeploymentRestored")

    assert event["note"].startswith("The Deployment was rolled back by kubectl at 20")
    assert "change its spec instead" in event["note"]
    eventually(
        lambda: worker.deployment and worker.deployment["spec"]["template"] == template,
        "the template as it was, without the variable that only the version before has",
    )


def test_a_deployment_deleted_by_hand_is_put_back(
    make_worker: MakeWorker, database: Database, here: Kubectl
) -> None:
    worker = make_worker(scaling={"minReplicas": 1})
    worker.scales_to(1)
    here("delete", "deployment", "worker")
    worker.scales_to(1)

    (event,) = worker.tells("DeploymentRestored")
    assert "deleted" in event["note"]
    database.finish(database.enqueue(chores.add, 1, 2))


def test_an_unrelated_deployment_is_left_alone_until_it_is_deleted(
    make_worker: MakeWorker, database: Database, here: Kubectl
) -> None:
    here("create", "--filename=-", manifest=UNRELATED)
    before = json.loads(here("get", "deployment", "worker", "--output=json"))
    results = database.enqueue(chores.add, 1, 2)
    worker = make_worker()
    message = worker.becomes("Stalled", "True", "DeploymentNameTaken")
    assert "Delete it, or give this DjangoTaskWorker another name" in message
    assert worker.warns("DeploymentNameTaken") == message
    after = json.loads(here("get", "deployment", "worker", "--output=json"))
    assert (after["spec"], after["metadata"]["labels"]) == (before["spec"], before["metadata"]["labels"])
    assert "ownerReferences" not in after["metadata"]
    here("delete", "deployment", "worker")

    database.finish(results)
    worker.becomes("Stalled", "False")


@pytest.mark.parametrize("moment", ["at once", "when the Deployment is there", "when a pod is there"])
def test_nothing_is_left_of_a_worker_deleted_in_the_middle_of_its_work(
    make_worker: MakeWorker, database: Database, here: Kubectl, moment: str
) -> None:
    database.enqueue(chores.add, 1, 2, times=3)
    worker = make_worker()
    if moment == "when the Deployment is there":
        eventually(lambda: worker.deployment, "a Deployment")
    elif moment == "when a pod is there":
        eventually(lambda: worker.pods, "a pod")
    here("delete", "djtw", "worker", PATIENTLY)

    eventually(lambda: not worker.deployment and not worker.pods, "nothing left")
    # Longer than a turn that was under way can take.
    always(lambda: not worker.deployment, "no Deployment comes back", seconds=2)


@pytest.mark.alone
def test_deleting_returns_at_once_with_the_operator_stopped(
    make_worker: MakeWorker, database: Database, here: Kubectl, operator: Release
) -> None:
    worker = make_worker(scaling={"minReplicas": 1})
    worker.scales_to(1)
    operator.stop()
    # With a finalizer it would wait for an operator, and there is none.
    assert worker.manifest
    assert "finalizers" not in worker.manifest["metadata"]
    here("delete", "djtw", "worker", PATIENTLY)
    assert worker.manifest is None

    eventually(lambda: not worker.deployment and not worker.pods, "the Deployment and its pods go")
    operator.start()
    always(lambda: not worker.deployment, "no Deployment comes back", seconds=2)


def test_a_worker_made_again_adopts_the_deployment_it_had_left_behind(
    make_worker: MakeWorker, database: Database, here: Kubectl
) -> None:
    worker = make_worker(scaling={"minReplicas": 1})
    worker.scales_to(1)
    deployment, pods = worker.deployment, worker.pod_names
    database.close_gate(1)
    results = database.enqueue(chores.wait_at, 1)
    eventually(lambda: database.statuses(results) == ["RUNNING"], "the task runs")
    here("delete", "djtw", "worker", "--cascade=orphan")
    eventually(lambda: not owners(worker), "an orphan")
    again = make_worker(scaling={"minReplicas": 1})
    again.becomes("Ready", "True", "ReplicasReady")

    assert deployment
    assert again.deployment
    assert again.deployment["metadata"]["uid"] == deployment["metadata"]["uid"]
    assert again.manifest
    assert owners(again) == [again.manifest["metadata"]["uid"]]
    # The pods are another worker's now, and are replaced as in a rollout: what runs may finish.
    eventually(lambda: again.pod_names and not again.pod_names & pods, "pods of its own")
    database.open_gate(1)
    assert database.statuses(database.finish(results)) == ["SUCCESSFUL"]
    assert {result.worker_ids[0].partition("/")[0] for result in results} == pods


def owners(worker: TaskWorker) -> list[str]:
    deployment = worker.deployment
    assert deployment
    return [owner["uid"] for owner in deployment["metadata"].get("ownerReferences", ())]


def test_a_worker_of_the_same_name_follows_a_deleted_one(
    make_worker: MakeWorker, database: Database, here: Kubectl
) -> None:
    worker = make_worker(scaling={"minReplicas": 1})
    worker.scales_to(1)
    first = worker.pod_names
    here("delete", "djtw", "worker")
    again = make_worker(scaling={"minReplicas": 1})
    again.becomes("Ready", "True", "ReplicasReady")
    again.scales_to(1)

    assert again.manifest
    assert owners(again) == [again.manifest["metadata"]["uid"]]
    assert not again.pod_names & first


@pytest.mark.alone
def test_uninstalled_and_installed_again_the_pods_never_stop(
    make_worker: MakeWorker, database: Database, here: Kubectl, operator: Release
) -> None:
    worker = make_worker()
    database.close_gate(1)
    results = database.enqueue(chores.wait_at, 1, times=2)
    worker.scales_to(2)
    pods = worker.pod_names
    with deployment_writes(here) as writes:
        operator.uninstall()
        assert worker.replicas == 2
        assert worker.pod_names == pods
        operator.install()
        worker.becomes("Ready", "True")
        eventually(lambda: operator.log().count(f"{worker.namespace}/worker"), "the worker is found again")
        always(lambda: worker.replicas == 2, "two replicas", seconds=3)
        assert len(writes()) == 1
    assert worker.pod_names == pods
    database.open_gate(1)

    assert [result.worker_ids[0] in pods for result in database.finish(results)] == [True, True]
    worker.scales_to(0)


def test_a_namespace_deleted_in_the_middle_of_the_work_goes(
    make_worker: MakeWorker, database: Database, here: Kubectl, api: Api, operator: Release
) -> None:
    incarnation = operator.incarnation
    # The namespace's controller waits for a pod's whole grace period.
    worker = make_worker(terminationGracePeriodSeconds=1)
    database.enqueue(chores.add, 1, 2, times=20)
    eventually(lambda: worker.pods, "a pod")
    here("delete", "namespace", worker.namespace, PATIENTLY)

    assert api.get(f"/api/v1/namespaces/{worker.namespace}") is None
    assert operator.incarnation == incarnation
    assert f'"msg": "turn failed", "worker": "{worker.namespace}' not in operator.log()
