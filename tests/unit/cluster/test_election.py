"""The leader election: its rules, two candidates with bad connections, and a candidate's requests."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.elections import LeaseServer, Line
from tests.unit.fakes import refusal
from tests.unit.simulation import simulated

from django_task_operator.cluster.election import (
    LEADER_LABEL,
    LEASE_SECONDS,
    RENEW_SECONDS,
    Elector,
    LeasePermit,
    Sighting,
    held,
    look_again_in,
    may_take,
    permit,
    released,
    sight,
)
from django_task_operator.spec import Key
from django_task_operator.telemetry import LEADER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.unit.elections import Delay

LEASE = Key(namespace="ops", name="operator")
NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def lease(holder: str | None = "a", version: str = "1", **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "operator", "namespace": "ops", "resourceVersion": version},
        "spec": {"holderIdentity": holder, "leaseDurationSeconds": 5, **spec},
    }


@pytest.mark.parametrize(
    ("holder", "age", "may"),
    [
        ("", 0, True),  # released, or never held
        ("me", 0, True),  # the container was restarted
        ("other", 0, False),
        ("other", 4.999, False),
        ("other", 5, True),
        ("me too", 0, False),
    ],
)
def test_who_may_take_it(holder: str, age: float, may: bool) -> None:
    assert may_take(Sighting(holder, "1", 5, since=100), "me", 100 + age) == may


def test_a_lease_ages_by_the_clock_of_the_one_who_looks() -> None:
    # The times in it are those of another machine, and wrong.
    first = sight(lease(renewTime="1970-01-01T00:00:00.000000Z"), None, 100)
    assert first == Sighting("a", "1", 5, since=100)
    assert sight(lease(), first, 104) == first
    assert sight(lease(version="2"), first, 104) == Sighting("a", "2", 5, since=104)


def test_a_lease_that_is_deleted_does_not_end_its_holders_time() -> None:
    held_by_a = sight(lease(), None, 100)
    gone = sight(None, held_by_a, 104)
    assert gone == Sighting("a", "", 5, since=104)
    assert sight(None, gone, 108) == gone
    assert sight(None, None, 100).holder == ""


@pytest.mark.parametrize(
    ("spec", "seconds"),
    [({}, 5), ({"leaseDurationSeconds": 1}, 5), ({"leaseDurationSeconds": 15}, 15)],
)
def test_a_longer_term_of_another_release_counts(spec: dict[str, Any], seconds: float) -> None:
    assert sight(lease(**spec), None, 100).seconds == seconds


@pytest.mark.parametrize("empty", [{}, {"spec": {}}, {"spec": {"holderIdentity": ""}}])
def test_a_lease_that_says_nothing(empty: dict[str, Any]) -> None:
    seen = sight({"metadata": {"resourceVersion": "1"}, **empty}, None, 100)
    assert (seen.holder, seen.seconds) == ("", LEASE_SECONDS)


@pytest.mark.parametrize(("age", "wait"), [(0, 0.5), (3, 0.5), (4.75, 0.25), (5, 0), (9, 0)])
def test_a_standby_looks_when_the_lease_may_be_free(age: float, wait: float) -> None:
    assert look_again_in(Sighting("a", "1", 5, since=100), 100 + age) == wait


@pytest.mark.parametrize(("age", "seconds"), [(0, 5), (1, 4), (2.5, 2.5), (3, 0), (4, 0), (1e9, 0)])
def test_how_long_a_write_may_take(age: float, seconds: float) -> None:
    assert permit(100, 100 + age) == seconds


@settings(max_examples=500)
@given(
    renewed=st.floats(0, 1e6),
    seen_after=st.sampled_from([0, 0.01, 1, 100]),
    leader_offset=st.floats(-1e6, 1e6),
    observer_offset=st.floats(-1e6, 1e6),
    leader_rate=st.sampled_from([0.76, 1.24]),
    observer_rate=st.sampled_from([0.76, 1.24]),
    later=st.floats(0, 7),
)
def test_nobody_may_take_what_permits_a_write(
    renewed: float,
    seen_after: float,
    leader_offset: float,
    observer_offset: float,
    leader_rate: float,
    observer_rate: float,
    later: float,
) -> None:
    """Whatever the clocks show, even if one runs at one and a half times the speed of the other."""

    def leader(at: float) -> float:
        return at * leader_rate + leader_offset

    def observer(at: float) -> float:
        return at * observer_rate + observer_offset

    seen = sight(lease(), None, observer(renewed + seen_after))
    now = renewed + seen_after + later
    writes = permit(leader(renewed), leader(now)) > 0
    assert not (writes and may_take(seen, "b", observer(now)))


def test_what_a_holder_writes() -> None:
    first = held(None, LEASE, "a", NOW)
    assert first == {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "operator", "namespace": "ops"},
        "spec": {
            "holderIdentity": "a",
            "leaseDurationSeconds": 5,
            "acquireTime": "2026-01-02T03:04:05.678901Z",
            "renewTime": "2026-01-02T03:04:05.678901Z",
            "leaseTransitions": 0,
        },
    }
    again = held(first, LEASE, "a", NOW.replace(second=6))
    assert again["spec"] == {**first["spec"], "renewTime": "2026-01-02T03:04:06.678901Z"}
    free = released(again)
    assert free["spec"] == {**again["spec"], "holderIdentity": ""}
    assert held(free, LEASE, "b", NOW)["spec"]["leaseTransitions"] == 1
    assert held(lease(), LEASE, "b", NOW)["metadata"]["resourceVersion"] == "1"


# Two candidates, each with a clock and a line of its own, which are stopped, killed and started again.

STEP = 1 / 16  # a power of two, so that sums of it are exact
SECONDS = 40


def steps(least: float, most: float) -> st.SearchStrategy[float]:
    return st.integers(int(least / STEP), int(most / STEP)).map(lambda n: n * STEP)


usual = st.tuples(*[steps(0, 0.25)] * 2)
trouble = st.one_of(
    st.sampled_from([(None, None), (0.0, None), (5.0, 0.0)]),
    st.tuples(*[st.one_of(st.none(), steps(0, 2))] * 2),
)
outage = st.tuples(steps(0, SECONDS), steps(1, 12), trouble)
incident = st.tuples(steps(0, SECONDS), st.sampled_from(["stop", "kill", "replace"]))


def weather(usual: Delay, outages: list[tuple[float, float, Delay]]) -> Iterator[Delay]:
    """The state of a connection over time."""
    while True:
        now = asyncio.get_running_loop().time()
        yield next((delay for begin, length, delay in outages if begin <= now < begin + length), usual)


@dataclass
class Pod:
    """A pod of the operator: one process after the other."""

    server: LeaseServer
    number: int
    offset: int
    line: Line
    elector: Elector = field(init=False)
    permit: LeasePermit = field(init=False)
    name: str = field(init=False)
    alive: bool = True
    past: dict[str, float] = field(default_factory=dict)
    _names: Any = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.replace()

    def replace(self) -> None:
        self.name = f"pod-{self.number}-{next(self._names)}"
        self.server.pods[self.name] = {}
        self.start()

    def clock(self) -> float:
        return asyncio.get_running_loop().time() + self.offset

    @property
    def renewals(self) -> dict[str, float]:
        """When the last renewal under each name began, on this pod's clock."""
        return self.past | {self.name: max(self.permit.renewed_at, self.past.get(self.name, float("-inf")))}

    def start(self) -> None:
        self.permit = self.line.permit = LeasePermit(self.clock)
        self.elector = Elector(self.line, LEASE, self.name, self.permit)  # type: ignore[arg-type]

    @property
    def writes(self) -> bool:
        return self.alive and self.permit.seconds() > 0

    async def live(self, incidents: list[tuple[float, str]]) -> None:
        """Run the operator, and restart it after a second."""
        loop = asyncio.get_running_loop()
        for at, what in [*sorted(incidents), (SECONDS, "kill")]:
            while loop.time() < at:
                running = asyncio.create_task(self.elector.run())
                await asyncio.wait([running], timeout=at - loop.time())
                if not running.cancel():
                    assert self.permit.seconds() == 0, "stepped down"
                    await running
                else:
                    await asyncio.wait([running])
                    if what == "stop":
                        await self.elector.resign()
                self.alive, self.past = False, self.renewals
                await asyncio.sleep(1)
                (self.replace if what == "replace" and loop.time() >= at else self.start)()
                self.alive = True


