"""docs/metrics.md lists exactly the metrics that there are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from django_db_worker.metrics import exposition
from django_db_worker.status_board import StatusBoard
from prometheus_client import generate_latest
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families

from django_task_operator import telemetry
from django_task_operator.contract import Metric

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text()


class Line(NamedTuple):
    kind: str
    labels: frozenset[str]


def lines(heading: str) -> Iterator[tuple[str, str, str, str, str]]:
    """The rows of the table under a heading: name, type, labels, unit, meaning."""
    (section,) = re.findall(rf"^## {heading}$(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    for row in re.findall(r"^\| `.*\|$", section, re.MULTILINE):
        name, kind, labels, unit, meaning = (cell.strip() for cell in row.strip("|").split("|"))
        yield name.strip("`"), kind, labels, unit, meaning


def documented(heading: str) -> dict[str, Line]:
    rows = list(lines(heading))
    found = {name: Line(kind, frozenset(re.findall(r"`(\w+)`", labels))) for name, kind, labels, _, _ in rows}
    assert len(found) == len(rows), "a metric has two lines"
    return found


def in_text(text: str) -> dict[str, Line]:
    """The metrics of a page in Prometheus' format; labels only of those with samples."""
    found = {}
    for family in text_string_to_metric_families(text):
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        name = family.name + "_total" * (family.type == "counter")
        found[name] = Line(family.type, frozenset(labels))
    return found


def of_operator() -> dict[str, Line]:
    found = in_text(generate_latest(telemetry.REGISTRY).decode())
    # Without samples, the text has no labels.
    for metric in vars(telemetry).values():
        if isinstance(metric, MetricWrapperBase):
            name = metric._name + "_total" * (metric._type == "counter")
            found[name] = Line(str(metric._type), frozenset(metric._labelnames))
    return found


def test_metrics_of_the_operator() -> None:
    assert documented("The operator") == of_operator()


def test_every_name_is_used() -> None:
    used = {metric._name for metric in vars(telemetry).values() if isinstance(metric, MetricWrapperBase)}
    assert used == set(Metric)


def test_metrics_of_workers() -> None:
    board = StatusBoard(1, 1)
    # Without a sample, the text has no labels.
    board.slot(0, 0).count_started("shop.tasks.mail", 0)
    assert documented("The workers") == in_text(exposition(board, restarts=0))


@pytest.mark.parametrize("heading", ["The operator", "The workers"])
def test_names_say_their_units(heading: str) -> None:
    for name, _, _, unit, meaning in lines(heading):
        assert meaning
        for base in ("seconds", "bytes"):
            assert (unit == base) == (name.removesuffix("_total").endswith(f"_{base}")), name
