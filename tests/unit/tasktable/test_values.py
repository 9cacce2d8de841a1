"""The results of a table, as values."""

from __future__ import annotations

from datetime import UTC, datetime

from django_task_operator.tasktable import QueueDemand, SelectionDemand

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_a_demand_within_a_smaller_limit() -> None:
    demand = SelectionDemand(30, 2, NOW, {"a": QueueDemand(25, 2, NOW), "b": QueueDemand(5, 0, NOW)})
    assert demand.within(30) is demand
    assert demand.within(10) == SelectionDemand(
        10, 2, NOW, {"a": QueueDemand(10, 2, NOW), "b": QueueDemand(5, 0, NOW)}
    )
