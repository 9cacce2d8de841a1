"""Mistakes of users: a condition and an event name each one, and correcting it is enough."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from tests.e2e.conftest import SPEC, put_secret
from tests.e2e.harness import always, eventually
from tests.e2e.postgres import chores

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Kubectl
    from tests.e2e.harness import TaskWorker
    from tests.e2e.postgres import Database
    from tests.e2e.release import Release

type MakeWorker = Callable[..., TaskWorker]


def other_secret(name: str) -> dict[str, object]:
    return {"urlSecretRef": {"name": name}}


def test_a_missing_secret_is_named_and_taken_up_when_it_is_made(
    make_worker: MakeWorker, database: Database, here: Kubectl
) -> None:
    results = database.enqueue(chores.add, 1, 2)
    worker = make_worker(database=other_secret("later"))
    message = worker.becomes("Stalled", "True", "SecretMissing")
    assert message.startswith(f"Secret later does not exist in namespace {worker.namespace}. Create it")
    assert worker.warns("SecretMissing") == message
    put_secret(here, "later", DATABASE_URL=database.url)

    database.finish(results)
    worker.becomes("Stalled", "False")
    worker.becomes("Ready", "True")
    worker.tells("Recovered")


@pytest.mark.parametrize(
    ("value", "reason", "says"),
    [
        ({"URL": "postgres://user:hush@host/name"}, "SecretKeyMissing", "has no key DATABASE_URL"),
        ({"DATABASE_URL": "user:hush@host"}, "InvalidURL", "does not start with postgres:// or mysql://"),
        ({"DATABASE_URL": "postgres://user:hush@host:port/name"}, "InvalidURL", "its port is no number"),
        ({"DATABASE_URL": "sqlite:////data/hush.sqlite3"}, "UnsupportedDatabase", "SQLite"),
    ],
    ids=["key", "no-url", "malformed", "sqlite"],
)
def test_a_secret_that_cannot_be_used_is_explained_and_taken_up_when_it_is_right(
    make_worker: MakeWorker,
    database: Database,
    here: Kubectl,
    operator: Release,
    value: dict[str, str],
    reason: str,
    says: str,
) -> None:
    put_secret(here, "wrong", **value)
    worker = make_worker(database=other_secret("wrong"))
    message = worker.becomes("Stalled", "True", reason)
    assert says in message
    assert worker.warns(reason) == message
    put_secret(here, "wrong", DATABASE_URL=database.url)

    worker.becomes("Stalled", "False")
    worker.becomes("Ready", "True", "ScaledToZero")
    assert "hush" not in json.dumps([worker.manifest, worker.events(reason)]) + operator.log()


def test_an_image_that_cannot_be_pulled_is_named(make_worker: MakeWorker, database: Database) -> None:
    worker = make_worker(image="localhost:1/shop:1")
    results = database.enqueue(chores.add, 1, 2)
    message = worker.becomes("Stalled", "True", "ImagePullFailed")
    assert message.startswith("The image cannot be pulled: localhost:1/shop:1")
    assert worker.warns("ImagePullFailed") == message
    worker.becomes("Ready", "False", "ImagePullFailed")
    worker.patch(image=SPEC["image"])

    database.finish(results)
    worker.becomes("Stalled", "False")


def test_a_bad_new_image_leaves_the_good_pods_at_work(make_worker: MakeWorker, database: Database) -> None:
    worker = make_worker(scaling={"minReplicas": 1})
    worker.scales_to(1)
    worker.patch(image="localhost:1/shop:1")
    worker.becomes("Stalled", "True", "ImagePullFailed")

    database.finish(database.enqueue(chores.add, 1, 2))


def test_a_crash_loop_gives_its_last_words_without_the_password(
    make_worker: MakeWorker, database: Database, operator: Release
) -> None:
    crash = {"name": "CRASH", "value": "cannot use $(DATABASE_URL), not at all"}
    worker = make_worker(env=[*SPEC["env"], crash], scaling={"minReplicas": 1})
    message = worker.becomes("Stalled", "True", "CrashLooping")

    assert "last log line: RuntimeError: cannot use ***, not at all" in message
    assert "kubectl logs" in message
    warning = worker.warns("CrashLooping")
    assert "cannot use ***, not at all" in warning
    told = json.dumps([worker.manifest, worker.events("CrashLooping")]) + operator.log()
    assert database.server.password not in told
    assert database.url not in told
    # A correction has an effect at once, not only when the kubelet's back-off is over.
    worker.patch(env=SPEC["env"])
    worker.becomes("Ready", "True")
    database.finish(database.enqueue(chores.add, 1, 2))


def test_a_password_is_hidden_where_the_last_words_are_cut_within_it(
    make_worker: MakeWorker, database: Database, operator: Release
) -> None:
    url, password = database.url, database.server.password
    padding = "x" * (300 - len("RuntimeError: ") - url.index(password) - len(password) // 2)
    crash = {"name": "CRASH", "value": f"{padding}$(DATABASE_URL)"}
    worker = make_worker(env=[*SPEC["env"], crash], scaling={"minReplicas": 1})
    worker.becomes("Stalled", "True", "CrashLooping")
    worker.warns("CrashLooping")

    told = json.dumps([worker.manifest, worker.events("CrashLooping")]) + operator.log()
    assert password[: len(password) // 4] not in told


def test_a_wrong_pod_template_is_refused_and_the_good_deployment_goes_on_scaling(
    make_worker: MakeWorker, database: Database
) -> None:
    worker = make_worker()
    worker.scales_to(0)
    worker.patch(podTemplate={"spec": {"nodeSelectorr": {"disk": "fast"}}})
    message = worker.becomes("Stalled", "True", "DeploymentRejected")
    assert "nodeSelectorr" in message
    assert worker.warns("DeploymentRejected") == message

    database.finish(database.enqueue(chores.add, 1, 2))
    worker.scales_to(0)
    worker.patch(podTemplate={"spec": {"nodeSelectorr": None}})
    worker.becomes("Stalled", "False")


def test_a_pod_that_the_namespace_forbids_is_explained_and_the_mended_one_runs(
    make_worker: MakeWorker, database: Database
) -> None:
    results = database.enqueue(chores.add, 1, 2)
    template = SPEC["podTemplate"]["spec"]
    worker = make_worker(podTemplate={"spec": {**template, "hostNetwork": True}})
    message = worker.becomes("Stalled", "True", "PodsRejected")
    assert 'violates PodSecurity "restricted:latest": host namespaces (hostNetwork=true)' in message
    assert worker.warns("PodsRejected") == message
    worker.patch(podTemplate={"spec": {"hostNetwork": None}})

    database.finish(results)
    worker.becomes("Stalled", "False")


def test_tasks_in_a_queue_that_nobody_serves_are_reported(
    make_worker: MakeWorker, database: Database
) -> None:
    database.enqueue(chores.add, 1, 2, queue="forgotten")
    worker = make_worker()
    message = worker.becomes("ScalingActive", "True", "QueueUnserved")

    assert message.startswith("Tasks wait in queue forgotten, which no DjangoTaskWorker serves.")
    assert worker.warns("QueueUnserved") == message
    # It still does what it can.
    database.finish(database.enqueue(chores.add, 1, 2))


def test_two_workers_on_one_queue_are_both_told(
    make_worker: MakeWorker, database: Database, here: Kubectl
) -> None:
    one, other = make_worker("one"), make_worker("other", queues=["more", "default"])
    for worker, neighbour in [(one, other), (other, one)]:
        message = worker.becomes("ScalingActive", "True", "QueueShared")
        assert f"Queue default is served by DjangoTaskWorker {here.namespace}/{neighbour.name} too" in message
        assert worker.warns("QueueShared") == message
    here("delete", "djtw", "other")
    one.becomes("ScalingActive", "True", "DemandMet")
    always(lambda: one.replicas == 0, "no replica without a task", seconds=1)
    eventually(lambda: other.deployment is None, "its Deployment went with it")
