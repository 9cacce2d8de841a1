"""The task table on real PostgreSQL and MariaDB, with and without the index."""

from __future__ import annotations

import asyncio
import datetime as dt
import itertools
import random
import string
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import pytest
from django.utils import timezone
from tests.contract.tasktable import DEFAULT, EVERYTHING, NO_TIME, Became, Row, TaskTableContract
from tests.integration.databases import (
    TABLE,
    as_default,
    create_database,
    create_indexes,
    drop_indexes,
    execute,
    opened,
)
from tests.waiting import eventually

from django_task_operator.tasktable import Databases, DatabaseURL, Selection, TaskTable
from django_task_operator.tasktable.errors import ConnectionLost
from django_task_operator.tasktable.statement import BECAME_DUE
from django_task_operator.tasktable.thread import ThreadLane

from django_tasks_db.models import DBTaskResult  # isort: skip

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from django.db.backends.base.base import BaseDatabaseWrapper
    from tests.integration.databases import Server

    from django_task_operator.tasktable import Sample


MINUTE = dt.timedelta(minutes=1)


@dataclass
class RealTable:
    """A task table, as the project's models and as the operator see it."""

    table: TaskTable
    url: str
    now: dt.datetime

    @classmethod
    @contextmanager
    def opened(cls, url: str) -> Iterator[Self]:
        """The table of a database, as Django's default database; empty again at the end."""
        with as_default(url) as connection:
            table = TaskTable(DatabaseURL.parse(url))
            yield cls(table, url, timezone.now())
            table.close()
            execute(connection, f"DELETE FROM {TABLE}")

    def put(self, rows: Iterable[Row]) -> None:
        DBTaskResult.objects.bulk_create([self._model(row) for row in rows])

    def _model(self, row: Row) -> DBTaskResult[Any, Any]:
        run_after = NO_TIME if row.run_after is None else self.now + dt.timedelta(seconds=row.run_after)
        made: DBTaskResult[Any, Any] = DBTaskResult(
            id=uuid.uuid4(),
            status=row.status,
            backend_name=row.backend,
            queue_name=row.queue,
            run_after=run_after,
            task_path="orders.tasks.send",
            args_kwargs={"args": [], "kwargs": {}},
            exception_class_path="",
            traceback="",
        )
        made.enqueued_at = self.now + dt.timedelta(seconds=row.enqueued)
        made.worker_ids = list(row.workers)
        made.started_at = None if row.started is None else self.now + dt.timedelta(seconds=row.started)
        return made

    def became(self) -> list[Became]:
        return [
            Became(
                row.status,
                tuple(row.worker_ids),
                started=row.started_at is not None,
                finished=row.finished_at is not None and abs(row.finished_at - self.now) < MINUTE,
                exception_class_path=row.exception_class_path,
                traceback=row.traceback,
            )
            for row in DBTaskResult.objects.order_by("enqueued_at")
        ]


@pytest.fixture(scope="module", params=["indexed", "without_index"])
def url(server: Server, request: pytest.FixtureRequest) -> str:
    return create_database(server, f"shop_{request.param}", indexed=request.param == "indexed")


