"""A database that is given in parts, like in the Secrets of database operators, turn by turn."""

from __future__ import annotations

import base64
import copy
import json
from typing import Any

import pytest
from tests.unit.bench import Bench

from django_task_operator.cluster.secrets import MAX_AGE_SECONDS
from django_task_operator.spec import Key
from django_task_operator.startup.options import Options

OPTIONS = Options(instance="operator-1", hash_key=Key(namespace="ops", name="hash-key"))
PASSWORD = "p@ss/w:rd%41"
CONNECTION: dict[str, Any] = {
    "engine": "PostgreSQL",
    "secretRef": {"name": "hippo"},
    "host": {"key": "host"},
    "port": {"key": "port"},
    "name": {"key": "dbname"},
    "user": {"key": "user"},
    "password": {"key": "password"},
}
SECRET = {"host": "hippo.pg.svc", "port": "5433", "dbname": "zoo", "user": "hippo", "password": PASSWORD}


@pytest.fixture
def bench() -> Bench:
    bench = Bench(options=OPTIONS)
    metadata = {"name": "hippo", "namespace": "shop"}
    bench.kube.create("secrets", {"metadata": metadata, "data": encoded(SECRET)})
    return bench


def encoded(values: dict[str, str]) -> dict[str, str]:
    return {name: base64.b64encode(value.encode()).decode() for name, value in values.items()}


def worker(bench: Bench, **connection: Any) -> None:
    manifest = bench.worker()
    database = {"urlSecretRef": None, "connection": {**copy.deepcopy(CONNECTION), **connection}}
    bench.kube.edit("worker", "shop", manifest["metadata"]["name"], {"spec": {"database": database}})


def environment(bench: Bench) -> dict[str, Any]:
    deployment = bench.kube.read("deployments", "shop", "emails")
    assert deployment
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return {
        each["name"]: each.get("value") or tuple(each["valueFrom"].get("secretKeyRef", {}).values())
        for each in container["env"]
        if each["name"].startswith("D") and "WORKER" not in each["name"]
    }


@pytest.mark.parametrize(
    ("connection", "secret", "place"),
    [
        # Crunchy: everything is in the Secret.
        ({}, SECRET, ("postgresql", "hippo.pg.svc", "5433", "zoo", "hippo")),
        # CloudNativePG: its host is one of its own namespace only.
        (
            {"host": {"value": "hippo-rw.shop.svc"}, "user": {"key": "username"}},
            {"username": "app", "password": PASSWORD, "host": "hippo-rw", "port": "5432", "dbname": "app"},
            ("postgresql", "hippo-rw.shop.svc", "5432", "app", "app"),
        ),
        # Zalando: user and password only.
        (
            {
                "host": {"value": "hippo.shop.svc"},
                "port": None,
                "name": {"value": "zoo"},
                "user": {"key": "username"},
            },
            {"username": "zoo_owner", "password": PASSWORD},
            ("postgresql", "hippo.shop.svc", "", "zoo", "zoo_owner"),
        ),
        # Bitnami: the password only.
        (
            {
                "engine": "MySQL",
                "host": {"value": "db.shop.svc"},
                "port": {"value": "3307"},
                "name": {"value": "zoo"},
                "user": {"value": "shop"},
                "password": {"key": "mysql-password"},
            },
            {"mysql-password": PASSWORD},
            ("mysql", "db.shop.svc", "3307", "zoo", "shop"),
        ),
        # Amazon RDS, as Secrets Manager rotates it: the name only if somebody has added it.
        (
            {"name": {"value": "zoo"}, "user": {"key": "username"}},
            {
                "engine": "postgres",
                "host": "zoo.c9akciq32.eu-west-1.rds.amazonaws.com",
                "port": "5432",
                "username": "zoo_owner",
                "password": PASSWORD,
                "dbInstanceIdentifier": "zoo",
            },
            ("postgresql", "zoo.c9akciq32.eu-west-1.rds.amazonaws.com", "5432", "zoo", "zoo_owner"),
        ),
    ],
    ids=["Crunchy", "CloudNativePG", "Zalando", "Bitnami", "RDS"],
)
async def test_secrets_as_others_make_them(
    bench: Bench, connection: dict[str, Any], secret: dict[str, str], place: tuple[str, ...]
) -> None:
    bench.kube.delete("secrets", "shop", "hippo")
    bench.kube.create(
        "secrets", {"metadata": {"name": "hippo", "namespace": "shop"}, "data": encoded(secret)}
    )
    worker(bench, **connection)
    await bench.running(42)

    ((url, _),) = bench.databases.subscriptions
    assert (url.engine.vendor, url.host, url.port, url.name, url.user) == place
    assert url.password == PASSWORD
    assert bench.condition("DatabaseReachable") == "True Sampled"
    assert environment(bench) == {}, "the pods were not asked to get it"


