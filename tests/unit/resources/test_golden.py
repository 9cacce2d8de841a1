"""Whole manifests: golden/*/worker.yaml in, golden/*/deployment.yaml, children.yaml, migration.yaml out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from django_task_operator.resources import (
    Rotation,
    RuntimeSource,
    build_children,
    build_deployment,
    build_migration,
    migration_hash,
)
from django_task_operator.scaling import DRIVERS
from django_task_operator.spec import Worker

RUNTIME = RuntimeSource("registry.example/django-task-worker:0.1.0")
CASES = sorted((Path(__file__).parent / "golden").iterdir())
(MINIMAL,) = (case for case in CASES if case.name == "minimal")
WITH_CHILDREN = [case for case in CASES if (case / "children.yaml").exists()]
WITH_MIGRATION = [case for case in CASES if (case / "migration.yaml").exists()]


class Plain(yaml.SafeDumper):
    """Writes repeated values in full, without YAML aliases, as Kubernetes does."""

    def ignore_aliases(self, _: object) -> bool:
        return True


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_golden(case: Path) -> None:
    worker = Worker.parse(yaml.safe_load((case / "worker.yaml").read_text()))
    expected = (case / "deployment.yaml").read_text()

    assert yaml.dump(build_deployment(worker, 3, RUNTIME), Dumper=Plain, sort_keys=False) == expected


def test_a_database_url_that_has_changed_is_told_by_annotations_alone() -> None:
    worker = Worker.parse(yaml.safe_load((CASES[0] / "worker.yaml").read_text()))
    before = build_deployment(worker, 3, RUNTIME)
    after = build_deployment(worker, 3, RUNTIME, "5e884898", Rotation("0a1b2c3d-now", "0a1b2c3d-before"))

    assert after["metadata"].pop("annotations") == {
        "djangotasks.dev/migrated": "5e884898",
        "djangotasks.dev/database-url-hash": "0a1b2c3d-now",
    }
    mark = after["spec"]["template"]["metadata"]["annotations"].pop(
        "djangotasks.dev/replaced-for-database-url"
    )
    assert mark == "0a1b2c3d-before"
    assert after == before


@pytest.mark.parametrize("case", WITH_CHILDREN, ids=lambda case: case.name)
def test_golden_children(case: Path) -> None:
    worker = Worker.parse(yaml.safe_load((case / "worker.yaml").read_text()))
    expected = (case / "children.yaml").read_text()
    children = build_children(worker, RUNTIME) + DRIVERS[worker.spec.scaling.driver].children(worker)

    assert yaml.dump_all(children, Dumper=Plain, sort_keys=False) == expected


@pytest.mark.parametrize("case", WITH_MIGRATION, ids=lambda case: case.name)
def test_golden_migration(case: Path) -> None:
    worker = Worker.parse(yaml.safe_load((case / "worker.yaml").read_text()))
    expected = (case / "migration.yaml").read_text()

    assert yaml.dump(build_migration(worker, RUNTIME), Dumper=Plain, sort_keys=False) == expected


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_no_job_makes_a_pod_that_counts_as_the_workers(case: Path) -> None:
    manifest = yaml.safe_load((case / "worker.yaml").read_text())
    manifest["spec"]["cleanup"] = {"schedule": "@daily"}
    worker = Worker.parse(manifest)
    (cron,) = (child for child in build_children(worker, RUNTIME) if child["kind"] == "CronJob")

    for job in (cron["spec"]["jobTemplate"], build_migration(worker, RUNTIME)):
        pod = job["spec"]["template"]
        assert "djangotasks.dev/worker" not in pod["metadata"]["labels"]
        (container,) = pod["spec"]["containers"]
        assert not {"ports", "livenessProbe", "readinessProbe", "startupProbe"} & container.keys()
        assert not {"DB_WORKER_ID", "DB_WORKER_HEALTH_PORT"} & {each["name"] for each in container["env"]}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_a_gitops_tool_puts_on_the_worker_is_on_none_of_its_objects(case: Path) -> None:
    """Otherwise Argo CD would take them for objects of its own that are not in Git, and prune them."""
    manifest = yaml.safe_load((case / "worker.yaml").read_text())
    manifest["spec"]["cleanup"] = {"schedule": "@daily"}
    manifest["metadata"] |= {
        "labels": {"app.kubernetes.io/instance": "tracking", "kustomize.toolkit.fluxcd.io/name": "tracking"},
        "annotations": {"argocd.argoproj.io/tracking-id": "tracking"},
    }
    worker = Worker.parse(manifest)
    owned = [
        build_deployment(worker, 1, RUNTIME),
        build_migration(worker, RUNTIME),
        *build_children(worker, RUNTIME),
        *DRIVERS[worker.spec.scaling.driver].children(worker),
    ]
    assert "tracking" not in yaml.safe_dump_all(owned)
    # This is how Argo CD shows them below their worker all the same.
    assert all(each["metadata"]["ownerReferences"][0]["uid"] == worker.uid for each in owned)


@pytest.mark.parametrize(
    ("change", "is_another"),
    [
        ({"image": "shop:2"}, True),
        ({"env": [{"name": "A", "value": "1"}]}, True),
        ({"database": {"urlSecretRef": {"name": "other-db"}}}, True),
        ({"database": {"urlSecretRef": {"name": "shop-db", "key": "url"}, "envName": "DB_URL"}}, False),
        (
            {
                "database": {
                    "urlSecretRef": {"name": "shop-db", "key": "url"},
                    "envName": "DB_URL",
                    "setup": "Managed",
                }
            },
            True,
        ),
        ({"resources": {"limits": {"memory": "1Gi"}}}, True),
        ({"podTemplate": {"spec": {"serviceAccountName": "shop"}}}, True),
        ({"queues": ["emails"]}, False),
        ({"processes": 4}, False),
        ({"scaling": {"maxReplicas": 3}}, False),
        ({"terminationGracePeriodSeconds": 5}, False),
        ({"cleanup": {"schedule": "@daily"}}, False),
        ({"paused": True}, False),
    ],
)
def test_what_is_migrated_once(change: dict[str, object], is_another: bool) -> None:
    manifest = yaml.safe_load((CASES[0] / "worker.yaml").read_text())
    before = migration_hash(Worker.parse(manifest).spec)
    manifest["spec"] |= change

    assert (migration_hash(Worker.parse(manifest).spec) != before) == is_another


@pytest.mark.parametrize(
    ("case", "known"), [("everything", "c27cc169"), ("minimal", "584dff82"), ("parts", "96b92790")]
)
def test_an_upgrade_of_the_operator_repeats_no_migration(case: str, known: str) -> None:
    """These hashes are on Deployments of users: a new field must not change them."""
    (found,) = (each for each in CASES if each.name == case)
    assert migration_hash(Worker.parse(yaml.safe_load((found / "worker.yaml").read_text())).spec) == known


def test_what_the_operator_alone_needs_of_the_database_calls_for_no_migration() -> None:
    manifest = yaml.safe_load((CASES[0] / "worker.yaml").read_text())
    before = migration_hash(Worker.parse(manifest).spec)
    manifest["spec"]["database"]["urlChangePolicy"] = "Ignore"
    manifest["spec"]["database"]["operatorUrlSecretRef"] = {"name": "shop-db-operator"}

    assert migration_hash(Worker.parse(manifest).spec) == before


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_building_leaves_the_spec_as_it_was(case: Path) -> None:
    worker = Worker.parse(yaml.safe_load((case / "worker.yaml").read_text()))
    before = worker.model_dump_json()

    assert build_deployment(worker, 3, RUNTIME) == build_deployment(worker, 3, RUNTIME)
    assert worker.model_dump_json() == before


def test_only_the_replicas_tell_two_sizes_apart() -> None:
    worker = Worker.parse(yaml.safe_load((CASES[0] / "worker.yaml").read_text()))
    small, large = build_deployment(worker, 0, RUNTIME), build_deployment(worker, 9, RUNTIME)

    assert (small["spec"].pop("replicas"), large["spec"].pop("replicas")) == (0, 9)
    assert small == large


LARGE = {"requests": {"cpu": "2", "memory": "1Gi"}, "limits": {"memory": "2Gi"}}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        # None for either: a LimitRange gives both its defaults, where small ones may be below its minimum.
        ({}, None),
        ({"resources": LARGE}, LARGE),
        ({"resources": {"limits": {"cpu": "1"}}}, {"limits": {"cpu": "1"}}),
        # A device is claimed for the tasks, not for a copy.
        ({"resources": {**LARGE, "claims": [{"name": "gpu"}]}}, LARGE),
        ({"worker": {"resources": LARGE}}, LARGE),
        (
            {"resources": LARGE, "worker": {"resources": {"limits": {"memory": "3Gi"}}}},
            {"requests": LARGE["requests"], "limits": {"memory": "3Gi"}},
        ),
        # What the user says of that very container counts, and nothing is mixed into it.
        (
            {"resources": LARGE, "copy": {"resources": {"limits": {"cpu": "500m"}}}},
            {"limits": {"cpu": "500m"}},
        ),
        ({"resources": LARGE, "copy": {"image": "mirror.example/worker:1"}}, LARGE),
        ({"resources": LARGE, "copy": {"resources": None}}, None),
    ],
)
def test_what_copies_the_runtime_is_admitted_where_the_worker_is(
    spec: dict[str, Any], expected: dict[str, Any] | None
) -> None:
    manifest = yaml.safe_load((MINIMAL / "worker.yaml").read_text())
    manifest["spec"] |= {
        "resources": spec.get("resources", {}),
        "cleanup": {"schedule": "@daily"},
        "podTemplate": {
            "spec": {
                "containers": [{"name": "worker", **spec.get("worker", {})}],
                "initContainers": [{"name": "django-db-worker", **spec.get("copy", {})}],
            }
        },
    }
    worker = Worker.parse(manifest)
    (cron,) = (each for each in build_children(worker, RUNTIME) if each["kind"] == "CronJob")
    for owned in (
        build_deployment(worker, 1, RUNTIME),
        build_migration(worker, RUNTIME),
        cron["spec"]["jobTemplate"],
    ):
        (copy,) = owned["spec"]["template"]["spec"]["initContainers"]
        assert copy.get("resources") == expected


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_platform_may_give_the_pods_their_user(case: Path) -> None:
    """OpenShift's restricted-v2 only allows users of the namespace's range, and sets one itself."""
    worker = Worker.parse(yaml.safe_load((case / "worker.yaml").read_text()))
    platform = RuntimeSource(RUNTIME.image, run_as_user=None)
    fixed, free = build_deployment(worker, 1, RUNTIME), build_deployment(worker, 1, platform)
    users = worker.spec.pod_template.spec.get("securityContext", {})

    context = free["spec"]["template"]["spec"]["securityContext"]
    assert context.get("runAsUser") == users.get("runAsUser")
    assert context["runAsNonRoot"] == users.get("runAsNonRoot", True)
    fixed["spec"]["template"]["spec"]["securityContext"].pop("runAsUser", None)
    context.pop("runAsUser", None)
    assert free == fixed


def test_another_runtime_rolls_the_pods_that_have_it_injected() -> None:
    def template(runtime: str, source: RuntimeSource) -> object:
        manifest = yaml.safe_load((CASES[0] / "worker.yaml").read_text())
        manifest["spec"]["runtime"] = runtime
        manifest["spec"] |= {"processes": 1, "threads": 1}
        return build_deployment(Worker.parse(manifest), 1, source)["spec"]["template"]

    newer = RuntimeSource(RUNTIME.image, revision="2")

    assert template("Injected", RUNTIME) != template("Injected", newer)
    assert template("Image", RUNTIME) == template("Image", newer)
    assert template("Stock", RUNTIME) == template("Stock", newer)
