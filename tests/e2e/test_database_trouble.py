"""A database with problems: replicas stay, a condition says why, other workers are not affected."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from tests.e2e.conftest import put_secret
from tests.e2e.harness import always, eventually
from tests.e2e.postgres import Server, chores

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Kubectl
    from tests.e2e.harness import TaskWorker
    from tests.e2e.postgres import Database
    from tests.e2e.release import Release

type MakeWorker = Callable[..., TaskWorker]


def test_replicas_are_held_while_the_server_is_down_and_tasks_go_on_when_it_is_back(
    make_worker: MakeWorker, database: Database, here: Kubectl
) -> None:
    server = Server.start(here)
    server.make_template()
    with server.database() as fragile:
        put_secret(here, "fragile", DATABASE_URL=fragile.url)
        worker = make_worker(database={"urlSecretRef": {"name": "fragile"}})
        neighbour = make_worker("neighbour")
        results = fragile.enqueue(chores.add, 1, 2, times=2)
        # Locked rows count, but pods skip them, until the server's end lets them go.
        holder = fragile.lock_rows()
        worker.scales_to(2)
        server.stop()
        worker.becomes("DatabaseReachable", "False", "ConnectionRefused")
        worker.warns("ConnectionRefused")
        message = worker.becomes("ScalingActive", "False", "ConnectionRefused")
        assert message.endswith("Replicas are held at 2.")
        always(lambda: worker.replicas == 2, "two replicas while the database is down", seconds=4)
        neighbour.becomes("Ready", "True")
        database.finish(database.enqueue(chores.add, 1, 2))
        server.go_on()

        worker.becomes("DatabaseReachable", "True")
        worker.tells("DatabaseReachable")
        fragile.finish(results)
        worker.scales_to(0)
        holder.close()
        assert not neighbour.events("ConnectionRefused") + neighbour.events("ConnectionLost")


def test_a_wrong_password_is_said_and_a_rotated_secret_recovers_without_a_restart(
    make_worker: MakeWorker, database: Database, here: Kubectl, operator: Release
) -> None:
    incarnation = operator.incarnation
    put_secret(here, "database", DATABASE_URL=database.url.replace(database.server.password, "not-this-one"))
    results = database.enqueue(chores.add, 1, 2)
    worker = make_worker()
    message = worker.becomes("DatabaseReachable", "False", "AuthenticationFailed")
    assert message.startswith("The database refuses the user or the password of the URL")
    assert worker.warns("AuthenticationFailed") == message
    worker.becomes("Ready", "False", "AuthenticationFailed")
    put_secret(here, "database", DATABASE_URL=database.url)

    database.finish(results)
    worker.becomes("DatabaseReachable", "True")
    assert operator.incarnation == incarnation
    assert "not-this-one" not in json.dumps(worker.manifest) + operator.log()


def test_pods_are_replaced_when_the_password_was_rotated_and_the_new_one_works(
    make_worker: MakeWorker, database: Database, here: Kubectl, operator: Release
) -> None:
    with database.user() as user:
        put_secret(here, "database", DATABASE_URL=user.has_password("the-first-password"))
        worker = make_worker(scaling={"minReplicas": 1})
        worker.scales_to(1)
        eventually(lambda: url_hash(worker), "the operator knows under which URL the task table answers")
        before = worker.pod_names

        put_secret(here, "database", DATABASE_URL=user.has_password("the-second-password"))
        # From now on, the first password is refused.
        user.end_clients()
        results = database.enqueue(chores.add, 1, 2)
        eventually(lambda: worker.pod_names.isdisjoint(before) and worker.pods, "new pods")
        worker.scales_to(1)

        (result,) = database.finish(results)
        assert str(result.status) == "SUCCESSFUL"
        assert before.isdisjoint(result.worker_ids)
        (event,) = worker.tells("DatabaseURLChanged")
        assert event["type"] == "Normal"
        worker.becomes("Ready", "True")
        said = json.dumps([worker.manifest, worker.deployment, event]) + operator.log()
        assert "the-first" not in said
        assert "the-second" not in said


def test_a_new_url_that_does_not_work_replaces_no_pod(
    make_worker: MakeWorker, database: Database, here: Kubectl
) -> None:
    worker = make_worker(scaling={"minReplicas": 1})
    worker.scales_to(1)
    hashed = eventually(lambda: url_hash(worker), "the operator knows under which URL the task table answers")
    before = worker.pod_names

    put_secret(here, "database", DATABASE_URL=f"{database.url}_of_a_typo")
    # The operator looks once a minute whether the Secret has changed.
    worker.becomes("DatabaseReachable", "False", "DatabaseMissing")
    always(lambda: worker.pod_names == before, "the same pods", seconds=4)
    database.finish(database.enqueue(chores.add, 1, 2))
    put_secret(here, "database", DATABASE_URL=database.url)

    worker.becomes("DatabaseReachable", "True")
    worker.becomes("Ready", "True")
    assert worker.pod_names == before
    assert url_hash(worker) == hashed
    assert not worker.events("DatabaseURLChanged")


def url_hash(worker: TaskWorker) -> str | None:
    """The hash of the URL that the operator has stored."""
    annotations = (worker.deployment or {"metadata": {}})["metadata"].get("annotations", {})
    found: str | None = annotations.get("djangotasks.dev/database-url-hash")
    return found


def test_a_missing_table_is_said_until_the_database_is_migrated(
    make_worker: MakeWorker, server: Server, here: Kubectl
) -> None:
    with server.database(migrated=False) as empty:
        put_secret(here, "database", DATABASE_URL=empty.url)
        worker = make_worker()
        message = worker.becomes("DatabaseReachable", "False", "TableMissing")
        assert "manage.py migrate" in message
        assert worker.warns("TableMissing") == message
        empty.migrate()

        empty.finish(empty.enqueue(chores.add, 1, 2))
        worker.becomes("DatabaseReachable", "True")


@pytest.mark.alone
def test_a_sample_slower_than_its_time_out_holds_up_nobody_else(
    make_worker: MakeWorker, database: Database, server: Server, here: Kubectl
) -> None:
    with server.database() as locked:
        put_secret(here, "locked", DATABASE_URL=locked.url)
        worker = make_worker(database={"urlSecretRef": {"name": "locked"}}, scaling={"minReplicas": 1})
        neighbour = make_worker("neighbour")
        worker.scales_to(1)
        results = locked.enqueue(chores.add, 1, 2, run_after=None)
        locked.finish(results)
        with server.connect(locked.name) as connection, connection.transaction():
            connection.execute("LOCK TABLE django_tasks_database_dbtaskresult IN ACCESS EXCLUSIVE MODE")
            added = database.enqueue(chores.add, 1, 2)
            eventually(lambda: neighbour.replicas == 1, "before the other's sample times out", within=9)
            database.finish(added)
            neighbour.scales_to(0)
            message = worker.becomes("DatabaseReachable", "False", "SampleTimedOut")
            assert "longer than 10 s" in message
            assert worker.warns("SampleTimedOut") == message
            assert worker.replicas == 1
        worker.becomes("DatabaseReachable", "True")
        locked.finish(locked.enqueue(chores.add, 1, 2))


def test_a_dropped_database_is_said(make_worker: MakeWorker, server: Server, here: Kubectl) -> None:
    put_secret(here, "database", DATABASE_URL=_gone(server))
    worker = make_worker()
    message = worker.becomes("DatabaseReachable", "False", "DatabaseMissing")
    assert worker.warns("DatabaseMissing") == message


def _gone(server: Server) -> str:
    with server.database() as database:
        return database.url


def test_a_connection_that_the_server_ends_is_made_again(make_worker: MakeWorker, database: Database) -> None:
    worker = make_worker()
    worker.becomes("DatabaseReachable", "True")
    before = database.clients("django-task-operator")
    database.end_clients("django-task-operator")
    eventually(lambda: set(database.clients("django-task-operator")) - set(before), "another connection")

    assert len(before) == 1
    database.finish(database.enqueue(chores.add, 1, 2))
    worker.becomes("DatabaseReachable", "True")