@given(
    usually=st.tuples(*[usual] * 2),
    outages=st.tuples(*[st.lists(outage, min_size=1, max_size=5)] * 2),
    offsets=st.tuples(*[st.integers(-(10**6), 10**6)] * 2),
    incidents=st.tuples(*[st.lists(incident, max_size=3)] * 2),
)
def test_two_never_lead_at_once(
    usually: tuple[Delay, ...],
    outages: tuple[list[tuple[float, float, Delay]], ...],
    offsets: tuple[int, ...],
    incidents: tuple[list[tuple[float, str]], ...],
) -> None:
    @simulated
    async def scenario() -> None:
        server = LeaseServer()
        pods = [Pod(server, n, offsets[n], Line(server, weather(usually[n], outages[n]))) for n in range(2)]

        def passed(before: str, after: str) -> None:
            """The earliest moment at which the next leader may write, and the last one of its predecessor."""
            for pod in pods:
                if after not in {"", pod.name}:
                    assert not pod.writes, f"{after} takes it from {before}"
                if before in pod.renewals and after:
                    age = pod.clock() - pod.renewals[before]
                    assert age >= LEASE_SECONDS, "something that it wrote may still take effect"

        server.passed = passed
        living = [asyncio.create_task(pod.live(incidents[n])) for n, pod in enumerate(pods)]
        while asyncio.get_running_loop().time() < SECONDS - 1:
            await asyncio.sleep(2 * STEP)
            assert sum(pod.writes for pod in pods) <= 1
            for task in living:
                if task.done():
                    task.result()
        for task in living:
            task.cancel()

    scenario()


