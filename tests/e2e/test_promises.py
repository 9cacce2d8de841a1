"""What django-prodserver's page on Django Tasks promises, with a test for each promise.

The image contains nothing of this project, only what that page installs, with the packages' real names.
"""

from __future__ import annotations

import importlib
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest
from tests.e2e.conftest import SPEC, put_secret
from tests.e2e.harness import TaskWorker, always, eventually
from tests.e2e.postgres import chores

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from django.tasks import TaskResult
    from tests.conftest import Kubectl
    from tests.e2e.harness import Api
    from tests.e2e.postgres import Database, Server
    from tests.e2e.release import Release

# Tasks are named by their modules, which must be the same here as in the image.
sys.path.append(str(Path(__file__).parent / "plain"))
bakery = importlib.import_module("bakery.tasks")

HEALTH_PORT = 8090
LAUNCHER = "/django-db-worker/django_db_worker"


class Run(Protocol):
    def __call__(self, name: str = "worker", **spec: Any) -> TaskWorker: ...


@pytest.fixture
def run(operator: Release, here: Kubectl, api: Api, namespace: str) -> Run:
    """Create a DjangoTaskWorker with one pod, and only the fields that the promise needs."""

    def make(name: str = "worker", **spec: Any) -> TaskWorker:
        manifest = {
            "apiVersion": "djangotasks.dev/v1alpha1",
            "kind": "DjangoTaskWorker",
            "metadata": {"name": name},
            "spec": {
                "image": "plain:dev",
                "database": {"urlSecretRef": {"name": "database"}},
                "scaling": {"minReplicas": 1, "maxReplicas": 1, "pollIntervalSeconds": 0.5},
                **spec,
            },
        }
        here("create", "--filename=-", manifest=manifest)
        return TaskWorker(here, api, namespace, name)

    return make


def only_pod(worker: TaskWorker) -> str:
    (name,) = worker.pod_names
    return name


def ready_pod(worker: TaskWorker) -> str:
    worker.scales_to(1)
    return only_pod(worker)


def get(here: Kubectl, pod: str, page: str) -> str:
    """Return the pod's answer to a probe or a scrape; the test fails if it is an error."""
    return here("get", "--raw", page_of(here, pod, page))


def page_of(here: Kubectl, pod: str, page: str) -> str:
    return f"/api/v1/namespaces/{here.namespace}/pods/{pod}:{HEALTH_PORT}/proxy/{page}"


@contextmanager
def shut(database: Database) -> Iterator[None]:
    """Refuse all connections to the database until the end of the block."""
    allow = f"ALTER DATABASE {database.name} WITH ALLOW_CONNECTIONS"
    database.server.execute(f"{allow} false")
    try:
        database.server.execute(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database.name}'"
        )
        yield
    finally:
        database.server.execute(f"{allow} true")


def running_pod(worker: TaskWorker) -> str:
    """The only pod, after its container has started; before that None."""
    for pod in worker.pods:
        for status in pod["status"].get("containerStatuses", ()):
            if status.get("started"):
                return str(pod["metadata"]["name"])
    return ""


def is_ready(worker: TaskWorker) -> bool:
    return any(status["ready"] for pod in worker.pods for status in pod["status"]["containerStatuses"])


def slots(results: Iterable[TaskResult[..., Any]]) -> list[str]:
    return sorted(result.worker_ids[0] for result in results)


def starts(results: Iterable[TaskResult[..., Any]]) -> list[datetime]:
    return [result.started_at for result in results if result.started_at]


def test_two_processes_of_two_threads_run_four_tasks_at_a_time_in_one_pod(
    run: Run, database: Database
) -> None:
    worker = run(processes=2, threads=2)
    pod = ready_pod(worker)
    results = database.finish(database.enqueue(bakery.rise, 4, times=4))

    assert slots(results) == [f"{pod}/1.1", f"{pod}/1.2", f"{pod}/2.1", f"{pod}/2.2"]
    assert database.statuses(results) == ["SUCCESSFUL"] * 4, "none ends before all of them run"


def test_a_worker_of_production_processes_takes_its_args_as_they_are_documented(
    run: Run, database: Database
) -> None:
    worker = run(prodserver={"process": "worker"})
    pod = ready_pod(worker)
    results = database.finish(database.enqueue(bakery.rise, 4, times=4))

    assert slots(results) == [f"{pod}/{process}.1" for process in (1, 2, 3, 4)]
    assert database.statuses(results) == ["SUCCESSFUL"] * 4, "none ends before all of them run"


