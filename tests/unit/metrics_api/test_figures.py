"""What the metrics API answers, from the last polls."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from tests.unit.fakes import Clock

from django_task_operator.metrics_api.figures import METRICS, Figures, NotKnown
from django_task_operator.metrics_api.selector import Selector
from django_task_operator.spec import Key
from django_task_operator.tasktable import Observation, QueueDemand, Selection, SelectionDemand
from django_task_operator.tasktable.errors import ConnectionLost

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT = Selection("default", ("default",))
NOW = datetime(2026, 1, 1, tzinfo=UTC)
EMAILS = Key(namespace="shop", name="emails")
PENDING, DEMAND = "django_tasks_pending", "django_tasks_demand"


@dataclass
class Polled:
    """A worker's subscription to a database, as far as the figures need it."""

    selection: Selection = DEFAULT
    observation: Observation = field(default_factory=Observation)


def sampled(queues: Mapping[str, tuple[int, int]], *names: str, exclude: tuple[str, ...] = ()) -> Polled:
    """A poll's result: ready and running tasks by queue; the oldest ready row is as many seconds old."""
    parts = {
        name: QueueDemand(ready, running, NOW - timedelta(seconds=ready + 0.25) if ready else None)
        for name, (ready, running) in queues.items()
    }
    ready, running = (sum(part[i] for part in queues.values()) for i in (0, 1))
    oldest = min((part.oldest_ready for part in parts.values() if part.oldest_ready), default=None)
    demand = SelectionDemand(ready, running, oldest, parts)
    return Polled(Selection("default", names or ("default",), exclude), Observation(demand, None, NOW))


class Bench:
    def __init__(self) -> None:
        self.clock = Clock()
        self.figures = Figures(self.clock)

    def told(self, metric: str = PENDING, selector: str = "", namespace: str = "shop") -> dict[str, str]:
        """Values by their labels, without the database."""
        items = self.figures.items(namespace, metric, Selector.parse(selector))
        return {
            " ".join(f"{k}={v}" for k, v in sorted(item.labels.items()) if k != "database"): item.value
            for item in items
        }


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_every_metric(bench: Bench) -> None:
    bench.figures.follow(EMAILS, sampled({"default": (3, 2)}), "shop-db")
    values = {metric: list(bench.told(metric).values()) for metric in METRICS}
    assert values == {
        "django_tasks_pending": ["3"],
        "django_tasks_running": ["2"],
        "django_tasks_demand": ["5"],
        "django_tasks_oldest_pending_seconds": ["3250m"],
    }


def test_an_item_says_whose_it_is_and_of_when(bench: Bench) -> None:
    bench.figures.follow(EMAILS, sampled({"default": (3, 2)}), "shop-db")
    (item,) = bench.figures.items("shop", PENDING, Selector())
    assert item.labels == {"worker": "emails", "queue": "default", "database": "shop-db"}
    assert item.at == NOW


def test_named_queues_have_an_item_each_even_without_a_task(bench: Bench) -> None:
    bench.figures.follow(EMAILS, sampled({"a": (3, 0)}, "a", "b", "c", exclude=("c",)), "shop-db")
    assert bench.told() == {"queue=a worker=emails": "3", "queue=b worker=emails": "0"}


def test_a_worker_of_every_queue_has_an_item_for_each_with_tasks(bench: Bench) -> None:
    bench.figures.follow(EMAILS, sampled({"a": (3, 0), "b": (0, 1)}, "*"), "shop-db")
    assert bench.told() == {"queue=a worker=emails": "3", "queue=b worker=emails": "0"}
    assert bench.told(DEMAND, "queue=b") == {"queue=b worker=emails": "1"}


def test_a_worker_of_every_queue_without_a_task_is_zero(bench: Bench) -> None:
    bench.figures.follow(EMAILS, sampled({}, "*", exclude=("slow",)), "shop-db")
    assert bench.told() == {"worker=emails": "0"}
    assert bench.told(selector="worker=emails") == {"worker=emails": "0"}
    assert bench.told(selector="queue=a") == {"queue=a worker=emails": "0"}
    assert bench.told(selector="queue in (a,slow)") == {"queue=a worker=emails": "0"}
    assert bench.told(selector="queue notin (a)") == {"worker=emails": "0"}
    assert bench.told(selector="queue=slow") == {}


def test_queues_that_are_too_many_are_one_item(bench: Bench) -> None:
    bench.figures.follow(EMAILS, sampled({"": (300, 4)}, "*"), "shop-db")
    assert bench.told(DEMAND) == {"worker=emails": "304"}
    with pytest.raises(NotKnown, match="too many queues to tell them apart"):
        bench.told(selector="queue=a")


