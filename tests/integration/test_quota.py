"""A worker's objects in a namespace with limits for containers."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from tests.waiting import PATIENCE_S, PATIENTLY

from django_task_operator.cluster.kube import Kube
from django_task_operator.keepers.migration import FAILED_CREATE, last_refusal
from django_task_operator.resources import RuntimeSource, build_children, build_deployment, build_migration
from django_task_operator.spec import Worker

if TYPE_CHECKING:
    from tests.conftest import Kubectl

RUNTIME = RuntimeSource("registry.example/django-task-worker:0.1.0")
MINIMAL = Path(__file__).parent.parent / "unit" / "resources" / "golden" / "minimal" / "worker.yaml"
QUOTA = {
    "apiVersion": "v1",
    "kind": "ResourceQuota",
    "metadata": {"name": "limits"},
    "spec": {
        "hard": {f"{kind}.{name}": "8Gi" for kind in ("requests", "limits") for name in ("cpu", "memory")}
    },
}
# Higher than what a small container of ours would ask for, and lower than what a large one would.
RANGE = {
    "apiVersion": "v1",
    "kind": "LimitRange",
    "metadata": {"name": "range"},
    "spec": {
        "limits": [
            {
                "type": "Container",
                "min": {"cpu": "50m", "memory": "48Mi"},
                "max": {"cpu": "500m", "memory": "1Gi"},
                "maxLimitRequestRatio": {"cpu": "4"},
            }
        ]
    },
}


def pods(namespace: str, spec: dict[str, Any]) -> list[dict[str, Any]]:
    """A pod of the Deployment, of a migration and of a clean-up."""
    manifest = yaml.safe_load(MINIMAL.read_text())
    manifest["metadata"]["namespace"] = namespace
    manifest["spec"] |= {"cleanup": {"schedule": "@daily"}, **spec}
    worker = Worker.parse(manifest)
    (cron,) = (each for each in build_children(worker, RUNTIME) if each["kind"] == "CronJob")
    return [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"generateName": "pod-", "labels": owner["spec"]["template"]["metadata"]["labels"]},
            "spec": owner["spec"]["template"]["spec"],
        }
        for owner in (
            build_deployment(worker, 1, RUNTIME),
            build_migration(worker, RUNTIME),
            cron["spec"]["jobTemplate"],
        )
    ]


async def test_the_words_that_refuse_the_pods_of_a_migration_are_found(
    kubectl: Kubectl, kubeconfig: Path, namespace: str
) -> None:
    here = kubectl.within(namespace)
    here("wait", "--for=create", PATIENTLY, "serviceaccount/default")
    here("create", "quota", "none", "--hard=pods=0")
    here("wait", "--for=jsonpath={.status.hard.pods}=0", PATIENTLY, "resourcequota/none")
    manifest = yaml.safe_load(MINIMAL.read_text())
    manifest["metadata"]["namespace"] = namespace
    job = build_migration(Worker.parse(manifest), RUNTIME)
    del job["metadata"]["ownerReferences"]
    uid = json.loads(here("create", "-ojson", "-f-", manifest=job))["metadata"]["uid"]
    kube = await Kube.connect(str(kubeconfig))
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not (  # noqa: ASYNC110 - nothing tells of it
                events := await kube.list_events(namespace, FAILED_CREATE, about=uid)
            ):
                await asyncio.sleep(0.1)
    finally:
        await kube.close()
    said = last_refusal(events, job["metadata"]["name"])
    assert said.startswith(f'pods "{job["metadata"]["name"]}" is forbidden: '), said
    assert said.endswith(
        "is forbidden: exceeded quota: none, requested: pods=1, used: pods=0, limited: pods=0"
    )


@pytest.mark.parametrize(
    ("bounds", "spec"),
    [
        (
            [QUOTA],
            {
                "podTemplate": {
                    "spec": {
                        "containers": [
                            {
                                "name": "worker",
                                "resources": {
                                    "requests": {"cpu": "100m", "memory": "64Mi"},
                                    "limits": {"cpu": "200m", "memory": "128Mi"},
                                },
                            }
                        ]
                    }
                }
            },
        ),
        (
            [QUOTA, RANGE],
            {
                "resources": {
                    "requests": {"cpu": "100m", "memory": "64Mi"},
                    "limits": {"cpu": "400m", "memory": "128Mi"},
                }
            },
        ),
        ([RANGE], {}),
        ([QUOTA, RANGE], {}),
    ],
    ids=["quota", "quota and range", "defaults of a range", "quota and defaults of a range"],
)
def test_a_quota_and_a_limit_range_let_them_pass(
    kubectl: Kubectl, namespace: str, bounds: list[dict[str, Any]], spec: dict[str, Any]
) -> None:
    here = kubectl.within(namespace)
    here("wait", "--for=create", PATIENTLY, "serviceaccount/default")
    for bound in bounds:
        here("create", "-f-", manifest=bound)
    if QUOTA in bounds:
        # Until then it refuses every pod.
        counted = "--for=jsonpath={.status.hard.limits\\.cpu}=8Gi"
        here("wait", counted, PATIENTLY, "resourcequota/limits")
    for pod in pods(namespace, spec):
        created = here("create", "--dry-run=server", "-ojson", "-f-", manifest=pod)
        containers = json.loads(created)["spec"]
        for container in [*containers["initContainers"], *containers["containers"]]:
            assert {"requests", "limits"} <= container["resources"].keys(), container


def test_a_quota_refuses_pods_without_resources_whatever_is_added_to_them(
    kubectl: Kubectl, namespace: str
) -> None:
    """So values of ours for the containers that we add would be of no use: the worker needs some as well."""
    here = kubectl.within(namespace)
    here("wait", "--for=create", PATIENTLY, "serviceaccount/default")
    here("create", "-f-", manifest=QUOTA)
    here("wait", "--for=jsonpath={.status.hard.limits\\.cpu}=8Gi", PATIENTLY, "resourcequota/limits")
    small = {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"cpu": "100m", "memory": "64Mi"}}
    copy = {"name": "django-db-worker", "resources": small}
    for pod in pods(namespace, {"podTemplate": {"spec": {"initContainers": [copy]}}}):
        (own,) = pod["spec"]["containers"]
        refusal = here.refused("create", "--dry-run=server", "-f-", manifest=pod)
        assert f"must specify limits.cpu for: {own['name']};" in refusal