def test_queues_have_separate_workers(run: Run, database: Database) -> None:
    default = run("default-worker", queues=["default"], prodserver={"process": "default_worker"})
    priority = run("priority-worker", queues=["priority"], prodserver={"process": "priority_worker"})
    baked = database.enqueue(bakery.bake, 1, times=8)
    served = database.enqueue(bakery.bake, 2, queue="priority", times=8)
    database.finish(baked + served)

    assert {result.worker_ids[0].split("/")[0] for result in baked} == default.pod_names
    assert {result.worker_ids[0].split("/")[0] for result in served} == priority.pod_names


def test_a_task_goes_to_the_queue_of_its_decorator(run: Run, database: Database) -> None:
    with database.as_default():
        report = bakery.count_up.enqueue()
    other = database.enqueue(bakery.bake, 1)
    run(queues=["reports"])

    assert [result.return_value for result in database.finish([report])] == [42]
    assert database.statuses(other) == ["READY"]


def test_tasks_of_high_priority_come_first(run: Run, database: Database) -> None:
    usual = database.enqueue(bakery.bake, 1, times=5)
    urgent = database.enqueue(bakery.serve)
    run()
    database.finish(usual + urgent)

    assert starts(urgent) < [min(starts(usual))]


def test_a_result_has_what_its_task_returned_or_raised(run: Run, database: Database) -> None:
    run()
    good, bad = database.enqueue(bakery.bake, 3) + database.enqueue(bakery.burn)
    assert not good.is_finished
    database.finish([good, bad])

    assert (good.status, good.return_value) == ("SUCCESSFUL", "3 loaves")
    assert bad.status == "FAILED"
    assert bad.errors[0].exception_class is ValueError
    assert "burnt by design" in bad.errors[0].traceback


def test_the_log_is_as_talkative_as_the_settings_say(run: Run, database: Database, here: Kubectl) -> None:
    talkative = run("talkative", env=[{"name": "LOG_LEVEL", "value": "INFO"}])
    quiet = run("quiet", queues=["priority"], env=[{"name": "LOG_LEVEL", "value": "ERROR"}])
    (told,) = database.enqueue(bakery.bake, 1)
    (untold,) = database.enqueue(bakery.bake, 1, queue="priority")
    (burnt,) = database.enqueue(bakery.burn, queue="priority")
    database.finish([told, untold, burnt])

    def log_of(worker: TaskWorker) -> str:
        # A task may be done before the API server has heard that the container runs.
        return here.run("logs", only_pod(worker)).stdout

    eventually(lambda: str(told.id) in log_of(talkative), "the task is in the log")
    # Served after the other, so that a line about that would stand before this one.
    eventually(lambda: "burnt by design" in log_of(quiet), "the error is in the log")
    assert str(untold.id) not in log_of(quiet)


def test_results_expire_after_the_days_of_the_settings(run: Run, database: Database, here: Kubectl) -> None:
    pod = ready_pod(run())
    old = database.finish(database.enqueue(bakery.bake, 1, times=3))
    young = database.finish(database.enqueue(bakery.bake, 1, times=2))
    with database.server.connect(database.name) as connection:
        for results, days in ((old, 8), (young, 6)):
            connection.execute(
                "UPDATE django_tasks_database_dbtaskresult "
                "SET finished_at = finished_at - make_interval(days => %s) WHERE id = ANY(%s::uuid[])",
                [days, [result.id for result in results]],
            )

    said = here("exec", pod, "--", "python", LAUNCHER, "manage.py", "cleanup_tasks")
    assert said == "Deleted 3 results of tasks that finished more than 7 days ago.\n"
    assert database.statuses(young) == ["SUCCESSFUL", "SUCCESSFUL"]


def test_a_pod_counts_its_tasks_in_its_metrics(run: Run, database: Database, here: Kubectl) -> None:
    pod = ready_pod(run(processes=2))
    database.finish(database.enqueue(bakery.bake, 1, times=5) + database.enqueue(bakery.burn, times=2))

    told = {
        'django_db_worker_tasks_finished_total{status="SUCCESSFUL"} 5',
        'django_db_worker_tasks_finished_total{status="FAILED"} 2',
        "django_db_worker_slots 2",
    }
    # A task is counted just after its row is stored.
    eventually(lambda: told <= set(get(here, pod, "metrics").splitlines()), "all are counted")


