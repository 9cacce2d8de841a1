"""New versions: migrated first, and rolled out without a gap or a loss of working pods."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tests.e2e.conftest import SPEC, put_secret
from tests.e2e.harness import eventually
from tests.e2e.postgres import chores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Kubectl
    from tests.e2e.harness import TaskWorker
    from tests.e2e.postgres import Database, Server

type MakeWorker = Callable[..., TaskWorker]

BEFORE = {"policy": "BeforeRollout"}
# The same image by its full name.
NEXT = "docker.io/library/shop:dev"


def with_apps(*apps: str) -> list[dict[str, str]]:
    """The environment of a version that has more apps, and so more to migrate."""
    return [*SPEC["env"], {"name": "MORE_APPS", "value": " ".join(apps)}]


@contextmanager
def in_the_way(database: Database, table: str) -> Iterator[None]:
    """Make everybody wait who creates a table with this name."""
    with database.server.connect(database.name) as connection:
        connection.autocommit = False
        connection.execute(f"CREATE TABLE {table} (id int)")
        yield
        connection.rollback()


def jobs(worker: TaskWorker) -> list[dict[str, Any]]:
    selector = f"labelSelector=djangotasks.dev/worker={worker.name}"
    return worker.api.items(f"/apis/batch/v1/namespaces/{worker.namespace}/jobs?{selector}")


def a_migration_runs(worker: TaskWorker) -> str:
    """Wait until the container of a migration runs; return the Job's name."""

    def running() -> str:
        selector = f"labelSelector=djangotasks.dev/migration-of={worker.name}"
        for pod in worker.api.items(f"/api/v1/namespaces/{worker.namespace}/pods?{selector}"):
            for status in pod["status"].get("containerStatuses", ()):
                if "running" in status["state"]:
                    return str(pod["metadata"]["ownerReferences"][0]["name"])
        return ""

    return eventually(running, "a migration runs")


def indexes(database: Database) -> set[str]:
    """The names of the indexes that the database has."""
    with database.server.connect(database.name) as connection:
        found = connection.execute("SELECT indexname FROM pg_indexes")
        return {name for (name,) in found}


def images(worker: TaskWorker) -> set[str]:
    return {container["image"] for pod in worker.pods for container in pod["spec"]["containers"]}


def test_no_pod_of_a_new_version_starts_before_its_migration(
    make_worker: MakeWorker, server: Server, here: Kubectl
) -> None:
    with server.database(migrated=False) as database:
        put_secret(here, "database", DATABASE_URL=database.url)
        with in_the_way(database, "django_migrations"):
            worker = make_worker(migrations=BEFORE, scaling={"minReplicas": 1, "maxReplicas": 2})
            first = a_migration_runs(worker)
            assert first in worker.becomes("Reconciling", "True", "Migrating")
            assert worker.deployment is None
        worker.scales_to(1)
        worker.becomes("Ready", "True")
        old = worker.pod_names
        with in_the_way(database, "django_content_type"):
            worker.patch(image=NEXT, env=with_apps("django.contrib.contenttypes"))
            second = a_migration_runs(worker)
            # The pods of the version before work and scale meanwhile.
            database.close_gate(1)
            results = database.enqueue(chores.wait_at, 1, times=2)
            worker.scales_to(2)
            eventually(lambda: database.statuses(results) == ["RUNNING"] * 2, "both tasks run")
            assert old <= worker.pod_names
            assert images(worker) == {"shop:dev"}
            database.open_gate(1)
            database.finish(results)
        eventually(lambda: images(worker) == {NEXT}, "the new version runs")
        worker.becomes("Ready", "True")
        worker.becomes("Reconciling", "False")

        (job,) = jobs(worker)
        assert job["metadata"]["name"] == second != first, "the Job before went when it was superseded"
        assert len(worker.tells("MigrationStarted", times=2)) == 2
        database.finish(database.enqueue(chores.add, 1, 2))
        here("delete", "djtw", "--all")


