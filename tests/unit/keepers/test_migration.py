"""Migrations before a rollout, against a fake API server: every state that the Job can be in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.unit.bench import URL, Bench
from tests.unit.fakes import refusal

from django_task_operator.errors import WorkerGone
from django_task_operator.keepers.migration import (
    LONGEST_WORDS,
    NEIGHBOUR_SECONDS,
    NO_PODS_SECONDS,
    last_words,
)
from django_task_operator.keepers.refusals import REFUSED_SECONDS
from django_task_operator.keepers.restorations import DELAY_SECONDS
from django_task_operator.observed.objects import Job
from django_task_operator.observed.pods import JobPod
from django_task_operator.reconcile.reconciler import LONGEST_WAIT_SECONDS
from django_task_operator.resources.migration import MIGRATE
from django_task_operator.tasktable.errors import (
    AuthenticationFailed,
    ConnectionRefused,
    DatabaseFailed,
    PermissionDenied,
    SampleTimedOut,
    TableMissing,
    TableOutdated,
    TooManyConnections,
)

if TYPE_CHECKING:
    from tests.unit.fakes import Manifest

    from django_task_operator.reconcile.reconciler import Reconciler
    from django_task_operator.tasktable import DatabaseError

BEFORE = {"policy": "BeforeRollout"}
RUNS: dict[str, Any] = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
WAITS: dict[str, Any] = {"waiting": {"reason": "PodInitializing"}}
LIMIT = "Job has reached the specified backoff limit"


@pytest.fixture
def bench() -> Bench:
    return Bench()


def jobs(bench: Bench) -> list[str]:
    return [name for kind, _, name in bench.kube._objects if kind == "jobs"]


def only_job(bench: Bench) -> str:
    (name,) = jobs(bench)
    return name


def image(bench: Bench) -> str | None:
    """The image of the Deployment's pods."""
    deployment = bench.kube.read("deployments", "shop", "emails")
    return deployment["spec"]["template"]["spec"]["containers"][0]["image"] if deployment else None


def change(bench: Bench, **spec: Any) -> None:
    bench.kube.edit("worker", "shop", "emails", {"spec": spec})


def message(bench: Bench, kind: str) -> str:
    manifest = bench.kube.read("worker", "shop", "emails")
    assert manifest
    (found,) = (each["message"] for each in manifest["status"]["conditions"] if each["type"] == kind)
    return str(found)


async def first(bench: Bench, ready: int = 42, **spec: Any) -> Reconciler:
    """A new worker that has counted its tasks."""
    bench.worker(migrations=BEFORE, **spec)
    reconciler = bench.reconciler()
    await bench.turn(reconciler)
    bench.databases.sample(ready)
    await bench.turn(reconciler)
    return reconciler


async def migrated(bench: Bench, **spec: Any) -> Reconciler:
    """A worker whose first image has been migrated and runs."""
    reconciler = await first(bench, **spec)
    bench.kube.run_job("shop", only_job(bench), complete=True)
    await bench.turn(reconciler)
    bench.kube.run_deployment("shop", "emails")
    await bench.turn(reconciler)
    await bench.turn(reconciler)
    bench.kube.requests.clear()
    bench.kube.events.clear()
    return reconciler


async def test_no_pod_starts_before_the_first_migration_is_complete(bench: Bench) -> None:
    reconciler = await first(bench)
    job = bench.kube.read("jobs", "shop", only_job(bench))
    assert job
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert (container["image"], container["command"][-2:]) == ("shop:1", ["migrate", "--noinput"])
    assert image(bench) is None
    assert bench.condition("Reconciling") == "True Migrating"
    assert bench.condition("Stalled") == "False NotStalled"

    bench.kube.run_job("shop", only_job(bench), **RUNS)
    await bench.turn(reconciler)
    assert image(bench) is None

    bench.kube.run_job("shop", only_job(bench), complete=True)
    await bench.turn(reconciler)
    assert (image(bench), bench.replicas()) == ("shop:1", 5), "in one write"
    assert [told.split(":")[0] for told in bench.told()] == ["MigrationStarted", "ScaledUp"]


