"""A database URL that changes while pods run, turn by turn."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from tests.unit.bench import URL, Bench, encoded
from tests.unit.fakes import refusal

from django_task_operator.cluster.secrets import MAX_AGE_SECONDS
from django_task_operator.spec import Key
from django_task_operator.startup.options import Options
from django_task_operator.tasktable.errors import AuthenticationFailed

if TYPE_CHECKING:
    from django_task_operator.reconcile.reconciler import Reconciler

OPTIONS = Options(instance="operator-1", hash_key=Key(namespace="ops", name="hash-key"))
NEW_URL = URL.replace("s3cr", "n3w")
TOLD = (
    "DatabaseURLChanged: The database URL in Secret shop-db has changed, and the task table answers: the pods"
    " are replaced, because running pods keep the URL with which they were started."
)


@pytest.fixture
def bench() -> Bench:
    return Bench(options=OPTIONS)


def template(bench: Bench) -> dict[str, Any]:
    deployment = bench.kube.read("deployments", "shop", "emails")
    assert deployment
    found: dict[str, Any] = deployment["spec"]["template"]
    return found


def known(bench: Bench) -> str | None:
    deployment = bench.kube.read("deployments", "shop", "emails")
    assert deployment
    found: str | None = deployment["metadata"].get("annotations", {}).get("djangotasks.dev/database-url-hash")
    return found


async def change(bench: Bench, reconciler: Reconciler, url: str = NEW_URL) -> None:
    """Change the Secret, and take the turn that notices it; the new URL has not been tried yet."""
    bench.kube.edit("secrets", "shop", "shop-db", {"data": encoded(url)})
    bench.clock.advance(MAX_AGE_SECONDS)
    await bench.turn(reconciler)


async def test_pods_are_replaced_once_when_the_new_url_works(bench: Bench) -> None:
    reconciler = await bench.running(42)
    before = template(bench)
    await change(bench, reconciler)
    assert template(bench) == before, "not tried yet"

    bench.databases.sample(42)
    await bench.turn(reconciler)
    after = template(bench)
    assert after != before
    assert bench.told() == [TOLD]
    bench.kube.run_deployment("shop", "emails")
    for _ in range(3):
        await bench.turn(reconciler)
    assert template(bench) == after
    assert bench.told() == [TOLD]
    said = json.dumps([after, bench.kube.events, bench.kube.statuses, known(bench)])
    assert not any(part in said for part in ("s3cr", "n3w", "shop-user"))


async def test_a_url_that_does_not_work_rolls_nobody(bench: Bench) -> None:
    reconciler = await bench.running(42)
    before = template(bench)
    await change(bench, reconciler)
    bench.databases.fail(AuthenticationFailed())
    await bench.turn(reconciler)
    assert bench.condition("DatabaseReachable") == "False AuthenticationFailed"
    assert template(bench) == before

    # And one that is corrected to what it was does not either.
    await change(bench, reconciler, URL)
    bench.databases.sample(42)
    await bench.turn(reconciler)
    assert template(bench) == before
    assert not any("DatabaseURLChanged" in told for told in bench.told())


async def test_a_typo_that_is_corrected_rolls_once(bench: Bench) -> None:
    reconciler = await bench.running(42)
    await change(bench, reconciler, URL.replace("s3cr", "typo"))
    bench.databases.fail(AuthenticationFailed())
    await bench.turn(reconciler)

    await change(bench, reconciler)
    bench.databases.sample(42)
    await bench.turn(reconciler)
    assert bench.told().count(TOLD) == 1


async def test_a_restarted_operator_notices_what_changed_while_it_was_away(bench: Bench) -> None:
    await bench.running(42)
    before = template(bench)
    bench.kube.edit("secrets", "shop", "shop-db", {"data": encoded(NEW_URL)})
    bench.databases.subscriptions.clear()
    bench.restart(bench.clock)

    reconciler = bench.reconciler()
    await bench.turn(reconciler)
    bench.databases.sample(42)
    await bench.turn(reconciler)
    assert template(bench) != before
    assert TOLD in bench.told()


async def test_a_first_installation_and_an_upgrade_roll_nobody() -> None:
    older = Bench()
    await older.running(42)
    before = template(older)
    assert known(older) is None

    older.options = OPTIONS
    older.databases.subscriptions.clear()
    older.restart(older.clock)
    await older.running(42)
    assert template(older) == before
    assert known(older)


async def test_a_lost_key_rolls_nobody(bench: Bench) -> None:
    await bench.running(42)
    before, hashed = template(bench), known(bench)
    bench.kube.delete("secrets", "ops", "hash-key")
    bench.databases.subscriptions.clear()
    bench.restart(bench.clock)

    reconciler = await bench.running(42)
    assert template(bench) == before
    assert known(bench) != hashed
    await change(bench, reconciler)
    bench.databases.sample(42)
    await bench.turn(reconciler)
    assert template(bench) != before, "the next change is noticed again"


async def test_a_key_that_cannot_be_had_stops_nothing(bench: Bench) -> None:
    bench.kube.refuse["create secret"] = [refusal(403, "forbidden")]

    reconciler = await bench.running(42)

    assert bench.replicas() == 5
    assert known(bench) is None
    bench.clock.advance(30)
    await bench.turn(reconciler)
    assert known(bench)


@pytest.mark.parametrize(
    "database",
    [
        {"urlSecretRef": {"name": "shop-db"}, "urlChangePolicy": "Ignore"},
        {"urlSecretRef": {"name": "shop-db"}, "envName": ""},
    ],
    ids=["not asked for", "not given to the pods"],
)
async def test_pods_are_left_alone(bench: Bench, database: dict[str, Any]) -> None:
    reconciler = await bench.running(42, database=database)
    before = template(bench)
    await change(bench, reconciler)
    bench.databases.sample(42)
    await bench.turn(reconciler)

    assert template(bench) == before
    assert known(bench) is None
    assert ("get secret" in bench.kube.requests, "create secret" in bench.kube.requests) == (True, False)


async def test_to_ignore_changes_later_replaces_no_pod(bench: Bench) -> None:
    reconciler = await bench.running(42)
    await change(bench, reconciler)
    bench.databases.sample(42)
    await bench.turn(reconciler)
    marked = template(bench)

    bench.kube.edit("worker", "shop", "emails", {"spec": {"database": {"urlChangePolicy": "Ignore"}}})
    await bench.turn(reconciler)
    assert template(bench) == marked
    assert known(bench) is None


async def test_at_zero_the_next_pods_have_the_new_url_anyway(bench: Bench) -> None:
    reconciler = await bench.running(0)
    before, hashed = template(bench), known(bench)
    assert bench.replicas() == 0
    await change(bench, reconciler)
    bench.databases.sample(0)
    await bench.turn(reconciler)

    assert template(bench) == before
    assert known(bench) != hashed
    assert bench.told() == []


async def test_a_refused_deployment_is_rolled_when_it_is_accepted(bench: Bench) -> None:
    reconciler = await bench.running(42)
    before = template(bench)
    await change(bench, reconciler)
    bench.databases.sample(42)
    bench.kube.refuse["apply deployment"] = [refusal(503)]
    await bench.turn(reconciler)
    assert bench.told() == []

    await bench.turn(reconciler)
    assert template(bench) != before
    assert bench.told() == [TOLD]


async def test_no_migration_runs_anew(bench: Bench) -> None:
    bench.worker(migrations={"policy": "BeforeRollout"})
    reconciler = bench.reconciler()
    await bench.turn(reconciler)
    bench.databases.sample(42)
    await bench.turn(reconciler)
    (job,) = bench.kube._of_kind("jobs", "shop")
    bench.kube.run_job("shop", job["metadata"]["name"], complete=True)
    await bench.turn(reconciler)
    bench.kube.run_deployment("shop", "emails")
    await bench.turn(reconciler)

    await change(bench, reconciler)
    bench.databases.sample(42)
    await bench.turn(reconciler)
    assert TOLD in bench.told()
    assert [each["metadata"]["name"] for each in bench.kube._of_kind("jobs", "shop")] == [
        job["metadata"]["name"]
    ]


async def test_a_settled_turn_makes_no_request(bench: Bench) -> None:
    reconciler = await bench.running(42)
    for _ in range(10):
        bench.databases.sample(42)
        await bench.turn(reconciler)
        bench.clock.advance(1)

    assert bench.kube.requests == []