def test_a_pod_is_ready_only_while_it_claims_and_is_never_killed_for_its_database(
    run: Run, database: Database, here: Kubectl
) -> None:
    worker = run()
    gone = ready_pod(worker)
    with shut(database):
        here("delete", "pod", gone, "--grace-period=1")
        pod = eventually(lambda: running_pod(worker), "another pod runs")
        eventually(lambda: get(here, pod, "healthz") == "ok\n", "the pod lives")
        refusal = here.refused("get", "--raw", page_of(here, pod, "readyz"))
        assert "ServiceUnavailable" in refusal
        always(lambda: not is_ready(worker), "the pod is not ready", seconds=6)
    worker.scales_to(1)
    assert get(here, pod, "readyz")
    database.finish(database.enqueue(bakery.bake, 1))

    ((status,),) = [pod["status"]["containerStatuses"] for pod in worker.pods]
    assert status["restartCount"] == 0


def test_a_pod_that_is_deleted_finishes_its_task(run: Run, database: Database, here: Kubectl) -> None:
    worker = run()
    pod = ready_pod(worker)
    (long,) = database.enqueue(bakery.rise, 2)
    eventually(lambda: database.statuses([long]) == ["RUNNING"], "the task runs")
    here("delete", "pod", pod, "--wait=false")
    # Each of the two ends when both have been started.
    (next_one,) = database.enqueue(bakery.rise, 2)
    database.finish([long, next_one])

    assert (long.status, long.worker_ids) == ("SUCCESSFUL", [pod])
    assert next_one.worker_ids != [pod]


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (
            {"managePy": ["python", "manege.py"]},
            "There is no manege.py in /app: set the path of manage.py or the working directory",
        ),
        ({"managePy": ["/usr/bin/python3", "manage.py"]}, "Django is not installed in this image"),
        (
            {"env": [{"name": "DJANGO_SETTINGS_MODULE", "value": "bakery.without_tasks"}]},
            "Add 'django_tasks_db' to INSTALLED_APPS: there is no task table without it",
        ),
        ({"backend": "oven"}, "The connection 'oven' doesn't exist"),
        ({"prodserver": {"process": "oven"}}, "invalid choice: 'oven' (choose from worker, default_worker"),
        (
            {"queues": ["cakes"]},
            "Unknown queue 'cakes': QUEUES of the task backend 'default' has 'default', 'priority', 'rep",
        ),
    ],
    ids=["no-script", "no-django", "no-app", "no-backend", "no-process", "no-queue"],
)
def test_bad_input_is_one_sentence_in_the_condition(
    run: Run, database: Database, spec: dict[str, Any], says: str
) -> None:
    worker = run(**spec)
    message = worker.becomes("Stalled", "True", "CrashLooping")

    assert says in message
    assert says in worker.warns("CrashLooping")


def test_a_database_that_is_not_migrated_is_told_by_operator_and_pod(
    run: Run, server: Server, here: Kubectl
) -> None:
    with server.database(migrated=False) as empty:
        put_secret(here, "database", DATABASE_URL=empty.url)
        worker = run()
        operators = worker.becomes("DatabaseReachable", "False", "TableMissing")
        pods = worker.becomes("Stalled", "True", "CrashLooping")
        here("delete", "djtw", "worker", "--wait=false")

    assert "Run manage.py migrate" in operators
    assert (
        "The table of django-tasks-db is missing or older than the package: run `manage.py migrate`" in pods
    )


@pytest.mark.parametrize(
    ("runtime", "manage_py"),
    [
        ("Stock", ["python", "manage.py"]),
        ("Image", ["python", "-m", "django_db_worker", "manage.py"]),
    ],
)
def test_an_image_from_the_worker_image_runs_with_other_runtimes(
    run: Run, database: Database, runtime: str, manage_py: list[str]
) -> None:
    worker = run(
        image="shop:dev",
        runtime=runtime,
        managePy=manage_py,
        podTemplate=SPEC["podTemplate"],
        env=[{"name": "SECRET_KEY", "value": "none"}, {"name": "PYTHONPATH", "value": "/project"}],
    )
    (result,) = database.finish(database.enqueue(chores.add, 1, 2))

    assert result.return_value == 3
    assert set(result.worker_ids) == worker.pod_names