async def test_the_task_table_is_set_up_once_it_is_asked_for(bench: Bench) -> None:
    reconciler = await migrated(bench)
    before = bench.kube.read("deployments", "shop", "emails")
    assert before
    change(bench, database={"urlSecretRef": {"name": "shop-db"}, "setup": "Managed"})
    await bench.turn(reconciler)
    job = bench.kube.read("jobs", "shop", only_job(bench))
    assert job
    pod = job["spec"]["template"]["spec"]
    assert [each["command"][-2:] for each in pod["initContainers"]][-1] == ["migrate", "--noinput"]
    assert [each["command"][-1] for each in pod["containers"]] == ["db_worker_setup"]

    bench.kube.run_job("shop", only_job(bench), complete=True)
    for _ in range(2):
        await bench.turn(reconciler)
    after = bench.kube.read("deployments", "shop", "emails")
    assert after
    assert after["spec"]["template"] == before["spec"]["template"], "no pod is replaced for it"


async def test_a_migrated_worker_makes_no_request(bench: Bench) -> None:
    reconciler = await migrated(bench)

    for _ in range(5):
        bench.databases.sample(42)
        assert await bench.turn(reconciler) == LONGEST_WAIT_SECONDS
    assert bench.kube.requests == []


async def test_while_it_migrates_nothing_is_asked_and_the_old_pods_scale(bench: Bench) -> None:
    reconciler = await migrated(bench)
    change(bench, image="shop:2", cleanup={"schedule": "@daily"})
    await bench.turn(reconciler)
    name = next(name for name in jobs(bench) if bench.kube.read("jobs", "shop", name))
    bench.kube.run_job("shop", name, **RUNS)
    await bench.turn(reconciler)
    bench.kube.requests.clear()
    await bench.turn(reconciler)
    assert bench.kube.requests == []

    bench.databases.sample(80)
    await bench.turn(reconciler)
    assert (image(bench), bench.replicas()) == ("shop:1", 8)
    assert bench.kube.read("cronjobs", "shop", "emails-cleanup") is None, "it would run the new image"
    assert bench.condition("Ready") == "True ReplicasReady"

    bench.kube.run_job("shop", only_job(bench), complete=True)
    await bench.turn(reconciler)
    assert image(bench) == "shop:2"
    assert bench.kube.read("cronjobs", "shop", "emails-cleanup")


async def test_a_failed_migration_keeps_the_old_pods_and_says_why(bench: Bench) -> None:
    reconciler = await migrated(bench)
    change(bench, image="shop:2")
    await bench.turn(reconciler)
    words = f"Applying orders.0007...\nconnecting to {URL}\nProgrammingError: no column colour\n"
    bench.kube.run_job("shop", only_job(bench), attempts=1, words=words, **RUNS)
    await bench.turn(reconciler)
    assert bench.condition("Reconciling") == "True Migrating"
    assert "1 attempt failed: exit code 1." in message(bench, "Reconciling")

    bench.kube.run_job("shop", only_job(bench), attempts=3, words=words, failed=LIMIT)
    bench.databases.sample(80)
    await bench.turn(reconciler)
    assert (image(bench), bench.replicas()) == ("shop:1", 8)
    assert bench.condition("Stalled") == "True MigrationFailed"
    said = message(bench, "Stalled")
    assert only_job(bench) in said
    assert "(exit code 1)" in said
    assert "those of the previous version keep working" in said
    assert said.endswith("Applying orders.0007... | connecting to *** | ProgrammingError: no column colour")
    assert message(bench, "Ready") == f"5 of 8 replicas are ready. {said}"
    assert said in [told.partition(": ")[2] for told in bench.told()]


