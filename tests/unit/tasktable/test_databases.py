"""When databases are polled, and who gets the results. The clock skips; nothing sleeps."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest
from tests.contract.tasktable import DEFAULT, EVERYTHING, Row
from tests.unit.simulation import skipping
from tests.unit.tasktable.fake import FakeTaskTable, InlineLane

from django_task_operator import telemetry
from django_task_operator.tasktable import (
    DatabaseError,
    Databases,
    DatabaseURL,
    Requeued,
    Selection,
    SelectionDemand,
    Subscription,
    UnservedQueue,
)
from django_task_operator.tasktable.databases import SHARED_SECONDS
from django_task_operator.tasktable.errors import (
    ConnectionLost,
    ConnectionRefused,
    SampleTimedOut,
    TableMissing,
)
from django_task_operator.tasktable.values import Durations

SHOP = DatabaseURL.parse("postgres://shop:secret@db/shop")
BLOG = DatabaseURL.parse("mysql://blog:secret@db/blog")
EMAILS = Selection("default", ("emails",))


@dataclass
class World:
    """Fake databases, one for each URL."""

    tables: dict[DatabaseURL, FakeTaskTable] = field(default_factory=dict)
    lanes: list[InlineLane] = field(default_factory=list)
    opened: list[DatabaseURL] = field(default_factory=list)

    def __post_init__(self) -> None:
        for url in (SHOP, BLOG):
            self.tables[url] = FakeTaskTable()
        self.databases = Databases(open_table=self._open, open_lane=self._lane, jitter=lambda: 1.0)

    def _open(self, url: DatabaseURL) -> FakeTaskTable:
        self.opened.append(url)
        return self.tables[url]

    def _lane(self, _name: str) -> InlineLane:
        lane = InlineLane(self.tables[self.opened[-1]])
        self.lanes.append(lane)
        return lane

    def subscribe(
        self,
        selection: Selection = DEFAULT,
        *,
        url: DatabaseURL = SHOP,
        secret: tuple[str, str] = ("shop", "shop-db"),
        limit: int = 100,
        poll_seconds: float = 1.0,
        measures: bool = False,
    ) -> Woken:
        woken = Woken()
        woken.subscription = self.databases.subscribe(
            url,
            selection,
            secret=secret,
            limit=limit,
            poll_seconds=poll_seconds,
            wake=woken.wake,
            measures=measures,
        )
        return woken


class Woken:
    """A subscription, and its state each time that it woke its worker."""

    subscription: Subscription

    def __init__(self) -> None:
        self.times: list[float] = []
        self.seen: list[tuple[SelectionDemand | None, DatabaseError | None]] = []

    def wake(self) -> None:
        self.times.append(asyncio.get_running_loop().time())
        observation = self.subscription.observation
        self.seen.append((observation.demand, observation.error))


async def seconds(number: float) -> None:
    # A little more, so that everything that is due at that moment has happened.
    await asyncio.sleep(number + 0.001)


def test_the_first_poll_comes_at_once_and_wakes() -> None:
    async def story() -> None:
        world = World()
        world.tables[SHOP].put([Row()] * 3 + [Row(status="RUNNING")])
        worker = world.subscribe()
        assert worker.subscription.observation.demand is None
        await seconds(0.1)
        (demand, error), *more = worker.seen
        assert not more
        assert error is None
        assert demand is not None
        assert (demand.ready, demand.running) == (3, 1)
        assert worker.subscription.observation.sampled_at == world.tables[SHOP].now
        assert worker.subscription.observation.oldest_ready_seconds == 10

    skipping(story())


def test_fifty_workers_share_one_poll_and_one_table() -> None:
    async def story() -> None:
        world = World()
        workers = [world.subscribe(Selection("default", (f"q{n}",))) for n in range(50)]
        await seconds(0.2)
        assert world.opened == [SHOP]
        assert [len(wanted) for wanted in world.tables[SHOP].samples] == [50]
        assert all(len(worker.seen) == 1 for worker in workers)
        await seconds(60)
        assert 60 <= len(world.tables[SHOP].samples) <= 62

    skipping(story())


def test_workers_that_trickle_in_do_not_cause_a_poll_each() -> None:
    async def story() -> None:
        world = World()
        for number in range(50):
            world.subscribe(Selection("default", (f"q{number}",)))
            await asyncio.sleep(0.02)
        await seconds(0.25)
        assert len(world.tables[SHOP].samples) <= 6
        assert len(world.tables[SHOP].samples[-1]) == 50

    skipping(story())


def test_an_idle_worker_is_never_woken_again() -> None:
    async def story() -> None:
        world = World()
        worker = world.subscribe()
        await seconds(3600)
        assert worker.seen == [(SelectionDemand(0, 0, None), None)]
        assert len(world.tables[SHOP].samples) > 3500

    skipping(story())


def test_a_change_wakes_whom_it_concerns_within_a_poll() -> None:
    async def story() -> None:
        world = World()
        default, emails = world.subscribe(DEFAULT), world.subscribe(EMAILS)
        await seconds(10)
        world.tables[SHOP].put([Row("emails")])
        await seconds(1)
        assert len(default.seen) == 1
        assert len(emails.seen) == 2

    skipping(story())


def test_each_subscriber_sees_no_more_than_its_limit() -> None:
    async def story() -> None:
        world = World()
        world.tables[SHOP].put([Row()] * 9)
        some, more = world.subscribe(limit=3), world.subscribe(limit=7)
        await seconds(1)
        assert world.tables[SHOP].samples[0] == {DEFAULT: 7}
        for worker, ready in ((some, 3), (more, 7)):
            demand = worker.subscription.observation.demand
            assert demand is not None
            assert demand.ready == ready
        world.tables[SHOP].put([Row()])
        await seconds(2)
        assert len(some.seen) == len(more.seen) == 1

    skipping(story())


def test_the_shortest_interval_wins_while_its_worker_stays() -> None:
    async def story() -> None:
        world = World()
        world.subscribe(poll_seconds=30)
        await seconds(300)
        assert len(world.tables[SHOP].samples) == 10
        hurried = world.subscribe(EMAILS, poll_seconds=0.5)
        await seconds(10)
        assert 30 <= len(world.tables[SHOP].samples) <= 33
        hurried.subscription.close()
        await seconds(1)
        before = len(world.tables[SHOP].samples)
        await seconds(300)
        assert 10 <= len(world.tables[SHOP].samples) - before <= 11

    skipping(story())


@pytest.mark.parametrize(("sample", "pause"), [(0.0, 1.0), (0.1, 1.0), (0.2, 1.0), (0.5, 2.5), (6.0, 30.0)])
def test_a_slow_database_spends_a_fifth_of_its_time_at_most(sample: float, pause: float) -> None:
    async def story() -> None:
        world = World()
        world.tables[SHOP].seconds = sample
        world.subscribe(EVERYTHING)
        await seconds(10 * pause + sample)
        assert 10 <= len(world.tables[SHOP].samples) <= 11

    skipping(story())


def test_a_slow_database_delays_no_other() -> None:
    async def story() -> None:
        world = World()
        world.tables[SHOP].seconds = 9.0
        world.subscribe(url=SHOP)
        other = world.subscribe(url=BLOG)
        await seconds(8)
        assert world.tables[SHOP].samples == []
        assert len(world.tables[BLOG].samples) == 8
        assert len(other.seen) == 1

    skipping(story())


def metric(name: str, secret: tuple[str, str], **more: str) -> float | None:
    labels = {"namespace": secret[0], "database": secret[1], **more}
    return telemetry.REGISTRY.get_sample_value(f"django_task_operator_{name}", labels)


def connected() -> float:
    return telemetry.REGISTRY.get_sample_value("django_task_operator_connected_databases") or 0.0


def test_each_secret_of_a_database_has_its_samples_and_errors() -> None:
    async def story() -> None:
        world, before = World(), connected()
        # Others of this process may use the usual one.
        shop, blog = ("counted", "shop-db"), ("blog", "blog-db")
        one, two = world.subscribe(secret=shop), world.subscribe(EMAILS, secret=shop)
        other = world.subscribe(EVERYTHING, secret=blog)
        await seconds(3)
        count = len(world.tables[SHOP].samples)
        assert metric("sample_seconds_count", shop) == metric("sample_seconds_count", blog) == count
        assert connected() == before + 1
        world.tables[SHOP].error = ConnectionRefused()
        await seconds(1)
        assert metric("sample_errors_total", shop, reason="ConnectionRefused") == 1
        assert metric("sample_errors_total", blog, reason="ConnectionRefused") == 1
        assert connected() == before
        other.subscription.close()
        one.subscription.close()
        assert metric("sample_seconds_count", blog) is None
        assert metric("sample_errors_total", blog, reason="ConnectionRefused") is None
        assert metric("sample_seconds_count", shop) == count
        world.tables[SHOP].error = None
        await seconds(31)
        assert connected() == before + 1
        two.subscription.close()
        two.subscription.close()
        await seconds(1)
        assert metric("sample_seconds_count", shop) is None
        assert connected() == before

    skipping(story())


def test_trouble_keeps_the_demand_and_is_said_once() -> None:
    async def story() -> None:
        world = World()
        world.tables[SHOP].put([Row()])
        worker = world.subscribe()
        await seconds(5)
        world.tables[SHOP].error = ConnectionRefused()
        await seconds(600)
        assert [error for _, error in worker.seen] == [None, ConnectionRefused()]
        assert worker.seen[1][0] == worker.seen[0][0]
        world.tables[SHOP].error = TableMissing()
        await seconds(31)
        world.tables[SHOP].error = None
        await seconds(31)
        assert [error for _, error in worker.seen[2:]] == [TableMissing(), None]

    skipping(story())


def test_retries_grow_apart_and_start_over_after_a_success() -> None:
    async def story() -> None:
        world = World()
        table = world.tables[SHOP]
        table.error = SampleTimedOut(seconds=10)
        world.subscribe()
        times = []
        for _ in range(200):
            before = len(table.samples)
            await asyncio.sleep(1)
            times.append(len(table.samples) - before)
        # At 0, 1, 3, 7, 15 and 31 seconds, and each 30 from then on.
        assert [second for second, count in enumerate(times) if count] == [
            0,
            1,
            3,
            7,
            15,
            31,
            *range(61, 200, 30),
        ]
        table.error = None
        await seconds(30)
        table.error = SampleTimedOut(seconds=10)
        await seconds(1)
        before = len(table.samples)
        await seconds(1)
        assert len(table.samples) > before

    skipping(story())


def test_who_comes_during_trouble_learns_of_it_and_does_not_hasten_the_retry() -> None:
    async def story() -> None:
        world = World()
        world.tables[SHOP].error = ConnectionRefused()
        world.subscribe()
        await seconds(16)
        before = len(world.tables[SHOP].samples)
        late = world.subscribe(EMAILS)
        assert late.subscription.observation.error == ConnectionRefused()
        await seconds(10)
        assert len(world.tables[SHOP].samples) == before
        world.tables[SHOP].error = None
        await seconds(10)
        assert late.seen == [(SelectionDemand(0, 0, None), None)]

    skipping(story())


def test_a_defect_is_reported_and_retried_like_trouble(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        world = World()
        world.tables[SHOP].error = ZeroDivisionError()  # type: ignore[assignment]
        worker = world.subscribe()
        await seconds(1)
        world.tables[SHOP].error = None
        await seconds(2)
        (_, failed), (_, recovered) = worker.seen
        assert failed is not None
        assert "ZeroDivisionError" in failed.message
        assert recovered is None
        assert "sample crashed" in caplog.text

    skipping(story())


def test_who_comes_during_a_poll_gets_one_soon_after_it() -> None:
    async def story() -> None:
        world = World()
        world.tables[SHOP].seconds = 2.0
        world.subscribe()
        await seconds(1)
        world.tables[SHOP].put([Row("emails")])
        late = world.subscribe(EMAILS)
        await seconds(4)
        assert [demand and demand.ready for demand, _ in late.seen] == [1]

    skipping(story())


def test_the_last_to_leave_lets_the_connection_and_the_thread_go() -> None:
    async def story() -> None:
        world = World()
        one, two = world.subscribe(), world.subscribe(EMAILS)
        await seconds(5)
        one.subscription.close()
        one.subscription.close()
        await seconds(5)
        assert not world.tables[SHOP].closed
        two.subscription.close()
        await seconds(0)
        assert world.tables[SHOP].closed
        assert [lane.ended for lane in world.lanes] == [True]
        polls = len(world.tables[SHOP].samples)
        await seconds(60)
        assert len(world.tables[SHOP].samples) == polls
        assert len(one.seen) == len(two.seen) == 1
        world.subscribe()
        await seconds(1)
        assert world.opened == [SHOP, SHOP]

    skipping(story())


def test_changing_a_subscription_keeps_the_connection() -> None:
    async def story() -> None:
        world = World()
        worker = world.subscribe()
        await seconds(5)
        worker.subscription.close()
        changed = world.subscribe(EMAILS)
        await seconds(1)
        assert world.opened == [SHOP]
        assert not world.tables[SHOP].closed
        assert len(changed.seen) == 1

    skipping(story())


def test_leaving_during_a_poll_wakes_nobody() -> None:
    async def story() -> None:
        world = World()
        world.tables[SHOP].seconds = 2.0
        worker = world.subscribe()
        await seconds(1)
        worker.subscription.close()
        await seconds(10)
        assert worker.seen == []
        assert world.tables[SHOP].closed

    skipping(story())


def test_leaving_at_the_moment_of_a_poll_leaves_nothing_to_ask() -> None:
    async def story() -> None:
        world = World()
        worker = world.subscribe()
        await seconds(0.5)
        (poller,) = world.databases._pollers.values()
        asyncio.get_running_loop().call_at(poller._due, worker.subscription.close)
        await seconds(5)
        assert world.tables[SHOP].closed
        assert all(world.tables[SHOP].samples)

    skipping(story())


def test_a_call_that_hangs_is_interrupted() -> None:
    async def story() -> None:
        world = World()
        world.tables[SHOP].seconds = 40.0
        world.subscribe()
        await seconds(24)
        assert world.tables[SHOP].interrupts == 0
        await seconds(5)
        assert world.tables[SHOP].interrupts == 1

    skipping(story())


def test_closing_ends_everything_and_does_not_wait_for_a_call_that_hangs() -> None:
    async def story() -> None:
        world = World()
        world.tables[BLOG].seconds = 40.0
        for url in (SHOP, BLOG):
            world.subscribe(url=url)
        await seconds(1)
        before = asyncio.get_running_loop().time()
        await world.databases.close()
        assert asyncio.get_running_loop().time() - before < 2
        assert world.tables[SHOP].closed

    skipping(story())


def test_queues_that_nobody_serves_are_told_to_the_backends_workers_and_only_now_and_then() -> None:
    async def story() -> None:
        world = World()
        table = world.tables[SHOP]
        table.put([Row("emial"), Row("elsewhere", backend="other")])
        worker = world.subscribe(DEFAULT)
        other = world.subscribe(Selection("other", ("elsewhere",)))
        await seconds(8)
        assert worker.subscription.unserved == {UnservedQueue("default", "emial")}
        assert other.subscription.unserved == frozenset()
        assert len(worker.seen) == 2
        assert len(other.seen) == 1
        await seconds(600)
        assert 9 <= table.looks <= 11
        assert len(worker.seen) == 2
        table.rows.clear()
        await seconds(62)
        assert worker.subscription.unserved == frozenset()

    skipping(story())


def test_looks_are_rare_where_they_are_slow_and_no_trouble_where_they_fail() -> None:
    async def story() -> None:
        world = World()
        table = world.tables[SHOP]
        table.seconds = 3.0
        worker = world.subscribe()
        await seconds(1000)
        assert 3 <= table.looks <= 5
        looks, table.seconds = table.looks, 0.0
        table.waiting_queues = _timed_out  # type: ignore[method-assign, assignment]
        await seconds(3000)
        assert table.looks == looks
        assert worker.subscription.observation.error is None

    skipping(story())


def _timed_out(_served: object) -> frozenset[UnservedQueue]:
    raise SampleTimedOut(seconds=10)


def test_whoever_asks_for_the_running_rows_at_a_time_shares_one_listing() -> None:
    async def story() -> None:
        world = World()
        workers = [world.subscribe(Selection("default", (f"q{n}",))) for n in range(50)]
        await seconds(0.5)
        world.tables[SHOP].seconds = 0.01
        world.tables[SHOP].put([Row(status="RUNNING", workers=("a",), started=-7)])
        listings = await asyncio.gather(*(worker.subscription.running() for worker in workers))
        assert world.tables[SHOP].listings == 1
        assert {listing.rows[0].worker_id for listing in listings} == {"a"}
        await seconds(SHARED_SECONDS)
        await workers[0].subscription.running()
        assert world.tables[SHOP].listings == 2

    skipping(story())


def test_a_fresh_listing_is_younger_than_its_question() -> None:
    async def story() -> None:
        world = World()
        worker = world.subscribe()
        await seconds(0.5)
        world.tables[SHOP].seconds = 0.01
        await worker.subscription.running()
        world.tables[SHOP].put([Row(status="RUNNING", workers=("a",), started=-7)])
        assert (await worker.subscription.running()).rows == ()
        assert len((await worker.subscription.running(fresh=True)).rows) == 1

    skipping(story())


def test_polls_go_on_beside_listings_one_call_at_a_time() -> None:
    async def story() -> None:
        world = World()
        worker = world.subscribe(poll_seconds=0.5)
        world.tables[SHOP].seconds = 0.05
        for _ in range(100):
            await worker.subscription.running(fresh=True)
            await asyncio.sleep(0.1)
        assert len(world.tables[SHOP].samples) >= 20
        assert world.tables[SHOP].listings == 100

    skipping(story())


def test_a_listing_that_fails_is_no_news_for_the_polls() -> None:
    async def story() -> None:
        world = World()
        worker = world.subscribe(poll_seconds=60)
        await seconds(1)
        world.tables[SHOP].error = ConnectionRefused()
        with pytest.raises(ConnectionRefused):
            await worker.subscription.running()
        assert worker.subscription.observation.error is None
        world.tables[SHOP].error = None
        assert (await worker.subscription.running()).rows == ()

    skipping(story())


def test_who_has_left_is_answered_no_more() -> None:
    async def story() -> None:
        world = World()
        worker = world.subscribe()
        await seconds(1)
        world.tables[SHOP].put([Row(status="RUNNING", workers=("a",), started=-7)])
        (row,) = (await worker.subscription.running()).rows
        worker.subscription.close()
        with pytest.raises(ConnectionLost):
            await worker.subscription.running()
        with pytest.raises(ConnectionLost):
            await worker.subscription.settle(row, Requeued())
        assert world.tables[SHOP].became()[0].status == "RUNNING"

    skipping(story())


def test_a_row_is_settled_through_a_subscription() -> None:
    async def story() -> None:
        world = World()
        worker = world.subscribe()
        await seconds(1)
        world.tables[SHOP].put([Row(status="RUNNING", workers=("a",), started=-7)])
        (row,) = (await worker.subscription.running()).rows
        assert await worker.subscription.settle(row, Requeued())
        assert not await worker.subscription.settle(row, Requeued())

    skipping(story())


def test_durations_are_measured_for_those_who_want_them_and_add_up() -> None:
    async def story() -> None:
        world = World()
        table = world.tables[SHOP]
        table.took[EMAILS] = Durations(2.0, 6.0, 1.5)
        other, worker = world.subscribe(), world.subscribe(EMAILS, measures=True)
        await seconds(10)
        looks = len(table.measured)
        assert 9 <= looks <= 11
        assert set(table.measured) == {frozenset({EMAILS})}
        assert worker.subscription.durations == Durations(2.0 * looks, 6.0 * looks, 1.5)
        assert other.subscription.durations == Durations()

    skipping(story())


def test_nothing_is_measured_if_nobody_wants_it() -> None:
    async def story() -> None:
        world = World()
        world.subscribe()
        await seconds(10)
        assert world.tables[SHOP].measured == []

    skipping(story())


def test_frequent_polls_measure_no_more_often_than_once_a_second() -> None:
    async def story() -> None:
        world = World()
        world.subscribe(measures=True, poll_seconds=0.2)
        await seconds(20)
        assert len(world.tables[SHOP].samples) > 80
        assert len(world.tables[SHOP].measured) <= 21

    skipping(story())


def test_a_measurement_that_fails_is_rare_and_no_trouble() -> None:
    async def story() -> None:
        world = World()
        table = world.tables[SHOP]
        asked = []

        def fail(selections: object) -> dict[Selection, Durations]:
            asked.append(selections)
            raise ConnectionLost

        table.durations = fail  # type: ignore[method-assign]
        worker = world.subscribe(measures=True)
        await seconds(100)
        assert len(asked) == 2
        assert worker.subscription.observation.error is None
        assert len(table.samples) > 90

    skipping(story())
