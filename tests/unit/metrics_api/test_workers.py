"""The workers' figures, which come from their turns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.unit.bench import URL, Bench, encoded

from django_task_operator.metrics_api.figures import NotKnown
from django_task_operator.metrics_api.selector import Selector
from django_task_operator.tasktable.errors import ConnectionRefused

if TYPE_CHECKING:
    from collections.abc import Mapping


@pytest.fixture
def bench() -> Bench:
    return Bench()


def demand(bench: Bench) -> list[tuple[Mapping[str, str], str]]:
    items = bench.world.figures.items("shop", "django_tasks_demand", Selector())
    return [(item.labels, item.value) for item in items]


async def test_they_are_known_from_the_first_sample_until_the_worker_goes(bench: Bench) -> None:
    bench.worker(queues=["a", "b"])
    reconciler = bench.reconciler()
    with pytest.raises(NotKnown, match="has not been observed yet"):
        demand(bench)
    await bench.turn(reconciler)
    with pytest.raises(NotKnown, match="has not been sampled yet"):
        demand(bench)
    bench.databases.sample(3, 2)
    of = {"worker": "emails", "database": "shop-db"}
    assert demand(bench) == [({**of, "queue": "a"}, "5"), ({**of, "queue": "b"}, "0")]
    reconciler.close()
    assert demand(bench) == []


async def test_in_trouble_there_are_none(bench: Bench) -> None:
    reconciler = await bench.running(42)
    bench.databases.fail(ConnectionRefused())
    with pytest.raises(NotKnown, match="the figures of worker emails are not known"):
        demand(bench)
    bench.databases.sample(7)
    assert [value for _, value in demand(bench)] == ["7"]
    await bench.turn(reconciler)


async def test_a_secret_that_is_gone_takes_them_along_and_brings_them_back(bench: Bench) -> None:
    reconciler = await bench.running(42)
    bench.kube.delete("secrets", "shop", "shop-db")
    bench.clock.advance(61)
    await bench.turn(reconciler)
    with pytest.raises(NotKnown, match="Secret shop-db does not exist"):
        demand(bench)
    bench.kube.create("secrets", {"metadata": {"namespace": "shop", "name": "shop-db"}, "data": encoded(URL)})
    bench.clock.advance(61)
    await bench.turn(reconciler)
    assert [value for _, value in demand(bench)] == ["42"]


async def test_they_never_hold_anything_of_the_url(bench: Bench) -> None:
    reconciler = await bench.running(42)
    bench.kube.edit("secrets", "shop", "shop-db", {"data": encoded(f"nonsense-{URL}")})
    bench.clock.advance(61)
    await bench.turn(reconciler)
    with pytest.raises(NotKnown) as refused:
        demand(bench)
    assert "s3cr" not in str(refused.value)
    assert "db.shop.svc" not in str(refused.value)