def test_selectors_choose_among_workers_queues_and_databases(bench: Bench) -> None:
    reports = Key(namespace="shop", name="reports")
    bench.figures.follow(EMAILS, sampled({"a": (1, 0), "b": (2, 0)}, "a", "b"), "shop-db")
    bench.figures.follow(reports, sampled({"b": (4, 0)}, "b"), "other-db")
    assert len(bench.told()) == 3
    assert bench.told(selector="queue=b") == {"queue=b worker=emails": "2", "queue=b worker=reports": "4"}
    assert bench.told(selector="database=other-db") == {"queue=b worker=reports": "4"}
    assert bench.told(selector="worker notin (emails)") == {"queue=b worker=reports": "4"}
    assert bench.told(selector="example.org/none") == {}


def test_a_namespace_reads_its_own(bench: Bench) -> None:
    bench.figures.follow(EMAILS, sampled({"default": (3, 2)}), "shop-db")
    bench.figures.expect(Key(namespace="other", name="emails"))
    assert bench.told() == {"queue=default worker=emails": "3"}
    assert bench.told(namespace="shop2") == {}


@pytest.mark.parametrize(
    "observation",
    [
        Observation(),
        Observation(error=ConnectionLost()),
        replace(sampled({"default": (0, 0)}).observation, error=ConnectionLost()),
    ],
    ids=["first sample", "never sampled", "in trouble"],
)
def test_figures_that_are_not_known_are_an_error_and_no_zero(bench: Bench, observation: Observation) -> None:
    bench.figures.follow(EMAILS, Polled(observation=observation), "shop-db")
    bench.figures.follow(Key(namespace="shop", name="reports"), sampled({"b": (4, 0)}, "b"), "other-db")
    for selector in ("", "worker=emails", "queue=default", "database=shop-db", "queue in (default,b)"):
        with pytest.raises(NotKnown, match="the figures of worker emails are not known"):
            bench.told(selector=selector)
    for selector in ("worker=reports", "queue=b", "database=other-db"):
        assert bench.told(selector=selector) == {"queue=b worker=reports": "4"}


def test_in_trouble_a_worker_of_every_queue_may_have_any(bench: Bench) -> None:
    bench.figures.follow(EMAILS, Polled(Selection("default", ("*",))), "shop-db")
    for selector in ("", "queue=a", "queue notin (a)", "!queue"):
        with pytest.raises(NotKnown):
            bench.told(selector=selector)


def test_a_worker_whose_secret_is_gone(bench: Bench) -> None:
    bench.figures.fail(EMAILS, "shop-db", "Secret shop-db does not exist.")
    with pytest.raises(NotKnown, match="Secret shop-db does not exist"):
        bench.told(selector="queue=a,database=shop-db")
    assert bench.told(selector="database=other") == {}
    bench.figures.follow(EMAILS, sampled({"default": (1, 0)}), "shop-db")
    assert bench.told() == {"queue=default worker=emails": "1"}


def test_after_a_start_a_namespace_waits_for_its_workers_but_not_for_ever(bench: Bench) -> None:
    bench.figures.expect(EMAILS, 30)
    bench.figures.follow(Key(namespace="shop", name="reports"), sampled({"b": (4, 0)}, "b"), "shop-db")
    bench.clock.advance(29)
    with pytest.raises(NotKnown):
        bench.told()
    bench.clock.advance(2)
    assert bench.told() == {"queue=b worker=reports": "4"}


def test_a_worker_that_is_gone_is_forgotten(bench: Bench) -> None:
    bench.figures.follow(EMAILS, sampled({"default": (3, 2)}), "shop-db")
    bench.figures.drop(EMAILS)
    bench.figures.drop(EMAILS)
    assert bench.told() == {}


def test_figures_are_as_fresh_as_the_last_poll(bench: Bench) -> None:
    polled = sampled({"default": (3, 2)})
    bench.figures.follow(EMAILS, polled, "shop-db")
    polled.observation = sampled({"default": (7, 0)}).observation
    assert bench.told() == {"queue=default worker=emails": "7"}


def test_labels_of_queues_with_hostile_names_are_harmless() -> None:
    bench = Bench()
    bench.figures.follow(EMAILS, sampled({"\x1b[2J": (3, 0), "<b>" * 500: (1, 0)}, "*"), "db")

    labels = [each.labels["queue"] for each in bench.figures.items("shop", PENDING, Selector.parse(""))]
    assert r"\x1b[2J" in labels
    assert all(label.isprintable() and "<b" not in label and len(label) <= 200 for label in labels)
