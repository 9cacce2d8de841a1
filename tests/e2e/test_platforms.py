"""What platforms do to pods: OpenShift's user ids, the containers of a service mesh, policies."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.e2e.conftest import SPEC
from tests.e2e.harness import eventually
from tests.e2e.postgres import chores
from tests.e2e.release import NAME, Release
from tests.e2e.webhooks import RESTRICTED, admission_policy, mesh, policy

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Kubectl
    from tests.e2e.harness import TaskWorker
    from tests.e2e.postgres import Database

type MakeWorker = Callable[..., TaskWorker]

# As OpenShift's restricted-v2 gives to pods: a number that no /etc/passwd has, in the group of root.
ARBITRARY = {"runAsUser": 1000650000, "runAsGroup": 0}


def test_a_worker_runs_as_a_user_whom_its_image_does_not_know(
    make_worker: MakeWorker, database: Database, here: Kubectl
) -> None:
    pod = {**SPEC["podTemplate"]["spec"], "securityContext": ARBITRARY}
    worker = make_worker(
        podTemplate={"spec": pod},
        migrations={"policy": "BeforeRollout"},
        cleanup={"schedule": "0 0 1 1 *"},
        processes=2,
    )
    assert database.statuses(database.finish(database.enqueue(chores.add, 1, 2))) == ["SUCCESSFUL"]
    (running, *_) = worker.pods
    assert running["spec"]["securityContext"]["runAsUser"] == ARBITRARY["runAsUser"]
    here("create", "job", "now", "--from=cronjob/worker-cleanup")
    here("wait", "--for=condition=Complete", "job/now", "--timeout=400s")


def operator_pod(*args: str) -> dict[str, Any]:
    """A second operator, without a Lease, for namespaces that no other operator watches."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "operator"},
        "spec": {
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "operator",
                    "image": f"{NAME}:dev",
                    "args": list(args),
                    "readinessProbe": {"httpGet": {"path": "/readyz", "port": 8080}, "periodSeconds": 1},
                    "securityContext": {**RESTRICTED, "readOnlyRootFilesystem": True},
                }
            ],
        },
    }


def test_the_operator_runs_as_a_user_whom_its_image_does_not_know(
    operator: Release, here: Kubectl, namespace: str
) -> None:
    """A second operator, only for this namespace, which has no worker."""
    account = f"--serviceaccount={namespace}:default"
    here("create", "rolebinding", "operator", f"--clusterrole={NAME}", account)
    pod = operator_pod(f"--watch-namespace={namespace}", "--pod-security=platform")
    pod["spec"]["securityContext"] |= ARBITRARY
    here("create", "-f-", manifest=pod)
    here("wait", "--for=condition=Ready", "pod/operator", "--timeout=400s")
    assert "Traceback" not in here("logs", "operator")


def test_a_mesh_keeps_neither_a_migration_nor_a_clean_up_from_ending(
    make_worker: MakeWorker, database: Database, kubectl: Kubectl, here: Kubectl, namespace: str
) -> None:
    with mesh(kubectl, here, namespace):
        worker = make_worker(migrations={"policy": "BeforeRollout"}, cleanup={"schedule": "0 0 1 1 *"})
        assert database.statuses(database.finish(database.enqueue(chores.add, 1, 2))) == ["SUCCESSFUL"]
        worker.tells("MigrationStarted")
        eventually(lambda: not here("get", "jobs", "--output=name"), "the migration's Job is gone")
        here("create", "job", "now", "--from=cronjob/worker-cleanup")
        # By itself it would stay, complete.
        eventually(lambda: not here("get", "jobs", "--output=name"), "the clean-up's Job is gone")


def test_a_migration_that_fails_in_a_mesh_is_said(
    make_worker: MakeWorker, database: Database, kubectl: Kubectl, here: Kubectl, namespace: str
) -> None:
    with mesh(kubectl, here, namespace):
        worker = make_worker(
            migrations={"policy": "BeforeRollout"},
            env=[{"name": "DJANGO_SETTINGS_MODULE", "value": "tests.e2e.project.nowhere"}],
        )
        message = worker.becomes("Stalled", "True", "MigrationFailed")
        assert "nowhere" in message


COST_CENTER = {"metadata": {"labels": {"cost-center": "4711"}}}


def test_the_words_of_a_policy_that_refuses_the_deployment_are_quoted(
    make_worker: MakeWorker, database: Database, kubectl: Kubectl, here: Kubectl, namespace: str
) -> None:
    with policy(kubectl, here, namespace):
        worker = make_worker()
        message = worker.becomes("Stalled", "True", "DeploymentRejected")
        assert message == (
            'The API server refuses the Deployment: admission webhook "webhook.example.org" denied the '
            f"request: resource Deployment/{namespace}/worker was blocked due to the following policies "
            "require-cost-center: check-for-label: 'validation error: the label `cost-center` is required. "
            "rule check-for-label failed at path /spec/template/metadata/labels/cost-center/'"
        )
        assert worker.warns("DeploymentRejected") == message
        worker.patch(podTemplate={**SPEC["podTemplate"], **COST_CENTER})
        assert database.statuses(database.finish(database.enqueue(chores.add, 1, 2))) == ["SUCCESSFUL"]
        worker.becomes("Stalled", "False")


def test_the_words_of_a_policy_that_refuses_the_pods_are_quoted(
    make_worker: MakeWorker, database: Database, kubectl: Kubectl, here: Kubectl, namespace: str
) -> None:
    results = database.enqueue(chores.add, 1, 2)
    with admission_policy(kubectl, here, namespace):
        worker = make_worker()
        message = worker.becomes("Stalled", "True", "PodsRejected")
        assert (
            f"ValidatingAdmissionPolicy '{namespace}' with binding '{namespace}' denied request: "
            "every pod needs a label cost-center (ask the platform team)"
        ) in message
        assert worker.warns("PodsRejected") == message
        worker.patch(podTemplate={**SPEC["podTemplate"], **COST_CENTER})
        assert database.statuses(database.finish(results)) == ["SUCCESSFUL"]
        worker.becomes("Stalled", "False")


def test_a_namespace_that_is_gone_keeps_no_other_from_being_served(
    operator: Release, here: Kubectl, namespace: str
) -> None:
    """A second operator, for this namespace and for one that does not exist, in which it has no rights."""
    gone = f"{namespace}-gone"
    here(
        "create", "rolebinding", "operator", f"--clusterrole={NAME}", f"--serviceaccount={namespace}:default"
    )
    here(
        "create", "-f-", manifest=operator_pod(f"--watch-namespace={namespace}", f"--watch-namespace={gone}")
    )
    here("wait", "--for=condition=Ready", "pod/operator", "--timeout=400s")
    eventually(lambda: "workers not watched" in here("logs", "operator"), "kopf has given up for the one")
    log = [json.loads(line) for line in here("logs", "operator").splitlines() if line.startswith("{")]
    named = {each["message"]: each.get("namespace") for each in log}
    assert named["namespace not served"] == named["workers not watched"] == gone
    # It continues, and was never restarted.
    pod = json.loads(here("get", "pod", "operator", "-ojson"))
    (status,) = pod["status"]["containerStatuses"]
    assert status["ready"]
    assert status["restartCount"] == 0