def candidate(server: LeaseServer, name: str, line: Line | None = None) -> Elector:
    server.pods.setdefault(name, {})
    line = line or Line(server)
    line.permit = permit = LeasePermit(asyncio.get_running_loop().time)
    return Elector(line, LEASE, name, permit)  # type: ignore[arg-type]


def now() -> float:
    return asyncio.get_running_loop().time()


@simulated
async def test_a_lease_that_never_was_is_taken_at_once() -> None:
    server = LeaseServer()
    a = candidate(server, "a")
    assert a._permit.seconds() == 0
    running = asyncio.create_task(a.run())
    await a.leading.wait()

    assert now() == 0
    assert server.holder == "a"
    assert a._permit.seconds() == LEASE_SECONDS
    assert not a.standing_by.is_set()
    assert LEADER._value.get() == 1
    running.cancel()


@simulated
async def test_a_leader_renews_once_a_second_and_asks_for_nothing_else() -> None:
    server, line = LeaseServer(), Line(LeaseServer())
    line.server = server
    running = asyncio.create_task(candidate(server, "a", line).run())
    await asyncio.sleep(0.5)
    line.requests.clear()
    await asyncio.sleep(60)

    assert line.requests == ["put"] * 60
    running.cancel()


@simulated
async def test_a_killed_leader_is_followed_in_six_seconds() -> None:
    server = LeaseServer()
    a, b = candidate(server, "a"), candidate(server, "b")
    leading = asyncio.create_task(a.run())
    await a.leading.wait()
    following = asyncio.create_task(b.run())
    await asyncio.sleep(10.4)
    assert b.standing_by.is_set()
    leading.cancel()
    killed_at = now()
    await b.leading.wait()

    assert LEASE_SECONDS - 1 <= now() - killed_at <= LEASE_SECONDS + 1
    assert server.lease
    assert server.lease["spec"]["leaseTransitions"] == 1
    following.cancel()


@simulated
async def test_an_orderly_stop_lets_the_other_lead_within_a_second() -> None:
    server = LeaseServer()
    a, b = candidate(server, "a"), candidate(server, "b")
    leading = asyncio.create_task(a.run())
    await a.leading.wait()
    following = asyncio.create_task(b.run())
    await asyncio.sleep(10.4)
    leading.cancel()
    stopped_at = now()
    await a.resign()
    assert server.holder == ""
    assert a._permit.seconds() == 0
    await b.leading.wait()

    assert now() - stopped_at <= 1
    following.cancel()


@simulated
async def test_a_write_under_way_is_not_overtaken_by_the_next_leader() -> None:
    server, line = LeaseServer(), Line(LeaseServer())
    line.server, line.writes_end = server, False
    a = candidate(server, "a", line)
    leading = asyncio.create_task(a.run())
    await a.leading.wait()
    leading.cancel()
    await a.resign()

    assert server.holder == "a", "it must expire"


@simulated
async def test_one_that_does_not_lead_releases_nothing() -> None:
    server = LeaseServer()
    a, b = candidate(server, "a"), candidate(server, "b")
    leading, following = asyncio.create_task(a.run()), asyncio.create_task(b.run())
    await b.standing_by.wait()
    following.cancel()
    await b.resign()

    assert server.holder == "a"
    leading.cancel()


@simulated
async def test_a_release_that_crosses_a_renewal() -> None:
    server, line = LeaseServer(), Line(LeaseServer())
    line.server = server
    a = candidate(server, "a", line)
    leading = asyncio.create_task(a.run())
    await a.leading.wait()
    await asyncio.sleep(0.5)
    line.delays = itertools.chain([(0.0, None)], itertools.repeat((0.0, 0.0)))
    await asyncio.sleep(0.6)
    leading.cancel()
    await a.resign()

    assert server.holder == ""


