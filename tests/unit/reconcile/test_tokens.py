"""A worker whose database's password is a token: only where a rule says so."""

from __future__ import annotations

import pytest
from tests.unit.bench import Bench, encoded

from django_task_operator.startup.options import Options
from django_task_operator.tasktable import TokenRules

RULE = "- {{namespaces: [{}], hosts: [db.example], command: [print-token]}}"
URL = "postgres://operator@db.example/shop"


def bench_for(namespace: str, url: str) -> Bench:
    rules = TokenRules.parse(RULE.format(namespace))
    bench = Bench(options=Options(instance="operator-1", database_tokens=rules))
    bench.kube.edit("secrets", "shop", "shop-db", {"data": encoded(url)})
    return bench


@pytest.mark.parametrize(("namespace", "command"), [("shop", ("print-token",)), ("billing", None)])
async def test_it_is_for_the_namespaces_of_the_rule(namespace: str, command: tuple[str, ...] | None) -> None:
    bench = bench_for(namespace, f"{URL}?sslmode=verify-full&sslrootcert=system")
    await bench.running(42)

    ((url, _),) = bench.databases.subscriptions
    assert (url.token and url.token.command) == command


async def test_the_condition_says_why_it_is_not_sent() -> None:
    bench = bench_for("shop", URL)
    bench.worker()
    await bench.turn(bench.reconciler())

    assert bench.databases.subscriptions == []
    assert bench.condition("DatabaseReachable") == "False TokenRefused"