async def test_going_back_is_one_edit_and_needs_no_job(bench: Bench) -> None:
    reconciler = await migrated(bench)
    change(bench, image="shop:2")
    await bench.turn(reconciler)
    bench.kube.run_job("shop", only_job(bench), attempts=3, failed=LIMIT)
    await bench.turn(reconciler)

    change(bench, image="shop:1")
    await bench.turn(reconciler)
    assert bench.condition("Stalled") == "False NotStalled"
    assert image(bench) == "shop:1"
    assert jobs(bench) == []
    bench.kube.requests.clear()
    await bench.turn(reconciler)
    assert bench.kube.requests == []


async def test_a_new_image_after_a_failure_is_another_migration(bench: Bench) -> None:
    reconciler = await migrated(bench)
    change(bench, image="shop:2")
    await bench.turn(reconciler)
    failed = only_job(bench)
    bench.kube.run_job("shop", failed, attempts=3, failed=LIMIT)
    await bench.turn(reconciler)

    change(bench, image="shop:3")
    await bench.turn(reconciler)
    assert only_job(bench) != failed
    assert bench.condition("Stalled") == "False NotStalled"
    bench.kube.run_job("shop", only_job(bench), complete=True)
    await bench.turn(reconciler)
    assert image(bench) == "shop:3"


async def test_a_failed_job_that_is_deleted_is_tried_again(bench: Bench) -> None:
    reconciler = await first(bench)
    name = only_job(bench)
    bench.kube.run_job("shop", name, attempts=3, failed=LIMIT)
    await bench.turn(reconciler)
    assert bench.condition("Stalled") == "True MigrationFailed"
    assert "previous version" not in message(bench, "Stalled")

    bench.kube.delete("jobs", "shop", name)
    await bench.turn(reconciler)
    assert only_job(bench) == name
    assert bench.condition("Reconciling") == "True Migrating"
    bench.kube.run_job("shop", name, complete=True)
    await bench.turn(reconciler)
    assert image(bench) == "shop:1"


async def test_a_deadline_says_so_where_there_are_no_last_words(bench: Bench) -> None:
    reconciler = await first(bench)
    bench.kube.run_job("shop", only_job(bench), failed="Job was active longer than specified deadline")
    await bench.turn(reconciler)

    assert "(Job was active longer than specified deadline)" in message(bench, "Stalled")


@pytest.mark.parametrize("state", ["new", "runs", "failed", "complete", "rolled out"])
async def test_an_operator_that_starts_anew_goes_on_where_it_is(bench: Bench, state: str) -> None:
    reconciler = await migrated(bench)
    change(bench, image="shop:2")
    await bench.turn(reconciler)
    name = only_job(bench)
    if state == "runs":
        bench.kube.run_job("shop", name, **RUNS)
    elif state == "failed":
        bench.kube.run_job("shop", name, attempts=3, failed=LIMIT)
    elif state in {"complete", "rolled out"}:
        bench.kube.run_job("shop", name, complete=True)
    if state == "rolled out":
        await bench.turn(reconciler)
    uid = bench.kube.read("jobs", "shop", name)["metadata"]["uid"]  # type: ignore[index]

    bench.restart(bench.clock)
    bench.kube.events.clear()
    reconciler = bench.reconciler()
    await bench.turn(reconciler)
    bench.databases.sample(42)
    await bench.turn(reconciler)

    assert bench.kube.read("jobs", "shop", name)["metadata"]["uid"] == uid  # type: ignore[index]
    assert image(bench) == ("shop:2" if state in {"complete", "rolled out"} else "shop:1")
    assert bench.condition("Stalled").startswith("True" if state == "failed" else "False")
    assert "MigrationStarted" not in [told.split(":")[0] for told in bench.told()]


async def test_a_pod_that_cannot_start_is_said_at_once(bench: Bench) -> None:
    reconciler = await migrated(bench)
    change(bench, image="shop:typo")
    await bench.turn(reconciler)
    waiting: dict[str, Any] = {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}
    bench.kube.run_job("shop", only_job(bench), **waiting)
    await bench.turn(reconciler)
    assert bench.condition("Stalled") == "True ImagePullFailed"
    assert image(bench) == "shop:1"
    stuck = only_job(bench)

    change(bench, image="shop:2")
    await bench.turn(reconciler)
    assert only_job(bench) != stuck, "one that never ran stands in nobody's way"
    assert bench.condition("Stalled") == "False NotStalled"


