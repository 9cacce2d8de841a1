"""The drivers External and HPA: others decide the replicas, such as the cluster's own autoscaler."""

from __future__ import annotations

import json
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from tests.conftest import ROOT
from tests.e2e.conftest import put_secret
from tests.e2e.harness import TaskWorker, always, deployment_writes, eventually
from tests.e2e.postgres import chores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Kubectl
    from tests.e2e.harness import Api
    from tests.e2e.postgres import Database
    from tests.e2e.release import Release

type MakeWorker = Callable[..., TaskWorker]

EXAMPLES = ROOT / "examples" / "hpa"
# The autoscaler looks every 15 seconds.
TWO_LOOKS_SECONDS = 30


def asked(worker: TaskWorker) -> int | None:
    """The worker's spec.replicas."""
    manifest = worker.manifest
    assert manifest
    replicas: int | None = manifest["spec"].get("replicas")
    return replicas


def has_number(worker: TaskWorker, number: int | None) -> bool:
    return asked(worker) == number


def autoscaler(worker: TaskWorker) -> dict[str, Any] | None:
    path = f"/apis/autoscaling/v2/namespaces/{worker.namespace}/horizontalpodautoscalers/{worker.name}"
    return worker.api.get(path)


def has_autoscaler(worker: TaskWorker, wanted: bool) -> bool:
    return bool(autoscaler(worker)) == wanted


def condition(worker: TaskWorker, kind: str) -> tuple[str, str]:
    """One of the autoscaler's own conditions: status and reason."""
    conditions = (autoscaler(worker) or {}).get("status", {}).get("conditions") or ()
    return next(((c["status"], c["reason"]) for c in conditions if c["type"] == kind), ("", ""))


@pytest.fixture
def example(
    operator: Release, database: Database, here: Kubectl, api: Api, namespace: str
) -> Callable[[str], TaskWorker]:
    """Apply an example unchanged, with the example shop's image and a Secret of the name that it uses."""
    put_secret(here, "shop", DATABASE_URL=database.url, SECRET_KEY="only-an-example")

    def apply(name: str) -> TaskWorker:
        here("apply", f"--filename={EXAMPLES / name}.yaml")
        return TaskWorker(here, api, namespace, name)

    return apply


@contextmanager
def nobody_reaches(release: Release) -> Iterator[None]:
    """Keep the API server from reaching the operator's metrics API."""

    def select(part: str | None) -> None:
        change = {"spec": {"selector": {"app.kubernetes.io/part-of": part}}}
        release.kubectl("patch", "service/django-task-operator-metrics-api", "--patch", json.dumps(change))

    select("nothing")
    try:
        yield
    finally:
        select(None)


def test_external_follows_kubectl_scale(make_worker: MakeWorker, database: Database, here: Kubectl) -> None:
    worker = make_worker(scaling={"driver": "External"})
    worker.scales_to(1)
    assert asked(worker) == 1
    worker.becomes("ScalingActive", "True", "ReplicasAsked")
    here("scale", "djtw", "worker", "--replicas=3")
    worker.scales_to(3)
    scale = json.loads(here("get", "djtw/worker", "--subresource=scale", "--output=json"))
    assert scale["spec"]["replicas"] == 3
    eventually(lambda: worker.status["replicas"] == 3, "the scale subresource tells how many there are")
    pods = here("get", "pods", f"--selector={scale['status']['selector']}", "--output=name").split()
    assert len(pods) == 3

    here("scale", "djtw", "worker", "--replicas=0")
    worker.scales_to(0)
    # One that is about to go may still claim a task.
    eventually(lambda: not here("get", "pods", "--output=name"), "no pod is left")
    database.enqueue(chores.add, 1, 2)
    worker.becomes("Ready", "False", "NoReplicasAsked")
    assert worker.replicas == 0


def test_external_follows_without_a_database(make_worker: MakeWorker, here: Kubectl) -> None:
    worker = make_worker(replicas=2, scaling={"driver": "External"})
    worker.becomes("DatabaseReachable", "False", "SecretMissing")
    eventually(lambda: worker.replicas == 2, "two pods are asked for")
    here("scale", "djtw", "worker", "--replicas=1")
    eventually(lambda: worker.replicas == 1, "one pod is asked for")


def test_autoscalers_of_ones_own(example: Callable[[str], TaskWorker], database: Database) -> None:
    by_metrics, by_cpu = example("own-metrics"), example("own-cpu")
    for worker in (by_metrics, by_cpu):
        worker.scales_to(1)
    with database.enqueued_and_locked(chores.add, 1, 2, queue="priority", times=6) as rows:
        eventually(lambda: asked(by_metrics) == 3, "the autoscaler asks for 3")
        by_metrics.scales_to(3)
        eventually(
            lambda: condition(by_metrics, "ScalingActive") == ("True", "ValidMetricFound"),
            "the autoscaler has found the metric",
        )
    # There is no metrics-server here, so an autoscaler by CPU gets no metric, and changes nothing.
    eventually(
        lambda: condition(by_cpu, "ScalingActive") == ("False", "FailedGetResourceMetric"),
        "the autoscaler has looked",
    )
    assert condition(by_cpu, "AbleToScale")[0] == "True"
    by_cpu.scales_to(1)
    database.finish(rows)


