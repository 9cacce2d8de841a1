"""The ways to name a worker's database, and what the operator and the pods need to reach it."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tests.authorities import Authority
from tests.e2e.conftest import SPEC, put_secret
from tests.e2e.postgres import Server, chores

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Kubectl
    from tests.e2e.harness import TaskWorker
    from tests.e2e.postgres import Database

type MakeWorker = Callable[..., TaskWorker]


def test_a_secret_without_a_url_serves_the_operator_and_the_pods(
    make_worker: MakeWorker, database: Database, here: Kubectl
) -> None:
    place = urlsplit(database.url)
    put_secret(here, "zoo-owner", username=str(place.username), password=str(place.password))
    # As docs/database.md tells projects whose settings read a URL.
    url = {
        "name": "DATABASE_URL",
        "value": "postgres://$(DB_USER):$(DB_PASSWORD)@$(DB_HOST):$(DB_PORT)/$(DB_NAME)",
    }
    worker = make_worker(
        env=[*SPEC["env"], url],
        database={
            "connection": {
                "engine": "PostgreSQL",
                "secretRef": {"name": "zoo-owner"},
                "host": {"value": place.hostname},
                "name": {"value": database.name},
                "user": {"key": "username"},
                "password": {"key": "password"},
                "envPrefix": "DB_",
            }
        },
    )

    (result,) = database.finish(database.enqueue(chores.add, 1, 2))
    assert str(result.status) == "SUCCESSFUL"
    worker.becomes("DatabaseReachable", "True", "Sampled")


def test_the_operator_has_a_user_of_its_own_that_may_count_and_settle_and_nothing_else(
    make_worker: MakeWorker, database: Database, here: Kubectl
) -> None:
    with database.user("SELECT, UPDATE", "django_tasks_database_dbtaskresult") as user:
        put_secret(here, "for-the-operator", DATABASE_URL=user.has_password("the-operators-own"))
        worker = make_worker(
            database={
                "urlSecretRef": {"name": "database"},
                "operatorUrlSecretRef": {"name": "for-the-operator"},
            }
        )

        (result,) = database.finish(database.enqueue(chores.add, 1, 2))
        assert str(result.status) == "SUCCESSFUL"
        worker.becomes("DatabaseReachable", "True", "Sampled")
        assert database.users("django-task-operator") == {user.name}


def test_the_operator_and_the_pods_verify_a_server_by_an_authority_of_the_users_own(
    make_worker: MakeWorker, here: Kubectl
) -> None:
    authority = Authority.make()
    server = Server.start(here)
    server.make_template()
    server.speaks_tls(*authority.sign(server.name))
    with server.database() as database:
        # Whoever does not ask for TLS is let in too, so the URL insists.
        put_secret(here, "database", DATABASE_URL=f"{database.url}?sslmode=verify-full")
        put_secret(here, "authority", **{"root.pem": Authority.make("another").pem})
        worker = make_worker(
            database={
                "urlSecretRef": {"name": "database"},
                "sslRootCertSecretRef": {"name": "authority", "key": "root.pem"},
            },
        )
        worker.becomes("DatabaseReachable", "False", "TLSFailed")

        put_secret(here, "authority", **{"root.pem": authority.pem})
        worker.becomes("DatabaseReachable", "True", "Sampled")
        (result,) = database.finish(database.enqueue(chores.add, 1, 2))
        assert str(result.status) == "SUCCESSFUL"
        assert database.is_encrypted("django-task-operator")
        here("delete", "djtw", "--all", "--wait=false")