async def test_a_pod_that_no_node_takes_is_said(bench: Bench) -> None:
    reconciler = await migrated(bench)
    change(bench, image="shop:2")
    await bench.turn(reconciler)
    full = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no memory."}
    name = only_job(bench)
    bench.kube.run_job("shop", name, waiting={"reason": "ContainerCreating"})
    (pod,) = [place[2] for place in bench.kube._objects if place[0] == "pods"]
    bench.kube.edit("pods", "shop", pod, {"status": {"conditions": [full]}})
    await bench.turn(reconciler)

    assert bench.condition("Reconciling") == "True Migrating"
    assert message(bench, "Reconciling").endswith("Its pod cannot start: no memory.")


QUOTA = 'pods "emails-migrate" is forbidden: exceeded quota: team, requested: pods=1'


async def refuse_pods(bench: Bench, note: str, at: int = 0) -> None:
    """Post what the Job's controller posts when its pod is refused."""
    job = bench.kube.read("jobs", "shop", only_job(bench))
    assert job
    about = {"kind": "Job", "name": only_job(bench), "uid": job["metadata"]["uid"], "namespace": "shop"}
    await bench.kube.create_event(
        "shop",
        {
            "metadata": {"namespace": "shop"},
            "reason": "FailedCreate",
            "note": f"Error creating: {note}",
            "regarding": about,
            "deprecatedLastTimestamp": f"2026-01-01T00:00:{at:02}Z",
        },
    )


async def test_whoever_refuses_its_pods_is_quoted(bench: Bench) -> None:
    reconciler = await migrated(bench)
    change(bench, image="shop:2")
    await bench.turn(reconciler)
    assert await bench.turn(reconciler) <= NO_PODS_SECONDS
    assert bench.condition("Stalled") == "False NotStalled"
    await refuse_pods(bench, QUOTA, at=7)
    await refuse_pods(bench, "an older one", at=3)
    bench.clock.advance(NO_PODS_SECONDS)
    await bench.turn(reconciler)

    see = "See spec.resources, spec.podTemplate and the namespace's quotas."
    said = f"Pods cannot be created: {QUOTA}. {see}"
    assert bench.condition("Stalled") == "True PodsRejected"
    assert message(bench, "Stalled") == said
    assert message(bench, "Ready") == f"5 of 5 replicas are ready. {said}"
    assert bench.condition("Reconciling") == "True Migrating"
    assert f"PodsRejected: {said}" in bench.told()
    assert (image(bench), bench.replicas()) == ("shop:1", 5)

    bench.kube.run_job("shop", only_job(bench), **RUNS)
    await bench.turn(reconciler)
    assert bench.condition("Stalled") == "False NotStalled"
    bench.kube.run_job("shop", only_job(bench), complete=True)
    await bench.turn(reconciler)
    assert image(bench) == "shop:2"


async def test_the_same_refusal_of_another_pod_is_no_news(bench: Bench) -> None:
    reconciler = await first(bench)
    said = f'pods "{only_job(bench)}" is forbidden: exceeded quota: team'
    for attempt, suffix in enumerate(("x7k2p", "b9zqw", "44444")):
        await refuse_pods(bench, said.replace('" is', f'-{suffix}" is'), at=attempt)
        bench.clock.advance(NO_PODS_SECONDS)
        bench.kube.requests.clear()
        await bench.turn(reconciler)
        assert said in message(bench, "Stalled")
    assert "apply status" not in bench.kube.requests
    assert sum(told.startswith("PodsRejected") for told in bench.told()) == 1


