"""A real API server accepts the Jobs and CronJobs of workers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from tests.waiting import PATIENTLY

from django_task_operator.resources import RuntimeSource, build_children, build_deployment, build_migration
from django_task_operator.scaling import DRIVERS
from django_task_operator.spec import Worker

if TYPE_CHECKING:
    from tests.conftest import Kubectl

RUNTIME = RuntimeSource("registry.example/django-task-worker:0.1.0")
CASES = sorted((Path(__file__).parent.parent / "unit" / "resources" / "golden").iterdir())


def manifests(case: Path, namespace: str) -> list[dict[str, Any]]:
    manifest = yaml.safe_load((case / "worker.yaml").read_text())
    manifest["metadata"]["namespace"] = namespace
    manifest["spec"].setdefault("cleanup", {"schedule": "@daily"})
    worker = Worker.parse(manifest)
    of_its_driver = DRIVERS[worker.spec.scaling.driver].children(worker)
    return [build_migration(worker, RUNTIME), *build_children(worker, RUNTIME), *of_its_driver]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_api_server_takes_them_as_they_are(kubectl: Kubectl, namespace: str, case: Path) -> None:
    for manifest in manifests(case, namespace):
        stored = json.loads(
            kubectl("create", "--dry-run=server", "--validate=strict", "-ojson", "-f-", manifest=manifest)
        )
        assert stored["metadata"]["name"] == manifest["metadata"]["name"]


# The longest that the CRD takes, and such as differ at their very end alone.
LONGEST = "shop.example.org.2.mails-that-nobody-re"
NAMES = [f"{LONGEST}a", f"{LONGEST}b", "a.b", "0"]


@pytest.mark.parametrize("name", NAMES)
def test_the_api_server_takes_every_name_that_a_worker_may_have(
    kubectl: Kubectl, crd: dict[str, Any], namespace: str, name: str
) -> None:
    here = kubectl.within(namespace)
    (case,) = (case for case in CASES if case.name == "hpa")
    manifest = yaml.safe_load((case / "worker.yaml").read_text())
    manifest["metadata"] = {"name": name, "namespace": namespace}
    here("create", "--dry-run=server", "-f-", manifest=manifest)
    worker = named(name, namespace)
    made = [
        build_deployment(worker, 1, RUNTIME),
        build_migration(worker, RUNTIME),
        *build_children(worker, RUNTIME),
        *DRIVERS[worker.spec.scaling.driver].children(worker),
    ]
    for each in made:
        here("create", "--dry-run=server", "--validate=strict", "-f-", manifest=each)
    # And what controllers make of them: a ReplicaSet's hash has ten characters, a run's number eight.
    (cron,) = (each for each in made if each["kind"] == "CronJob")
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": f"{cron['metadata']['name']}-{'9' * 8}"},
        "spec": cron["spec"]["jobTemplate"]["spec"],
    }
    here("create", "--dry-run=server", "-f-", manifest=job)
    here("wait", "--for=create", PATIENTLY, "serviceaccount/default")
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": f"{name}-{'f' * 10}-",
            "labels": made[0]["spec"]["template"]["metadata"]["labels"],
        },
        "spec": made[0]["spec"]["template"]["spec"],
    }
    created = json.loads(here("create", "--dry-run=server", "-ojson", "-f-", manifest=pod))
    # Nothing is cut off, so that no two workers' pods can be taken for each other's, and with the largest
    # number of a process and of a thread it is a worker id, which has at most 64 characters.
    assert created["metadata"]["name"].startswith(f"{name}-{'f' * 10}-")
    assert len(f"{created['metadata']['name']}/64.64") <= 64


def named(name: str, namespace: str) -> Worker:
    (case,) = (case for case in CASES if case.name == "hpa")
    manifest = yaml.safe_load((case / "worker.yaml").read_text())
    manifest["metadata"] |= {"name": name, "namespace": namespace}
    manifest["spec"] |= {"cleanup": {"schedule": "@daily"}, "migrations": {"policy": "BeforeRollout"}}
    return Worker.parse(manifest)


def test_what_a_cron_job_makes_is_no_job_of_ours(kubectl: Kubectl, namespace: str) -> None:
    """Neither the watch for migrations nor a disruption budget may select it."""
    (cron,) = (each for each in manifests(CASES[0], namespace) if each["kind"] == "CronJob")
    del cron["metadata"]["ownerReferences"]
    here = kubectl.within(namespace)
    here("create", "-f-", manifest={**cron, "spec": {**cron["spec"], "suspend": True}})
    name = cron["metadata"]["name"]
    job = json.loads(here("create", "job", "now", f"--from=cronjob/{name}", "--dry-run=server", "-ojson"))

    assert "djangotasks.dev/worker" not in job["metadata"].get("labels", {})
    assert "djangotasks.dev/worker" not in job["spec"]["template"]["metadata"]["labels"]
    assert job["spec"]["template"]["metadata"]["labels"]["djangotasks.dev/cleanup-of"]


def test_a_migration_runs_in_a_restricted_namespace(kubectl: Kubectl, namespace: str) -> None:
    kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    kubectl("wait", "--for=create", PATIENTLY, "serviceaccount/default", f"--namespace={namespace}")
    (case,) = (case for case in CASES if case.name == "minimal")
    job = manifests(case, namespace)[0]
    template = job["spec"]["template"]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "migrate", "labels": template["metadata"]["labels"]},
        "spec": template["spec"],
    }

    kubectl.within(namespace)("create", "--dry-run=server", "-f-", manifest=pod)
