"""What the operator expects of every task table: the same tests for the fake and for real databases."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import pytest

from django_task_operator.tasktable import Failed, Requeued, Selection, SelectionDemand, UnservedQueue

if TYPE_CHECKING:
    from collections.abc import Iterable

    from django_task_operator.tasktable.table import Table

NO_TIME = dt.datetime(9999, 1, 1, tzinfo=dt.UTC)
DEFAULT = Selection("default", ("default",))
EVERYTHING = Selection("default", ("*",))


@dataclass(frozen=True)
class Row:
    """A task, with the fields that matter to a sample. Times are seconds from now."""

    queue: str = "default"
    status: str = "READY"
    backend: str = "default"
    enqueued: float = -10
    run_after: float | None = None
    workers: tuple[str, ...] = ()
    started: float | None = None


@dataclass(frozen=True)
class Became:
    """The fields of a row that matter to a client that waits for the result."""

    status: str
    workers: tuple[str, ...] = ()
    started: bool = True
    finished: bool = False
    exception_class_path: str = ""
    traceback: str = ""


class Stocked(Protocol):
    """A table that a test can put rows into."""

    table: Table
    now: dt.datetime

    def put(self, rows: Iterable[Row]) -> None: ...

    def became(self) -> list[Became]:
        """Every row, in the order in which they were enqueued."""


class TaskTableContract:
    """Subclasses define the fixture ``stocked``: an empty table."""

    def demand(self, stocked: Stocked, selection: Selection, limit: int = 100) -> SelectionDemand:
        return stocked.table.sample({selection: limit}).demands[selection]

    def test_an_empty_table_has_no_demand(self, stocked: Stocked) -> None:
        sample = stocked.table.sample({DEFAULT: 10, EVERYTHING: 10})
        assert sample.demands == {
            DEFAULT: SelectionDemand(0, 0, None),
            EVERYTHING: SelectionDemand(0, 0, None),
        }
        assert abs(sample.at - stocked.now) < dt.timedelta(minutes=1)

    @pytest.mark.parametrize(
        ("selection", "ready"),
        [
            (Selection("default", ("default",)), 1),
            (Selection("default", ("emails",)), 2),
            (Selection("default", ("default", "emails")), 3),
            (Selection("default", ("emails", "emails")), 2),
            (Selection("default", ("nowhere",)), 0),
            (Selection("default", ("*",)), 7),
            (Selection("default", ("emails", "*")), 7),
            (Selection("default", ("*",), ("slow",)), 3),
            (Selection("default", ("*",), ("slow", "emails", "nowhere")), 1),
            (Selection("default", ("emails", "slow"), ("slow",)), 2),
            (Selection("other", ("default",)), 8),
            (Selection("other", ("*",)), 8),
        ],
        ids=str,
    )
    def test_a_selection_takes_its_queues_of_its_backend(
        self, stocked: Stocked, selection: Selection, ready: int
    ) -> None:
        for status in ("READY", "RUNNING"):
            stocked.put([Row("default", status), *[Row("emails", status)] * 2, *[Row("slow", status)] * 4])
            stocked.put([Row("default", status, backend="other")] * 8)
        found = self.demand(stocked, selection)
        assert (found.ready, found.running) == (ready, ready)

    def test_only_unfinished_rows_count(self, stocked: Stocked) -> None:
        stocked.put([Row(status=status) for status in ("READY", "RUNNING", "SUCCESSFUL", "FAILED")])
        found = self.demand(stocked, DEFAULT)
        assert (found.ready, found.running) == (1, 1)

    def test_ready_rows_are_counted_up_to_the_limit_and_running_rows_all(self, stocked: Stocked) -> None:
        stocked.put([Row()] * 6 + [Row(run_after=-1)] * 6 + [Row(status="RUNNING")] * 9)
        for limit in (1, 5, 11, 12, 13):
            found = self.demand(stocked, DEFAULT, limit)
            assert (found.ready, found.running) == (min(12, limit), 9)

    @pytest.mark.parametrize(
        ("selection", "queues"),
        [
            (Selection("default", ("emails", "slow")), {"emails": (2, 1), "slow": (3, 0)}),
            (Selection("default", ("emails", "nowhere")), {"emails": (2, 1)}),
            (Selection("default", ("*",)), {"default": (0, 1), "emails": (2, 1), "slow": (3, 0)}),
            (Selection("default", ("*",), ("slow",)), {"default": (0, 1), "emails": (2, 1)}),
            (Selection("other", ("*",)), {"emails": (3, 0)}),
        ],
        ids=str,
    )
    def test_queues_are_told_apart(
        self, stocked: Stocked, selection: Selection, queues: dict[str, tuple[int, int]]
    ) -> None:
        stocked.put([Row("default", "RUNNING"), Row("emails", "RUNNING"), Row("later", run_after=500)])
        stocked.put([*[Row("emails")] * 2, *[Row("slow")] * 5, *[Row("emails", backend="other")] * 4])
        found = self.demand(stocked, selection, limit=3).queues
        assert {name: (queue.ready, queue.running) for name, queue in found.items()} == queues

    def test_each_queue_has_its_own_oldest_row(self, stocked: Stocked) -> None:
        stocked.put([Row("a", enqueued=-50), Row("a", enqueued=-70), Row("b", enqueued=-20)])
        stocked.put([Row("c", "RUNNING", enqueued=-90)])
        found = self.demand(stocked, EVERYTHING).queues
        ages = {
            name: queue.oldest_ready and round((stocked.now - queue.oldest_ready).total_seconds())
            for name, queue in found.items()
        }
        assert ages == {"a": 70, "b": 20, "c": None}

    def test_each_selection_has_its_own_limit(self, stocked: Stocked) -> None:
        stocked.put([Row()] * 9)
        both = Selection("default", ("default", "emails"))
        demands = stocked.table.sample({DEFAULT: 2, both: 5, EVERYTHING: 8}).demands
        assert [demand.ready for demand in demands.values()] == [2, 5, 8]

    def test_a_deferred_row_counts_once_its_time_has_come(self, stocked: Stocked) -> None:
        stocked.put([Row(run_after=-1), Row(run_after=3600), Row(run_after=3600 * 24 * 365 * 100)])
        assert self.demand(stocked, DEFAULT).ready == 1
        assert self.demand(stocked, EVERYTHING).ready == 1

    @pytest.mark.parametrize(
        ("rows", "age"),
        [
            ([Row(enqueued=-50), Row(enqueued=-70), Row(enqueued=-60)], 70),
            ([Row(enqueued=-500, run_after=-20), Row(enqueued=-10)], 20),
            ([Row(enqueued=-500, run_after=20), Row(enqueued=-10)], 10),
            ([Row(enqueued=-30, run_after=-500)], 30),
            ([Row(enqueued=-500, status="RUNNING"), Row(enqueued=-3)], 3),
            ([Row("emails", enqueued=-500), Row(enqueued=-3)], 3),
        ],
    )
    def test_the_oldest_row_is_the_one_that_became_due_first(
        self, stocked: Stocked, rows: list[Row], age: float
    ) -> None:
        stocked.put(rows)
        oldest = self.demand(stocked, DEFAULT).oldest_ready
        assert oldest is not None
        assert abs((stocked.now - oldest).total_seconds() - age) < 0.001

    def test_the_oldest_row_is_among_the_counted(self, stocked: Stocked) -> None:
        stocked.put([Row(enqueued=-age) for age in range(10, 60)])
        oldest = self.demand(stocked, DEFAULT, limit=3).oldest_ready
        assert oldest is not None
        assert abs((stocked.now - oldest).total_seconds() - 59) < 0.001

    def test_every_queue_includes_one_that_appears_later(self, stocked: Stocked) -> None:
        wanted = {EVERYTHING: 100, Selection("default", ("*",), ("b",)): 100}
        for queue, ready in (("m", [1, 1]), ("a", [2, 2]), ("z", [3, 3]), ("b", [4, 3]), ("n", [5, 4])):
            stocked.put([Row(queue)])
            demands = stocked.table.sample(wanted).demands
            assert [demand.ready for demand in demands.values()] == ready

    @pytest.mark.parametrize(
        ("served", "waiting"),
        [
            ([DEFAULT], ["emails", "late"]),
            ([DEFAULT, Selection("default", ("emails", "late"))], []),
            ([EVERYTHING], []),
            ([DEFAULT, EVERYTHING], []),
            ([Selection("default", ("*",), ("emails",))], ["emails"]),
            ([Selection("default", ("*",), ("emails",)), Selection("default", ("emails",))], []),
            ([Selection("third", ("default",))], []),
        ],
        ids=str,
    )
    def test_unserved_are_queues_with_due_rows_that_nobody_takes(
        self, stocked: Stocked, served: list[Selection], waiting: list[str]
    ) -> None:
        stocked.put(
            [
                *[Row(), Row("emails"), Row("late", run_after=-5), Row("later", run_after=500)],
                *[Row("running", "RUNNING"), Row("done", "SUCCESSFUL"), Row("elsewhere", backend="other")],
            ]
        )
        found = stocked.table.waiting_queues(served)
        assert found == {UnservedQueue("default", queue) for queue in waiting}

    def test_running_rows_say_who_has_had_them_since_when(self, stocked: Stocked) -> None:
        stocked.put([Row(status=status) for status in ("READY", "SUCCESSFUL", "FAILED")])
        stocked.put([Row("emails", "RUNNING", "other", workers=("a", "b/1.2"), started=-7)])
        listing = stocked.table.running()
        (row,) = listing.rows
        assert (row.task_path, row.queue, row.worker_id, row.attempts) == (
            "orders.tasks.send",
            "emails",
            "b/1.2",
            2,
        )
        assert row.started_at == stocked.now + dt.timedelta(seconds=-7)
        assert len(row.id) == 36
        assert listing.complete
        assert abs(listing.at - stocked.now) < dt.timedelta(minutes=1)

    def test_a_row_that_says_nothing_is_listed_too(self, stocked: Stocked) -> None:
        stocked.put([Row(status="RUNNING")])
        (row,) = stocked.table.running().rows
        assert (row.worker_id, row.attempts, row.started_at) == ("", 0, None)
        assert not stocked.table.settle(row, Requeued())

    def test_a_row_is_settled_as_failed(self, stocked: Stocked) -> None:
        stocked.put([Row(status="RUNNING", workers=("a",), started=-7)])
        (row,) = stocked.table.running().rows
        assert stocked.table.settle(row, Failed("builtins.ChildProcessError", "it's 100% {gone}\n"))
        assert stocked.became() == [
            Became("FAILED", ("a",), True, True, "builtins.ChildProcessError", "it's 100% {gone}\n")
        ]
        assert stocked.table.running().rows == ()

    def test_a_row_is_settled_as_ready_again(self, stocked: Stocked) -> None:
        stocked.put([Row(status="RUNNING", workers=("a", "b"), started=-7, run_after=-100)])
        (row,) = stocked.table.running().rows
        assert stocked.table.settle(row, Requeued())
        assert stocked.became() == [Became("READY", ("a", "b"), started=False)]
        assert self.demand(stocked, DEFAULT).ready == 1

    @pytest.mark.parametrize("earlier", [(), ("a",), ("a", "b/1.2")], ids=len)
    def test_a_row_is_settled_as_if_it_had_not_been_claimed(
        self, stocked: Stocked, earlier: tuple[str, ...]
    ) -> None:
        stocked.put([Row(status="RUNNING", workers=(*earlier, "c"), started=-7, run_after=-100)])
        (row,) = stocked.table.running().rows
        assert stocked.table.settle(row, Requeued(counted=False))
        assert stocked.became() == [Became("READY", earlier, started=False)]
        assert self.demand(stocked, DEFAULT).ready == 1

    def test_only_the_one_row_is_settled_and_once(self, stocked: Stocked) -> None:
        stocked.put([Row(status="RUNNING", workers=("a",), started=-7, enqueued=-age) for age in (9, 8, 7)])
        rows = stocked.table.running().rows
        assert stocked.table.settle(rows[1], Requeued())
        assert not stocked.table.settle(rows[1], Requeued())
        assert not stocked.table.settle(rows[1], Failed("a.B", "c"))
        assert sorted(row.status for row in stocked.became()) == ["READY", "RUNNING", "RUNNING"]

    def test_a_row_that_was_claimed_again_is_not_settled(self, stocked: Stocked) -> None:
        stocked.put([Row(status="RUNNING", workers=("a",), started=-7)])
        (row,) = stocked.table.running().rows
        later = replace(row, started_at=stocked.now + dt.timedelta(seconds=-6.999999))
        assert not stocked.table.settle(later, Requeued())
        assert stocked.became() == [Became("RUNNING", ("a",))]