@simulated
async def test_a_container_that_is_started_again_leads_at_once() -> None:
    server = LeaseServer()
    killed = candidate(server, "a")
    running = asyncio.create_task(killed.run())
    await killed.leading.wait()
    await asyncio.sleep(3.3)
    running.cancel()
    again = candidate(server, "a")
    started_at = now()
    running = asyncio.create_task(again.run())
    await again.leading.wait()

    assert now() == started_at
    running.cancel()


@pytest.mark.parametrize(
    "outage", ["silence", "refusal", "lost answers"], ids=lambda outage: outage.replace(" ", "-")
)
@simulated
async def test_a_leader_cut_off_steps_down_before_another_can_lead(
    outage: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    server, line = LeaseServer(), Line(LeaseServer())
    line.server = server
    a, b = candidate(server, "a", line), candidate(server, "b")
    leading = asyncio.create_task(a.run())
    await a.leading.wait()
    following = asyncio.create_task(b.run())
    await asyncio.sleep(10.4)
    if outage == "refusal":
        line.down = ConnectionRefusedError("nobody there")
    else:
        delay: Delay = (None, None) if outage == "silence" else (0.0, None)
        line.delays = itertools.chain(itertools.repeat(delay))
    await leading
    stepped_down_at = now()

    assert stepped_down_at == 10 + RENEW_SECONDS
    assert line.is_cut
    assert a._permit.seconds() == 0
    assert not b.leading.is_set()
    assert caplog.messages[-1] == "stepped down"
    assert caplog.messages.count("not renewed") == 1, "told once"
    await b.leading.wait()
    assert stepped_down_at + 1 <= now() <= stepped_down_at + 5
    following.cancel()


@simulated
async def test_a_leader_gives_way_to_one_that_holds_the_lease(caplog: pytest.LogCaptureFixture) -> None:
    server = LeaseServer()
    a = candidate(server, "a")
    leading = asyncio.create_task(a.run())
    await a.leading.wait()
    assert server.lease
    server.put(held(server.lease, LEASE, "thief", NOW))
    await leading

    assert server.holder == "thief"
    assert now() == 1
    assert caplog.records[-1].__dict__["reason"] == "another holds the Lease"


@pytest.mark.parametrize("what", ["edited", "deleted"])
@simulated
async def test_a_lease_that_somebody_touches_goes_on(what: str) -> None:
    server = LeaseServer()
    a, b = candidate(server, "a"), candidate(server, "b")
    leading = asyncio.create_task(a.run())
    await a.leading.wait()
    following = asyncio.create_task(b.run())
    await asyncio.sleep(10.4)
    if what == "edited":
        server.edit(by="hand")
    else:
        server.lease = None
    await asyncio.sleep(10)

    assert server.holder == "a"
    assert not b.leading.is_set()
    assert a._permit.seconds() > 0
    for task in (leading, following):
        task.cancel()


@simulated
async def test_an_api_server_that_is_away_at_the_start(caplog: pytest.LogCaptureFixture) -> None:
    server, line = LeaseServer(), Line(LeaseServer())
    line.server, line.down = server, refusal(503, "starting")
    a = candidate(server, "a", line)
    running = asyncio.create_task(a.run())
    await asyncio.sleep(30.25)
    assert not a.standing_by.is_set()
    assert caplog.messages == ["pod not unlabelled"], "told once"
    line.down = None
    await a.leading.wait()

    assert now() == 30.5
    running.cancel()


@simulated
async def test_only_the_leader_has_the_label() -> None:
    server = LeaseServer()
    server.pods = {"gone soon": {LEADER_LABEL: "operator"}, "other release": {LEADER_LABEL: "other"}}
    a, b = candidate(server, "a"), candidate(server, "b")
    # Its container led before, and was started again.
    server.pods["b"][LEADER_LABEL] = "operator"
    leading = asyncio.create_task(a.run())
    await a.leading.wait()
    await asyncio.sleep(0.1)
    assert labelled(server) == {"a"}
    following = asyncio.create_task(b.run())
    await asyncio.sleep(0.1)
    assert labelled(server) == {"a"}
    leading.cancel()
    await a.resign()
    await b.leading.wait()
    await asyncio.sleep(0.1)

    assert labelled(server) == {"b"}
    assert server.pods["other release"] == {LEADER_LABEL: "other"}
    following.cancel()


@simulated
async def test_labels_are_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    server = LeaseServer()
    a = candidate(server, "a")
    del server.pods["a"]
    running = asyncio.create_task(a.run())
    await asyncio.sleep(5.5)
    assert caplog.messages.count("pods not labelled") == 1
    server.pods["a"] = {}
    await asyncio.sleep(1)

    assert labelled(server) == {"a"}
    running.cancel()


def labelled(server: LeaseServer) -> set[str]:
    return {name for name, labels in server.pods.items() if labels.get(LEADER_LABEL) == "operator"}
