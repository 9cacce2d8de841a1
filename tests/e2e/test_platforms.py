"""What platforms do to pods: OpenShift's user ids, proxies and the containers of a mesh, policies."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.e2e.conftest import SPEC, put_secret
from tests.e2e.harness import eventually
from tests.e2e.postgres import chores
from tests.e2e.release import NAME, Release
from tests.e2e.webhooks import RESTRICTED, admission_policy, mesh, policy
from tests.waiting import PATIENTLY

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
    here("wait", "--for=condition=Complete", "job/now", PATIENTLY)


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
    here("wait", "--for=condition=Ready", "pod/operator", PATIENTLY)
    assert "Traceback" not in here("logs", "operator")


# As the Cloud SQL Auth Proxy: it passes on what comes, and ends as soon as it is told to.
RELAY = """
import asyncio, os, signal

async def copy(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()

async def relay(reader, writer):
    server = await asyncio.open_connection(os.environ["SERVER"], 5432)
    await asyncio.gather(copy(reader, server[1]), copy(server[0], writer), return_exceptions=True)

async def main():
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, os._exit, 0)
    async with await asyncio.start_server(relay, port=5432) as server:
        await server.serve_forever()

asyncio.run(main())
"""


def test_a_proxy_beside_the_worker_serves_its_migration_and_outlives_its_drain(
    make_worker: MakeWorker, database: Database, here: Kubectl
) -> None:
    """The pods reach the database only through the proxy, and the operator only by its own name."""
    name = database.server.name
    put_secret(here, "proxied", DATABASE_URL=database.url.replace(name, "127.0.0.1"))
    pod = SPEC["podTemplate"]["spec"]
    proxy = {
        "name": "proxy",
        "image": SPEC["image"],
        "command": ["python", "-c", RELAY],
        "env": [{"name": "SERVER", "value": name}],
        "startupProbe": {"tcpSocket": {"port": 5432}, "periodSeconds": 1, "failureThreshold": 240},
        "securityContext": RESTRICTED,
    }
    worker = make_worker(
        database={"urlSecretRef": {"name": "proxied"}},
        migrations={"policy": "BeforeRollout"},
        podTemplate={"spec": {**pod, "containers": [*pod["containers"], proxy]}},
        terminationGracePeriodSeconds=120,
    )
    message = worker.becomes("DatabaseReachable", "False", "HostIsLoopback")
    assert "spec.database.operatorUrlSecretRef" in message
    worker.patch(database={"operatorUrlSecretRef": {"name": "database"}})
    database.close_gate(1)
    (result,) = database.enqueue(chores.wait_at, 1)
    eventually(lambda: database.statuses([result]) == ["RUNNING"], "the task runs")
    worker.tells("MigrationStarted")
    (running,) = worker.pod_names
    here("delete", "pod", running, "--wait=false")
    # Another pod starts and runs it: by then the first one has long been told to end.
    (later,) = database.finish(database.enqueue(chores.add, 1, 2))
    assert running not in later.worker_ids
    assert database.statuses([result]) == ["RUNNING"]
    database.open_gate(1)
    database.finish([result])

    assert (result.status, result.worker_ids) == ("SUCCESSFUL", [running])
    here("wait", "--for=delete", f"pod/{running}", PATIENTLY)


def test_a_mesh_keeps_neither_a_worker_nor_its_migration_or_clean_up_from_ending(
    make_worker: MakeWorker, database: Database, kubectl: Kubectl, here: Kubectl, namespace: str
) -> None:
    with mesh(kubectl, here, namespace):
        worker = make_worker(migrations={"policy": "BeforeRollout"}, cleanup={"schedule": "0 0 1 1 *"})
        database.close_gate(1)
        results = database.enqueue(chores.wait_at, 1)
        eventually(lambda: database.statuses(results) == ["RUNNING"], "the task runs")
        (pod,) = worker.pods
        assert [each["name"] for each in pod["spec"]["containers"]] == ["mesh", "worker"]
        worker.becomes("Ready", "True")
        database.open_gate(1)
        assert database.statuses(database.finish(results)) == ["SUCCESSFUL"]
        worker.scales_to(0)
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
        words = (
            f"ValidatingAdmissionPolicy '{namespace}' with binding '{namespace}' denied request: "
            "every pod needs a label cost-center (ask the platform team)"
        )
        assert words in message
        assert worker.warns("PodsRejected") == message
        worker.patch(migrations={"policy": "BeforeRollout"})

        def refuses_the_migrations() -> bool:
            said = worker.becomes("Stalled", "True", "PodsRejected")
            return 'pods "worker-migrate-' in said and words in said

        eventually(refuses_the_migrations, "the words about the migration's pods are quoted")
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
    here("wait", "--for=condition=Ready", "pod/operator", PATIENTLY)
    eventually(lambda: "workers not watched" in here("logs", "operator"), "kopf has given up for the one")
    log = [json.loads(line) for line in here("logs", "operator").splitlines() if line.startswith("{")]
    named = {each["msg"]: each.get("namespace") for each in log}
    assert named["namespace not served"] == named["workers not watched"] == gone
    # It continues, and was never restarted.
    pod = json.loads(here("get", "pod", "operator", "-ojson"))
    (status,) = pod["status"]["containerStatuses"]
    assert status["ready"]
    assert status["restartCount"] == 0