def test_hpa_from_zero_and_back(
    example: Callable[[str], TaskWorker], database: Database, here: Kubectl
) -> None:
    worker = example("managed")
    worker.becomes("Ready", "True", "ScaledToZero")
    eventually(lambda: asked(worker) == 0, "it begins with zero")
    eventually(
        lambda: condition(worker, "ScalingActive") == ("False", "ScalingDisabled"),
        "the autoscaler sleeps",
    )
    with deployment_writes(here) as writes:
        eventually(writes, "the watch has begun")
        with database.enqueued_and_locked(chores.add, 1, 2, times=8) as rows:
            eventually(lambda: worker.replicas == 4, "as many as are needed")
            assert asked(worker) == 4
            worker.scales_to(4)
            eventually(
                lambda: condition(worker, "ScalingActive") == ("True", "ValidMetricFound"),
                "the autoscaler is awake",
            )
            worker.becomes("ScalingActive", "True")
            shown = here("get", "hpa")
        (_, none), (_, all_of_them), *_ = writes()
    assert (none, all_of_them) == (0, 4)
    # The autoscaler's own conditions say it, too.
    about = [event["regarding"]["kind"] for event in worker.tells("ScaledUp", times=2)]
    assert sorted(about) == ["DjangoTaskWorker", "HorizontalPodAutoscaler"]
    header, line = (row.split() for row in shown.splitlines())
    row = dict(zip(header, line, strict=False))
    assert (row["NAME"], row["REFERENCE"]) == ("managed", "DjangoTaskWorker/managed")
    assert "2/2" in shown, "tasks for a pod, of those that it should have"
    database.finish(rows)
    worker.scales_to(0)
    assert asked(worker) == 0
    worker.becomes("Ready", "True", "ScaledToZero")


@pytest.mark.alone
def test_hpa_between_zero_and_the_most(
    make_worker: MakeWorker, database: Database, installed: Release
) -> None:
    behavior = {"scaleDown": {"stabilizationWindowSeconds": 0}}
    worker = make_worker(scaling={"driver": "HPA", "behavior": behavior})
    database.close_gate(1)
    database.close_gate(2)
    first = database.enqueue(chores.wait_at, 1)
    worker.scales_to(1)
    others = database.enqueue(chores.wait_at, 2, times=2)
    eventually(lambda: asked(worker) == 3, "the autoscaler asks for 3")
    worker.scales_to(3)
    eventually(lambda: database.statuses(first + others) == ["RUNNING"] * 3, "all tasks run")

    with nobody_reaches(installed):
        worker.becomes("ScalingActive", "False")
        database.open_gate(2)
        database.finish(others)
        always(lambda: worker.replicas == 3, "nothing is scaled in", seconds=35)
        assert condition(worker, "ScalingActive")[0] == "False"
    eventually(lambda: asked(worker) == 1, "the autoscaler asks for 1")
    database.open_gate(1)
    worker.scales_to(0)
    assert asked(worker) == 0


def test_a_change_of_the_driver_under_load_ends_no_pod(make_worker: MakeWorker, database: Database) -> None:
    worker = make_worker()
    database.close_gate(1)
    results = database.enqueue(chores.wait_at, 1, times=2)
    worker.scales_to(2)
    eventually(lambda: database.statuses(results) == ["RUNNING"] * 2, "both tasks run")
    pods = worker.pod_names
    for driver in ("HPA", "External", "HPA", "Operator", "External", "Operator"):
        worker.patch(scaling={"driver": driver})
        number = None if driver == "Operator" else 2
        eventually(partial(has_number, worker, number), f"{driver}: the number")
        eventually(partial(has_autoscaler, worker, driver == "HPA"), f"{driver}: the autoscaler")
        always(lambda: worker.replicas == 2 and worker.pod_names == pods, "the same pods", seconds=1)
    database.open_gate(1)
    database.finish(results)

    assert database.statuses(results) == ["SUCCESSFUL"] * 2
    assert {result.worker_ids[0] for result in results} == pods
    worker.scales_to(0)


def test_another_autoscaler_on_the_deployment_is_named_and_not_fought(
    make_worker: MakeWorker, database: Database, here: Kubectl
) -> None:
    worker = make_worker(scaling={"minReplicas": 1})
    worker.scales_to(1)
    cpu = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}
    other = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "theirs"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "worker"},
            # If there are fewer, it adds some by itself, without a metric.
            "minReplicas": 2,
            "maxReplicas": 3,
            "metrics": [{"type": "Resource", "resource": cpu}],
        },
    }
    with deployment_writes(here) as writes:
        here("create", "-f-", manifest=other)
        message = worker.becomes("ScalingActive", "False", "ScalingConflict")
        assert message.startswith("HorizontalPodAutoscaler theirs scales the Deployment too.")
        assert worker.warns("ScalingConflict") == message
        worker.scales_to(2)
        always(lambda: worker.replicas == 2, "the autoscaler's number", seconds=TWO_LOOKS_SECONDS)
        assert [replicas for _, replicas in writes()] == [1, 2]
    here("delete", "hpa", "theirs")
    worker.becomes("ScalingActive", "True")
    worker.scales_to(1)