async def test_who_refuses_the_pods_of_a_migration_is_rarely_asked_for(bench: Bench) -> None:
    reconciler = await first(bench)
    await refuse_pods(bench, QUOTA)
    bench.kube.requests.clear()
    for second in range(60):
        bench.databases.sample(second % 40)
        await bench.turn(reconciler)
        bench.clock.advance(1.0)
    assert bench.condition("Stalled") == "True PodsRejected"
    assert 2 <= bench.kube.requests.count("list events") <= 60 / NO_PODS_SECONDS + 1


async def test_a_refusal_of_the_pods_of_the_version_before_is_none_of_this_one(bench: Bench) -> None:
    reconciler = await first(bench)
    await refuse_pods(bench, QUOTA)
    bench.clock.advance(NO_PODS_SECONDS)
    await bench.turn(reconciler)
    assert bench.condition("Stalled") == "True PodsRejected"
    refused = only_job(bench)

    change(bench, image="shop:2")
    await bench.turn(reconciler)
    await bench.turn(reconciler)
    assert only_job(bench) != refused
    assert bench.condition("Stalled") == "False NotStalled"


async def test_a_deadline_that_passed_without_a_pod_says_who_refused_it(bench: Bench) -> None:
    reconciler = await first(bench)
    await refuse_pods(bench, f"{QUOTA} for {URL}")
    bench.clock.advance(NO_PODS_SECONDS)
    await bench.turn(reconciler)
    assert "***" in message(bench, "Stalled")
    bench.kube.run_job("shop", only_job(bench), failed="Job was active longer than specified deadline")
    await bench.turn(reconciler)

    assert bench.condition("Stalled") == "True MigrationFailed"
    assert message(bench, "Stalled").endswith(f"Its pods could not be created: {QUOTA} for ***")


@pytest.mark.parametrize("answer", [refusal(403), refusal(500), TimeoutError()])
async def test_without_events_the_migration_goes_on(bench: Bench, answer: BaseException) -> None:
    reconciler = await first(bench)
    bench.clock.advance(NO_PODS_SECONDS)
    bench.kube.refuse["list events"] = [answer]
    await bench.turn(reconciler)
    assert bench.kube.refuse["list events"] == []
    assert bench.condition("Reconciling") == "True Migrating"
    bench.kube.run_job("shop", only_job(bench), complete=True)
    await bench.turn(reconciler)
    assert image(bench) == "shop:1"


async def test_a_job_that_is_deleted_again_and_again_keeps_the_pods_waiting(bench: Bench) -> None:
    reconciler = await first(bench)
    for _ in range(2):
        bench.kube.delete("jobs", "shop", only_job(bench))
        delay = await bench.turn(reconciler)
    assert 0 < delay <= DELAY_SECONDS[0]
    assert jobs(bench) == []
    assert image(bench) is None, "nothing has been migrated"
    assert "someone deletes again and again" in message(bench, "Reconciling")
    bench.clock.advance(delay)
    await bench.turn(reconciler)
    assert only_job(bench)


async def test_a_migration_at_work_is_never_killed_for_the_next_one(bench: Bench) -> None:
    reconciler = await migrated(bench)
    change(bench, image="shop:2")
    await bench.turn(reconciler)
    name = only_job(bench)
    bench.kube.run_job("shop", name, **RUNS)
    change(bench, image="shop:3")
    await bench.turn(reconciler)
    assert only_job(bench) == name
    assert "previous version's migration to finish" in message(bench, "Reconciling")

    bench.kube.run_job("shop", name, complete=True)
    await bench.turn(reconciler)
    assert only_job(bench) != name
    assert image(bench) == "shop:1", "what is migrated is not what is wanted"


def ended(code: int, words: str = "") -> Manifest:
    return {"exitCode": code, "message": words, "finishedAt": "2026-01-01T00:00:00Z"}


