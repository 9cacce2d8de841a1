"""A private certificate authority for the database, from its Secret to the connection."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from tests.authorities import Authority
from tests.unit.bench import Bench

from django_task_operator.cluster.secrets import MAX_AGE_SECONDS

DATABASE: dict[str, Any] = {
    "urlSecretRef": {"name": "shop-db"},
    "sslRootCertSecretRef": {"name": "shop-db-ca"},
}


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.worker(database=DATABASE)
    return bench


def put(bench: Bench, **values: str) -> None:
    data = {name.replace("_", "."): base64.b64encode(text.encode()).decode() for name, text in values.items()}
    if bench.kube.read("secrets", "shop", "shop-db-ca"):
        bench.kube.edit("secrets", "shop", "shop-db-ca", {"data": data})
    else:
        bench.kube.create("secrets", {"metadata": {"name": "shop-db-ca", "namespace": "shop"}, "data": data})


def message(bench: Bench) -> str:
    worker = bench.kube.read("worker", "shop", "emails")
    assert worker
    (found,) = (c for c in worker["status"]["conditions"] if c["type"] == "DatabaseReachable")
    return str(found["message"])


async def test_the_connection_is_made_with_it_and_anew_with_the_next(bench: Bench) -> None:
    first, second = Authority.make().pem, Authority.make().pem
    put(bench, ca_crt=first)
    reconciler = await bench.running(42)
    assert [url.root_cert for url, _ in bench.databases.subscriptions] == [first]

    put(bench, ca_crt=second)
    bench.clock.advance(MAX_AGE_SECONDS)
    await bench.turn(reconciler)
    assert [url.root_cert for url, _ in bench.databases.subscriptions] == [second]


async def test_what_is_wrong_with_it_is_said_and_its_field_named(bench: Bench) -> None:
    reconciler = bench.reconciler()
    await bench.turn(reconciler)
    assert bench.condition("DatabaseReachable") == "False SecretMissing"
    assert message(bench).endswith("Create it, or change spec.database.sslRootCertSecretRef.name.")

    put(bench, other="text")
    bench.clock.advance(5)
    await bench.turn(reconciler)
    assert bench.condition("DatabaseReachable") == "False SecretKeyMissing"
    assert message(bench).endswith("Add the key, or change spec.database.sslRootCertSecretRef.key.")

    put(bench, ca_crt="no certificate")
    bench.clock.advance(5)
    await bench.turn(reconciler)
    assert bench.condition("DatabaseReachable") == "False InvalidRootCert"
    assert "no certificate in its key ca.crt" in message(bench)

    put(bench, ca_crt=Authority.make().pem)
    bench.clock.advance(5)
    await bench.turn(reconciler)
    bench.databases.sample(3)
    await bench.turn(reconciler)
    assert bench.condition("DatabaseReachable") == "True Sampled"