@pytest.fixture
def stocked(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[RealTable]:
    # It would overrule a value that is given.
    monkeypatch.setattr(DBTaskResult._meta.get_field("enqueued_at"), "auto_now_add", False)
    with RealTable.opened(url) as table:
        yield table


class TestReal(TaskTableContract):
    """The contract; the fixture is above."""


def test_the_index_is_noticed(stocked: RealTable) -> None:
    assert stocked.table.sample({DEFAULT: 1}).indexed is ("without_index" not in stocked.url)


QUEUES = [
    "default",
    "emails",
    "Emails",
    "é",
    "e",
    "50%",
    "it's",
    'a "b"',
    "c\\d",
    "{x}",
    ":p",
    "日本",
    "a",
    "b",
]


def selections(chance: random.Random) -> Iterator[Selection]:
    for _ in range(12):
        some = tuple(chance.sample(QUEUES, chance.randint(1, 5)))
        others = tuple(chance.sample(QUEUES, chance.randint(0, 4)))
        backend = chance.choice(["default", "other", "it's"])
        yield Selection(backend, chance.choice([some, some, ("*",)]), chance.choice([(), others]))


@pytest.mark.parametrize("seed", range(8))
def test_it_counts_what_the_worker_would_claim(stocked: RealTable, seed: int) -> None:
    chance = random.Random(seed)
    ages = [-1000 * chance.random() for _ in range(400)]
    stocked.put(
        Row(
            queue=chance.choice(QUEUES[: 3 + seed * 2]),
            status=chance.choice(["READY", "READY", "RUNNING", "SUCCESSFUL", "FAILED"]),
            backend=chance.choice(["default", "default", "other", "it's"]),
            enqueued=age,
            run_after=chance.choice([None, None, -2000 * chance.random(), 60 + 9000 * chance.random()]),
        )
        for age in ages
    )
    wanted = {selection: chance.choice([3, 20, 1000]) for selection in selections(chance)}
    sample = stocked.table.sample(wanted)
    for selection, limit in wanted.items():
        # As db_worker of django-tasks-db 0.13 does.
        tasks: Any = DBTaskResult.objects.filter(backend_name=selection.backend)
        if "*" not in selection.queues:
            tasks = tasks.filter(queue_name__in=selection.queues)
        if selection.exclude_queues:
            tasks = tasks.exclude(queue_name__in=selection.exclude_queues)
        demand = sample.demands[selection]
        due = tasks.ready().annotate(due=BECAME_DUE).order_by("due").values_list("due", flat=True)
        assert demand.ready == min(limit, due.count()), selection
        assert demand.running == tasks.running().count(), selection
        assert sum(queue.running for queue in demand.queues.values()) == demand.running, selection
        if limit == 1000:
            assert demand.oldest_ready == due.first(), selection
            assert sum(queue.ready for queue in demand.queues.values()) == demand.ready, selection


def test_names_that_the_database_takes_for_one_are_counted_once(stocked: RealTable) -> None:
    stocked.put([Row("emails"), Row("Emails"), Row("emails", "RUNNING")])
    both, upper = Selection("default", ("emails", "Emails")), Selection("default", ("Emails",))
    found = stocked.table.sample({both: 10, upper: 10}).demands
    emails: Any = DBTaskResult.objects.filter(queue_name="Emails")
    alike = emails.ready().count()
    assert (found[both].ready, found[both].running) == (2, 1)
    assert (found[upper].ready, found[upper].running) == (alike, alike - 1)
    told = {name: (queue.ready, queue.running) for name, queue in found[upper].queues.items()}
    assert told == {"Emails": (alike, alike - 1)}


def test_hundreds_of_workers_and_of_queues(stocked: RealTable) -> None:
    names = ["".join(pair) for pair in itertools.product(string.ascii_lowercase[:10], repeat=3)][:300]
    stocked.put(Row(name) for name in names)
    wanted = {Selection("default", (name,)): 5 for name in names}
    demands = stocked.table.sample({**wanted, EVERYTHING: 1000}).demands
    assert {demands[selection].ready for selection in wanted} == {1}
    assert demands[EVERYTHING].ready == 300
    others = stocked.table.sample({Selection("default", ("*",), ("aaa", "nowhere")): 1000}).demands
    assert [demand.ready for demand in others.values()] == [299]


def test_queues_that_are_too_many_to_name_are_told_together(stocked: RealTable) -> None:
    stocked.put(Row(f"queue-{number}", status) for number in range(101) for status in ("READY", "RUNNING"))
    found = stocked.table.sample({EVERYTHING: 1000}).demands[EVERYTHING].queues
    if stocked.table.sample({EVERYTHING: 1000}).indexed:
        assert {name: (queue.ready, queue.running) for name, queue in found.items()} == {"": (101, 101)}
    else:
        assert {(queue.ready, queue.running) for queue in found.values()} == {(1, 1)}
        assert len(found) == 101


def test_a_worker_of_every_queue_asks_once_a_poll(stocked: RealTable) -> None:
    wanted = {EVERYTHING: 10}
    for queue in ("b", "a", "c"):
        stocked.put([Row(queue)])
        stocked.table.sample(wanted)
    DBTaskResult.objects.filter(queue_name="b").delete()
    stocked.table.sample(wanted)
    prepared = stocked.table._poll
    stocked.put([Row("b")])
    assert stocked.table.sample(wanted).demands[EVERYTHING].ready == 3
    assert stocked.table._poll is prepared, "a queue that fills again is known"


EMAILS = Selection("default", ("emails",))


def end(queue: str, took: float, status: str = "SUCCESSFUL") -> None:
    """End all tasks of a queue that run, as a worker would that has run each for ``took`` seconds."""
    now = timezone.now()
    DBTaskResult.objects.filter(queue_name=queue, status="RUNNING").update(
        status=status, started_at=now - dt.timedelta(seconds=took), finished_at=now
    )


def test_tasks_that_are_seen_running_are_measured_when_they_have_ended(stocked: RealTable) -> None:
    table, both = stocked.table, [DEFAULT, EMAILS]
    stocked.put([Row("default", "RUNNING", started=-9)] * 3 + [Row("emails", "RUNNING", started=-9)])
    stocked.put([Row("emails", "RUNNING", backend="other"), Row("slow", "RUNNING"), Row("default")])
    table.sample({DEFAULT: 9, EMAILS: 9})
    if "without_index" in stocked.url:
        assert table.durations(both) == {}, "it would read the whole table"
        return
    seen = table.durations(both)
    assert [(seen[each].tasks, seen[each].running_for) for each in both] == [(0, 0), (0, 0)]
    end("default", 20)
    end("slow", 99)
    found = table.durations(both)
    assert found[DEFAULT].tasks == 3
    assert found[DEFAULT].seconds == pytest.approx(60, abs=0.01)
    assert (found[EMAILS].tasks, found[EMAILS].seconds) == (0, 0)
    assert found[DEFAULT].running_for == 0 < found[EMAILS].running_for
    end("emails", 40, "FAILED")
    found = table.durations(both)
    assert (found[DEFAULT].tasks, found[EMAILS].tasks) == (0, 1)
    assert found[EMAILS].seconds == pytest.approx(40, abs=0.01)
    assert found[EMAILS].running_for == 0


def test_a_row_that_waits_again_or_is_gone_is_not_measured(stocked: RealTable) -> None:
    stocked.put([Row("default", "RUNNING", started=-9)] * 2 + [Row("emails", "RUNNING", started=-9)])
    stocked.table.sample({EVERYTHING: 9})
    stocked.table.durations([EVERYTHING])
    DBTaskResult.objects.filter(queue_name="default").update(status="READY", started_at=None)
    DBTaskResult.objects.filter(queue_name="emails").delete()
    found = stocked.table.durations([EVERYTHING])
    assert [each.tasks for each in found.values()] in ([0], [])


def test_short_tasks_are_measured_as_often_as_there_are_others_like_them(stocked: RealTable) -> None:
    """At any moment, as many tasks of 1 s are seen as of 0.1 s, of which there are ten times as many."""
    if "without_index" in stocked.url:
        pytest.skip("nothing is measured without the index")
    stocked.put([Row("default", "RUNNING", started=-1)] * 5 + [Row("emails", "RUNNING", started=-1)] * 5)
    stocked.table.sample({EVERYTHING: 9})
    stocked.table.durations([EVERYTHING])
    end("default", 1.0)
    end("emails", 0.1)
    found = stocked.table.durations([EVERYTHING])[EVERYTHING]
    assert found.tasks == pytest.approx(55)
    assert found.seconds / found.tasks == pytest.approx(10 / 55)


def test_no_transaction_is_left_open_and_the_connection_has_a_name(postgres: Server) -> None:
    table = TaskTable(DatabaseURL.parse(create_database(postgres, "shop_state")))
    table.sample({EVERYTHING: 10})
    activity = (
        "SELECT application_name, state, current_setting('statement_timeout')"
        " FROM pg_stat_activity WHERE datname = 'shop_state' AND pid <> pg_backend_pid()"
    )
    with opened(postgres.url()) as connection:
        assert [row[:2] for row in execute(connection, activity)] == [("django-task-operator", "idle")]
        table.close()


class Counted(TaskTable):
    """Counts its samples."""

    samples = 0

    def sample(self, wanted: Mapping[Selection, int]) -> Sample:
        self.samples += 1
        return super().sample(wanted)


async def _fifty(url: str, polls: int) -> tuple[list[int], int]:
    """Run fifty workers on one database for at least so many polls; return what each saw, and the polls."""
    table = Counted(DatabaseURL.parse(url))
    databases = Databases(open_table=lambda _: table)
    subscriptions = [
        databases.subscribe(
            DatabaseURL.parse(url),
            Selection("default", (f"queue-{number}",)),
            secret=("shop", "shop-db"),
            limit=100,
            poll_seconds=0.05,
            wake=lambda: None,
        )
        for number in range(50)
    ]
    # In a thread: the databases need this loop.
    await asyncio.to_thread(
        eventually,
        lambda: table.samples >= polls and all(one.observation.demand for one in subscriptions),
        f"{polls} polls",
    )
    ready = [one.observation.demand.ready for one in subscriptions if one.observation.demand]
    await databases.close()
    return ready, table.samples


def test_fifty_workers_cost_one_connection_and_one_statement_a_poll_on_postgresql(postgres: Server) -> None:
    url = create_database(postgres, "shop_fifty", indexed=True)
    with opened(postgres.url("shop_fifty")) as connection:
        execute(connection, "CREATE EXTENSION pg_stat_statements")
        execute(connection, "SELECT pg_stat_statements_reset()")
        before = _sessions(connection)
        ready, polls = asyncio.run(_fifty(url, 20))
        assert ready == [0] * 50
        assert _sessions(connection) - before == 1
        statements = execute(connection, STATEMENTS)
        polled = [calls for query, calls in statements if ") arm UNION" in query]
        # The last one may have been cut off.
        assert polls - 1 <= sum(polled) <= polls
        # The index is looked for once, which takes a few statements.
        assert sum(calls for query, calls in statements if ") arm UNION" not in query) <= 10


STATEMENTS = """
    SELECT query, calls FROM pg_stat_statements JOIN pg_database ON oid = dbid
    WHERE datname = 'shop_fifty' AND query NOT LIKE '%pg_stat%'
"""


def _sessions(connection: BaseDatabaseWrapper) -> int:
    (row,) = execute(connection, "SELECT sessions FROM pg_stat_database WHERE datname = 'shop_fifty'")
    return int(row[0])


def test_fifty_workers_cost_one_connection_and_one_statement_a_poll_on_mariadb(mariadb: Server) -> None:
    url = create_database(mariadb, "shop_fifty", indexed=True)

    def status(name: str) -> int:
        return int(mariadb.administer(f"SHOW GLOBAL STATUS LIKE '{name}'").split()[1])

    connections, selects = status("Connections"), status("Com_select")
    ready, polls = asyncio.run(_fifty(url, 20))
    assert ready == [0] * 50
    # Asking for the status costs one too, each time.
    assert status("Connections") - connections == 3
    assert polls - 1 <= status("Com_select") - selects <= polls + 8


def test_a_hanging_sample_can_be_interrupted(server: Server) -> None:
    table = TaskTable(DatabaseURL.parse(create_database(server, "shop_hanging")))

    async def story() -> None:
        lane = ThreadLane("database")
        await lane.run(lambda: table.sample({DEFAULT: 1}))
        server.docker("pause")
        try:
            hanging = asyncio.ensure_future(lane.run(lambda: table.sample({DEFAULT: 1})))
            assert not (await asyncio.wait([hanging], timeout=0.5))[0]
            table.interrupt()
            with pytest.raises(ConnectionLost):
                await asyncio.wait_for(hanging, 5)
        finally:
            server.docker("unpause")
        assert (await lane.run(lambda: table.sample({DEFAULT: 1}))).demands
        await lane.run(table.close)
        lane.end()

    asyncio.run(story())


def test_the_indexes_of_the_workers_command_are_those_that_are_looked_for(server: Server) -> None:
    url = create_database(server, "shop_again", indexed=True)
    with opened(url) as connection:
        for step in (drop_indexes, create_indexes):
            step(connection)
            table = TaskTable(DatabaseURL.parse(url))
            assert table.sample({DEFAULT: 1}).indexed is (step is create_indexes)
            table.close()


def test_an_index_that_is_not_finished_is_not_relied_on(postgres: Server) -> None:
    url = create_database(postgres, "shop_invalid", indexed=True)
    with opened(url) as connection:
        index = "'django_task_operator_idx'::regclass"
        execute(connection, f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = {index}")
    table = TaskTable(DatabaseURL.parse(url))
    assert not table.sample({DEFAULT: 1}).indexed
    table.close()


def test_the_plan_reads_the_index_alone(postgres: Server) -> None:
    """On a table that is large enough for the planner to use the index."""
    url = create_database(postgres, "shop_plan", indexed=True)
    with opened(url) as connection:
        execute(connection, ROWS)
        execute(connection, f"VACUUM ANALYZE {TABLE}")
        table = TaskTable(DatabaseURL.parse(url))
        table.sample({DEFAULT: 100, EVERYTHING: 100, Selection("default", ("*",), ("slow",)): 100})
        poll = table._poll
        assert poll is not None
        lines = execute(connection, "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) " + poll.text)
        plan = "\n".join(line for (line,) in lines)
        table.close()
    assert "Seq Scan" not in plan, plan
    assert set(_indexes(plan)) <= {"django_task_operator_idx", "django_task_claims_idx"}, plan


ROWS = f"""
    INSERT INTO {TABLE} SELECT
        gen_random_uuid(), (array['SUCCESSFUL', 'READY'])[1 + i % 2], '{{}}', 0, 'orders.tasks.send',
        (array['default', 'emails', 'slow'])[1 + i % 3], 'default',
        CASE WHEN i % 5 = 0 THEN now() + interval '1 day' ELSE '9999-01-01 00:00Z' END,
        now(), NULL, NULL, NULL, '', '', '[]'
    FROM generate_series(1, 100000) i
"""


def _indexes(plan: str) -> Iterator[str]:
    for line in plan.splitlines():
        if " using " in line:
            yield line.split(" using ")[1].split()[0]