async def test_a_container_that_a_webhook_put_beside_it_does_not_keep_it_from_being_complete(
    bench: Bench,
) -> None:
    reconciler = await first(bench)
    job = only_job(bench)
    bench.kube.run_job("shop", job, injected=True, **RUNS)
    await bench.turn(reconciler)
    assert image(bench) is None
    bench.kube.run_job("shop", job, injected=True, terminated=ended(0))
    await bench.turn(reconciler)
    assert image(bench) == "shop:1"
    assert jobs(bench) == [job], "before it is known on the Deployment what was migrated"

    await bench.turn(reconciler)
    assert jobs(bench) == [], "its pod would stay until the deadline"
    await bench.turn(reconciler)
    assert (image(bench), jobs(bench)) == ("shop:1", [])


async def test_a_failure_beside_such_a_container_is_said_at_once_and_its_log_stays(bench: Bench) -> None:
    reconciler = await first(bench)
    bench.kube.run_job("shop", only_job(bench), injected=True, terminated=ended(1, "no such column"))
    for _ in range(2):
        await bench.turn(reconciler)
        assert image(bench) is None
        assert bench.condition("Stalled") == "True MigrationFailed"
        assert "exit code 1" in message(bench, "Stalled")
        assert "no such column" in message(bench, "Stalled")
        assert len(jobs(bench)) == 1
    # And the next version does not have to wait for it.
    change(bench, image="shop:2")
    await bench.turn(reconciler)
    await bench.turn(reconciler)
    bench.kube.run_job("shop", only_job(bench), complete=True)
    await bench.turn(reconciler)
    assert image(bench) == "shop:2"


async def test_a_neighbour_does_not_wait_for_such_a_container(bench: Bench) -> None:
    await first(bench)
    bench.kube.run_job("shop", only_job(bench), injected=True, terminated=ended(1))
    bench.worker("reports", migrations=BEFORE)
    neighbour = bench.reconciler("reports")
    await bench.turn(neighbour, "reports")
    bench.databases.sample(42)
    await bench.turn(neighbour, "reports")
    assert len(jobs(bench)) == 2


async def test_workers_of_one_database_take_turns(bench: Bench) -> None:
    emails = await first(bench)
    bench.worker("mails", migrations=BEFORE)
    mails = bench.reconciler("mails")
    await bench.turn(mails, "mails")
    bench.databases.sample(42)
    assert await bench.turn(mails, "mails") <= NEIGHBOUR_SECONDS
    mine = only_job(bench)
    assert mine.startswith("emails-migrate-")
    assert bench.condition("Reconciling", "mails") == "True Migrating"

    bench.kube.run_job("shop", mine, **RUNS)
    await bench.turn(mails, "mails")
    assert only_job(bench) == mine
    bench.kube.run_job("shop", mine, complete=True)
    await bench.turn(mails, "mails")
    (theirs,) = set(jobs(bench)) - {mine}
    assert theirs.startswith("mails-migrate-")
    await bench.turn(emails)
    assert image(bench) == "shop:1"


async def test_a_neighbour_whose_pod_cannot_start_is_not_waited_for(bench: Bench) -> None:
    await first(bench)
    waiting: dict[str, Any] = {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}
    bench.kube.run_job("shop", only_job(bench), **waiting)
    bench.worker("mails", migrations=BEFORE)
    mails = bench.reconciler("mails")
    await bench.turn(mails, "mails")
    bench.databases.sample(42)
    await bench.turn(mails, "mails")

    assert len(jobs(bench)) == 2


async def test_a_database_that_is_away_is_waited_for(bench: Bench) -> None:
    bench.worker(migrations=BEFORE)
    reconciler = bench.reconciler()
    await bench.turn(reconciler)
    bench.databases.fail(ConnectionRefused())
    await bench.turn(reconciler)
    assert jobs(bench) == []

    bench.databases.fail(TableMissing())
    await bench.turn(reconciler)
    assert only_job(bench)
    assert bench.condition("Stalled") == "False NotStalled"
    bench.databases.sample(42)
    bench.kube.run_job("shop", only_job(bench), complete=True)
    await bench.turn(reconciler)
    assert (image(bench), bench.replicas()) == ("shop:1", 5)