def test_a_failing_migration_keeps_the_old_pods_at_work_and_says_why(
    make_worker: MakeWorker, database: Database
) -> None:
    managed = {**SPEC["database"], "setup": "Managed"}
    worker = make_worker(migrations=BEFORE, database=managed, scaling={"minReplicas": 1})
    worker.scales_to(1)
    assert indexes(database) >= {"django_task_claims_idx", "django_task_operator_idx"}
    old = worker.pod_names
    # What the new version's migration wants to create.
    database.execute("CREATE TABLE django_content_type (id int)")
    worker.patch(env=with_apps("django.contrib.contenttypes"))
    message = worker.becomes("Stalled", "True", "MigrationFailed")

    (job,) = jobs(worker)
    assert f"Job {job['metadata']['name']} failed to migrate the database (exit code 1)" in message
    assert 'relation "django_content_type" already exists' in message
    assert "those of the previous version keep working" in message
    assert worker.warns("MigrationFailed")
    assert worker.becomes("Ready", "False", "MigrationFailed").startswith("1 of 1 replicas are ready. ")
    database.close_gate(1)
    results = database.enqueue(chores.wait_at, 1, times=2)
    eventually(lambda: database.statuses(results) == ["RUNNING"] * 2, "the old pods work and scale")
    assert old <= worker.pod_names
    database.open_gate(1)
    database.finish(results)

    # One edit goes back to it, with the existing pods and without another Job.
    worker.patch(env=SPEC["env"])
    worker.becomes("Stalled", "False")
    worker.scales_to(1)
    worker.becomes("Ready", "True")
    assert jobs(worker) == []
    database.execute("DROP TABLE django_content_type")
    before = worker.pod_names
    worker.patch(env=with_apps("django.contrib.contenttypes"))
    eventually(lambda: worker.pods and not worker.pod_names & before, "the mended version runs")


def test_a_rollout_lets_tasks_finish(make_worker: MakeWorker, database: Database) -> None:
    worker = make_worker(scaling={"minReplicas": 1}, terminationGracePeriodSeconds=120)
    worker.scales_to(1)
    (pod,) = worker.pod_names
    database.close_gate(1)
    (long,) = database.enqueue(chores.wait_at, 1)
    eventually(lambda: database.statuses([long]) == ["RUNNING"], "the task runs")
    worker.patch(image=NEXT)
    eventually(lambda: images(worker) == {NEXT}, "only the new version is not about to go")
    (other,) = database.finish(database.enqueue(chores.add, 1, 2))
    assert database.statuses([long]) == ["RUNNING"]
    database.open_gate(1)
    database.finish([long])

    assert (long.status, long.worker_ids) == ("SUCCESSFUL", [pod])
    assert set(other.worker_ids) <= worker.pod_names


def test_a_bad_image_takes_no_good_pod_down_and_going_back_is_one_edit(
    make_worker: MakeWorker, database: Database
) -> None:
    worker = make_worker(scaling={"minReplicas": 2})
    worker.scales_to(2)
    good = worker.pod_names
    worker.patch(image="shop:typo", imagePullPolicy="Never")
    message = worker.becomes("Stalled", "True", "ImagePullFailed")
    assert "shop:typo" in message
    assert worker.warns("ImagePullFailed") == message
    ready = worker.becomes("Ready", "False", "ImagePullFailed")
    assert ready == f"2 of 2 replicas are ready. {message}"
    assert good < worker.pod_names
    (result,) = database.finish(database.enqueue(chores.add, 1, 2))
    assert set(result.worker_ids) <= good

    worker.patch(image=SPEC["image"], imagePullPolicy="IfNotPresent")
    worker.becomes("Stalled", "False")
    eventually(lambda: worker.pod_names == good, "the good pods, and no other")
    worker.becomes("Ready", "True")
