"""A task table in memory, and an event loop whose clock only moves while everything waits."""

from __future__ import annotations

import asyncio
import datetime as dt
import uuid
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from tests.contract.tasktable import Became

from django_task_operator.tasktable import (
    Durations,
    Failed,
    Listing,
    QueueDemand,
    RunningRow,
    Sample,
    Selection,
    SelectionDemand,
    UnservedQueue,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from tests.contract.tasktable import Row

    from django_task_operator.tasktable import DatabaseError, Settlement


class FakeTaskTable:
    """Counts rows as a database would, and records the calls."""

    def __init__(self) -> None:
        self.table = self
        self.now = dt.datetime.now(dt.UTC)
        self.rows: list[Row] = []
        self.seconds = 0.0
        self.error: DatabaseError | None = None
        self.samples: list[Mapping[Selection, int]] = []
        self.looks = 0
        self.listings = 0
        self.measured: list[frozenset[Selection]] = []
        self.took: dict[Selection, Durations] = {}
        self.settled: dict[int, Settlement] = {}
        self.interrupts = 0
        self.closed = False

    def put(self, rows: Iterable[Row]) -> None:
        self.rows.extend(rows)

    def sample(self, wanted: Mapping[Selection, int]) -> Sample:
        self.samples.append(dict(wanted))
        self._fail()
        demands = {selection: self._demand(selection, limit) for selection, limit in wanted.items()}
        return Sample(self.now, self.seconds, demands)

    def waiting_queues(self, served: Collection[Selection]) -> frozenset[UnservedQueue]:
        self.looks += 1
        self._fail()
        backends = {selection.backend for selection in served}
        return frozenset(
            UnservedQueue(row.backend, row.queue)
            for row in self.rows
            if row.backend in backends and self._is_due(row) and not any(_takes(some, row) for some in served)
        )

    def durations(self, selections: Collection[Selection]) -> dict[Selection, Durations]:
        self.measured.append(frozenset(selections))
        self._fail()
        return {selection: self.took.get(selection, Durations()) for selection in selections}

    def running(self) -> Listing:
        self.listings += 1
        self._fail()
        rows = [self._running(key, row) for key, row in self._keyed() if row.status == "RUNNING"]
        return Listing(self.now, self.seconds, tuple(rows))

    def settle(self, row: RunningRow, settlement: Settlement) -> bool:
        self._fail()
        for number, (key, mine) in enumerate(self._keyed()):
            if mine.status == "RUNNING" and row.started_at and self._running(key, mine) == row:
                if isinstance(settlement, Failed):
                    self.rows[number] = replace(mine, status="FAILED")
                else:
                    workers = mine.workers if settlement.counted else row.earlier
                    self.rows[number] = replace(mine, status="READY", workers=workers)
                self.settled[number] = settlement
                return True
        return False

    def became(self) -> list[Became]:
        return [
            Became(
                row.status,
                row.workers,
                started=row.status != "READY",
                finished=number in self.settled and row.status != "READY",
                **(asdict(settled) if isinstance(settled := self.settled.get(number), Failed) else {}),
            )
            for number, row in enumerate(self.rows)
        ]

    def _keyed(self) -> list[tuple[str, Row]]:
        return [(str(uuid.UUID(int=number)), row) for number, row in enumerate(self.rows)]

    def _running(self, key: str, row: Row) -> RunningRow:
        started_at = None if row.started is None else self.now + dt.timedelta(seconds=row.started)
        worker_id = row.workers[-1] if row.workers else ""
        return RunningRow(
            key,
            "orders.tasks.send",
            row.queue,
            worker_id,
            len(row.workers),
            started_at,
            earlier=row.workers[:-1],
        )

    def close(self) -> None:
        self.closed = True

    def interrupt(self) -> None:
        self.interrupts += 1

    def _fail(self) -> None:
        if self.error is not None:
            raise self.error

    def _demand(self, selection: Selection, limit: int) -> SelectionDemand:
        rows = [row for row in self.rows if _takes(selection, row)]
        names = {row.queue for row in rows if row.status == "RUNNING" or self._is_due(row)}
        queues = {
            name: QueueDemand(*self._count([row for row in rows if row.queue == name], limit))
            for name in names
        }
        return SelectionDemand(*self._count(rows, limit), queues)

    def _count(self, rows: list[Row], limit: int) -> tuple[int, int, dt.datetime | None]:
        due = sorted(_due_at(row) for row in rows if self._is_due(row))[:limit]
        running = sum(row.status == "RUNNING" for row in rows)
        return len(due), running, self.now + dt.timedelta(seconds=due[0]) if due else None

    def _is_due(self, row: Row) -> bool:
        return row.status == "READY" and (row.run_after is None or row.run_after <= 0)


def _due_at(row: Row) -> float:
    return row.enqueued if row.run_after is None else max(row.enqueued, row.run_after)


def _takes(selection: Selection, row: Row) -> bool:
    return (
        row.backend == selection.backend
        and (selection.is_every_queue or row.queue in selection.queues)
        and row.queue not in selection.exclude_queues
    )


class InlineLane:
    """Runs a table's calls in the event loop; each takes as long as the table says."""

    def __init__(self, table: FakeTaskTable) -> None:
        self._table = table
        self.busy = False
        self.ended = False

    async def run[T](self, job: Callable[[], T]) -> T:
        assert not self.busy, "two calls to one database at a time"
        assert not self.ended
        self.busy = True
        try:
            await asyncio.sleep(self._table.seconds)
            return job()
        finally:
            self.busy = False

    def end(self) -> None:
        self.ended = True