@pytest.mark.parametrize(
    ("error", "starts"),
    [
        (None, True),
        # It answers, and a migration fixes this.
        (TableMissing(), True),
        (TableOutdated(), True),
        # It answers, and no migration mends that; but none needs what the count of the tasks lacks.
        (PermissionDenied(), True),
        (SampleTimedOut(seconds=10), True),
        # It is unknown whether a migration would succeed.
        (ConnectionRefused(), False),
        (AuthenticationFailed(), False),
        (TooManyConnections(), False),
        (DatabaseFailed(code="XX000"), False),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_a_migration_starts_where_the_database_answers(
    bench: Bench, error: DatabaseError | None, starts: bool
) -> None:
    reconciler = await migrated(bench)
    change(bench, image="shop:2")
    if error:
        bench.databases.fail(error)
    await bench.turn(reconciler)

    assert any(request == "apply job" for request in bench.kube.requests) == starts
    assert image(bench) == "shop:1"
    waits = message(bench, "Reconciling").startswith("Waiting until the database answers")
    assert waits == (not starts)


async def test_what_only_says_how_tasks_run_rolls_without_a_job(bench: Bench) -> None:
    reconciler = await migrated(bench)
    change(bench, queues=["emails"])
    bench.databases.sample(42)
    await bench.turn(reconciler)
    bench.databases.sample(42)
    await bench.turn(reconciler)

    deployment = bench.kube.read("deployments", "shop", "emails")
    assert deployment
    command = deployment["spec"]["template"]["spec"]["containers"][0]["command"]
    assert "--queue-name=emails" in command
    assert bench.kube.requests.count("apply job") == 0


async def test_never_rolls_at_once_and_leaves_no_job(bench: Bench) -> None:
    reconciler = await migrated(bench)
    change(bench, image="shop:2", migrations={"policy": "Never"})
    await bench.turn(reconciler)

    assert image(bench) == "shop:2"
    assert jobs(bench) == []
    deployment = bench.kube.read("deployments", "shop", "emails")
    assert deployment
    assert "djangotasks.dev/migrated" not in deployment["metadata"].get("annotations", {})


async def test_a_job_of_somebody_else_is_left_alone(bench: Bench) -> None:
    await first(bench)
    name = only_job(bench)
    other = Bench()
    theirs = other.kube.create("jobs", {"metadata": {"name": name, "namespace": "shop"}, "spec": {}})
    await first(other)

    assert other.kube.read("jobs", "shop", name) == theirs
    assert other.condition("Stalled") == "True ObjectNameTaken"


@pytest.mark.parametrize(("status", "condition"), [(403, "Stalled"), (503, "Reconciling")])
async def test_a_job_that_is_refused_is_said_and_tried_again(
    bench: Bench, status: int, condition: str
) -> None:
    bench.kube.refuse["apply job"] = [refusal(status, "exceeded quota")]
    reconciler = await first(bench)
    assert bench.condition(condition).startswith("True")
    assert "exceeded quota" in message(bench, condition)

    bench.clock.advance(REFUSED_SECONDS)
    await bench.turn(reconciler)
    assert only_job(bench)


async def test_nothing_is_migrated_for_a_worker_that_is_gone(bench: Bench) -> None:
    bench.worker(migrations=BEFORE)
    reconciler = bench.reconciler()
    manifest = bench.kube.read("worker", "shop", "emails")
    assert manifest
    await reconciler.turn(manifest)
    bench.databases.sample(42)
    bench.kube.delete("worker", "shop", "emails")

    with pytest.raises(WorkerGone):
        await reconciler.turn(manifest)
    assert jobs(bench) == []


def test_last_words_are_whole_lines_without_secrets() -> None:
    def redact(text: str) -> str:
        return text.replace("hush", "***")

    assert last_words("one\n\n  two hush\n", redact) == "one | two ***"
    assert last_words("", redact) == ""
    long = last_words("\n".join(f"line {number} " + "x" * 50 for number in range(40)), redact)
    assert long.endswith("x" * 50)
    assert long.startswith("line ")
    assert len(long) <= LONGEST_WORDS
    # The kubelet may have cut a password in two.
    assert last_words("ush" + "x" * 2045 + "\nthe end", redact) == "the end"


def manifest_of_pod(phase: str, *statuses: Manifest, **status: Any) -> Manifest:
    owner = {"kind": "Job", "name": "j", "uid": "j-1", "controller": True}
    metadata = {"name": "j-x", "creationTimestamp": "2026-01-01T00:00:00Z", "ownerReferences": [owner]}
    return {"metadata": metadata, "status": {"phase": phase, "containerStatuses": list(statuses), **status}}


def container(state: Manifest, name: str = "worker") -> Manifest:
    return {"name": name, "image": "shop:1", "state": state}


def with_init(phase: str, init: Manifest, own: Manifest) -> Manifest:
    return manifest_of_pod(phase, own, initContainerStatuses=[init])


@pytest.mark.parametrize(
    ("pod", "running", "failure"),
    [
        (manifest_of_pod("Pending"), False, None),
        (manifest_of_pod("Running", container(RUNS)), True, None),
        (manifest_of_pod("Pending", container(RUNS, "proxy")), False, None),
        (manifest_of_pod("Succeeded", container({"terminated": {"exitCode": 0}})), False, None),
        (manifest_of_pod("Failed", container({"terminated": {"exitCode": 1}})), False, "exit code 1"),
        (
            manifest_of_pod("Failed", container({"terminated": {"exitCode": 137, "reason": "OOMKilled"}})),
            False,
            "killed for using too much memory",
        ),
        (manifest_of_pod("Failed", message="Node is lost"), False, "Node is lost"),
        # `migrate` before another command.
        (with_init("Pending", container(RUNS, MIGRATE), container(WAITS)), True, None),
        (
            with_init("Pending", container({"terminated": ended(0)}, MIGRATE), container(RUNS)),
            True,
            None,
        ),
        (
            with_init("Failed", container({"terminated": ended(1)}, MIGRATE), container(WAITS)),
            False,
            "exit code 1",
        ),
        (
            with_init(
                "Failed", container({"terminated": ended(0)}, MIGRATE), container({"terminated": ended(1)})
            ),
            False,
            "db_worker_setup: exit code 1",
        ),
        # A sidecar is ended after the command.
        (
            with_init(
                "Failed", container({"terminated": ended(143)}, "proxy"), container({"terminated": ended(1)})
            ),
            False,
            "exit code 1",
        ),
        # What ends last is not ours.
        (
            manifest_of_pod("Running", container(RUNS, "mesh"), container({"terminated": ended(0)})),
            False,
            None,
        ),
        (
            manifest_of_pod("Running", container(RUNS, "mesh"), container({"terminated": ended(2)})),
            False,
            "exit code 2",
        ),
        (
            manifest_of_pod("Running", container(RUNS), container({"terminated": ended(2)}, "mesh")),
            True,
            None,
        ),
    ],
)
def test_a_pod_of_a_job(pod: Manifest, running: bool, failure: str | None) -> None:
    state = JobPod.of(pod)

    assert (state.running, state.failure, state.job_uid) == (running, failure, "j-1")


def test_a_job() -> None:
    def job(*conditions: tuple[str, str]) -> Job:
        listed = [{"type": kind, "status": status, "message": "why"} for kind, status in conditions]
        metadata = {"name": "j", "uid": "j-1", "annotations": {"djangotasks.dev/migrated": "abc"}}
        return Job.of({"metadata": metadata, "status": {"conditions": listed}})

    assert (job().migrates, job().is_over) == ("abc", False)
    assert job(("Complete", "True")).complete
    assert job(("Failed", "True")).failed == "why"
    # Its pods are still ending.
    assert not job(("FailureTarget", "True")).is_over
    assert not job(("Complete", "False")).is_over
