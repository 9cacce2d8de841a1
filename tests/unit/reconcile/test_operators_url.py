"""A database URL for the operator alone, different from the one of the pods."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.bench import URL, Bench, encoded

from django_task_operator.cluster.secrets import MAX_AGE_SECONDS
from django_task_operator.spec import Key
from django_task_operator.startup.options import Options
from django_task_operator.tasktable.errors import HostIsLoopback

PODS_URL = "postgres://shop:pods-password@127.0.0.1:5432/shop"
DATABASE: dict[str, Any] = {
    "urlSecretRef": {"name": "shop-db-of-pods"},
    "operatorUrlSecretRef": {"name": "shop-db"},
}


@pytest.fixture
def bench() -> Bench:
    bench = Bench(options=Options(instance="operator-1", hash_key=Key(namespace="ops", name="hash-key")))
    metadata = {"name": "shop-db-of-pods", "namespace": "shop"}
    bench.kube.create("secrets", {"metadata": metadata, "data": encoded(PODS_URL)})
    return bench


def environment(bench: Bench) -> dict[str, Any]:
    deployment = bench.kube.read("deployments", "shop", "emails")
    assert deployment
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return {each["name"]: each.get("valueFrom") for each in container["env"]}


def marks(bench: Bench) -> set[str]:
    deployment = bench.kube.read("deployments", "shop", "emails")
    assert deployment
    return set(deployment["spec"]["template"]["metadata"]["annotations"])


async def test_the_operator_uses_its_own_and_the_pods_theirs(bench: Bench) -> None:
    await bench.running(42, database=DATABASE)

    assert [url.text for url, _ in bench.databases.subscriptions] == [URL]
    assert environment(bench)["DATABASE_URL"] == {
        "secretKeyRef": {"name": "shop-db-of-pods", "key": "DATABASE_URL"}
    }


async def test_what_pods_say_is_rid_of_both(bench: Bench) -> None:
    reconciler = await bench.running(42, database=DATABASE)

    said = reconciler._observer.redact("pods-password at 127.0.0.1, s3cr%65t!pass at db.shop.svc")
    assert not any(part in said for part in ("pods-password", "127.0.0.1", "s3cr", "db.shop.svc"))


async def test_pods_are_replaced_when_theirs_has_changed_and_not_for_the_operators(bench: Bench) -> None:
    reconciler = await bench.running(42, database=DATABASE)
    before = marks(bench)

    bench.kube.edit("secrets", "shop", "shop-db", {"data": encoded(URL.replace("s3cr", "n3w"))})
    bench.clock.advance(MAX_AGE_SECONDS)
    await bench.turn(reconciler)
    bench.databases.sample(42)
    await bench.turn(reconciler)
    assert marks(bench) == before

    bench.kube.edit("secrets", "shop", "shop-db-of-pods", {"data": encoded(PODS_URL.replace("pods", "new"))})
    bench.clock.advance(MAX_AGE_SECONDS)
    await bench.turn(reconciler)
    assert marks(bench) > before
    assert any("in Secret shop-db-of-pods has changed" in told for told in bench.told())


async def test_without_the_pods_url_the_operator_counts_all_the_same(bench: Bench) -> None:
    bench.kube.delete("secrets", "shop", "shop-db-of-pods")
    await bench.running(42, database=DATABASE)

    assert bench.condition("DatabaseReachable") == "True Sampled"
    assert bench.replicas() == 5


async def test_its_field_is_named_where_its_secret_is_missing(bench: Bench) -> None:
    bench.kube.delete("secrets", "shop", "shop-db")
    bench.worker(database=DATABASE)
    await bench.turn(bench.reconciler())

    assert bench.condition("DatabaseReachable") == "False SecretMissing"
    assert "spec.database.operatorUrlSecretRef.name" in str(bench.kube.statuses)


def test_it_is_offered_where_the_host_is_the_operators_own_pod() -> None:
    assert "spec.database.operatorUrlSecretRef" in HostIsLoopback().message