async def test_the_pods_get_the_same_if_asked(bench: Bench) -> None:
    worker(bench, envPrefix="DB_", name={"value": "zoo"}, port=None, options={"sslmode": "require"})
    await bench.running(42)

    assert environment(bench) == {
        "DB_HOST": ("hippo", "host"),
        "DB_PORT": "5432",
        "DB_NAME": "zoo",
        "DB_USER": ("hippo", "user"),
        "DB_PASSWORD": ("hippo", "password"),
    }
    ((url, _),) = bench.databases.subscriptions
    assert url.options == {"sslmode": "require"}


@pytest.mark.parametrize(
    ("change", "reason", "words"),
    [
        (
            {"password": None},
            "SecretKeyMissing",
            "no key password. Add the key, or change spec.database.connection.password.key.",
        ),
        (
            {"host": ""},
            "SecretValueInvalid",
            "The value of key host in Secret hippo cannot be used: it is empty",
        ),
        ({"host": "a b"}, "InvalidConnection", "The database's host cannot be used: it is no host's name"),
        ({"port": "many"}, "InvalidConnection", "Correct spec.database.connection.port, or the Secret's key"),
    ],
)
async def test_what_is_wrong_is_said_and_its_field_named(
    bench: Bench, change: dict[str, str | None], reason: str, words: str
) -> None:
    data: dict[str, Any] = {
        name: None if value is None else base64.b64encode(value.encode()).decode()
        for name, value in change.items()
    }
    bench.kube.edit("secrets", "shop", "hippo", {"data": data})
    worker(bench)
    reconciler = bench.reconciler()
    await bench.turn(reconciler)

    assert bench.condition("DatabaseReachable") == f"False {reason}"
    assert words in json.dumps(bench.kube.statuses)
    said = reconciler._observer.redact(f"FATAL: {PASSWORD} and {json.dumps(PASSWORD)}")
    assert PASSWORD not in said or reason == "SecretKeyMissing"


async def test_a_missing_secret_names_the_field_that_names_it(bench: Bench) -> None:
    bench.kube.delete("secrets", "shop", "hippo")
    worker(bench)
    await bench.turn(bench.reconciler())

    assert bench.condition("DatabaseReachable") == "False SecretMissing"
    assert "change spec.database.connection.secretRef.name." in json.dumps(bench.kube.statuses)


async def test_nothing_of_it_is_shown(bench: Bench) -> None:
    worker(bench, envPrefix="DB_")
    reconciler = await bench.running(42)

    said = reconciler._observer.redact(f"no {PASSWORD} of hippo at hippo.pg.svc")
    assert not any(part in said for part in ("p@ss", "w:rd", "hippo.pg"))


async def test_a_rotated_password_replaces_the_pods_that_have_it(bench: Bench) -> None:
    worker(bench, envPrefix="DB_")
    reconciler = await bench.running(42)
    bench.kube.edit("secrets", "shop", "hippo", {"data": encoded({"password": "another"})})
    bench.clock.advance(MAX_AGE_SECONDS)
    await bench.turn(reconciler)
    bench.databases.sample(42)
    await bench.turn(reconciler)

    (told,) = [told for told in bench.told() if told.startswith("DatabaseURLChanged")]
    assert "The database connection in Secret hippo has changed" in told
    assert told.endswith("running pods keep the connection with which they were started.")
