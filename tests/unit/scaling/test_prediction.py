# ruff: noqa: E501
"""How many replicas a latency target needs, from the pace of the tasks, and how that pace is estimated."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from django_task_operator.scaling import (
    Decision,
    Demand,
    History,
    Pace,
    Policy,
    Reading,
    Situation,
    decide_operator,
    follow,
)
from django_task_operator.scaling.pace import MEMORY_SECONDS

NOW = 100.0


def P(  # noqa: N802
    min_replicas: int = 0,
    max_replicas: int = 50,
    tasks_per_replica: int = 10,
    target: float = 30,
    delay: float = 60,
    slots: int = 1,
) -> Policy:
    return Policy(min_replicas, max_replicas, tasks_per_replica, target, delay, slots)


def pace(duration: float, load: float = 0.0, busy: float | None = None, running_for: float = 0.0) -> Pace:
    """An estimate from tasks of ``duration`` seconds; 0 if none has been measured."""
    last = Reading(NOW, 0, 0, running_for=running_for)
    return Pace(last, load, 10.0 if duration else 0.0, 10 * duration, NOW if duration else -math.inf, busy)


def decide(
    policy: Policy, demand: Demand, estimate: Pace, current: int = 0, history: History | None = None
) -> Decision:
    history = History(((NOW, current),)) if history is None else history
    return decide_operator(Situation(policy, demand, history, current, None, NOW, estimate))


D = Demand

# One line a case.
# fmt: off
CASES = [
    # policy, demand, pace, current: replicas, message
    (P(), D(120, 0), pace(0.3125), 0, 2, "120 ready, 0 tasks/s arriving, 3.2 tasks/s per replica, target 30 s: 0 -> 2"),
    (P(), D(120, 0), pace(0.3125, 3.5), 0, 4, "120 ready, 11.2 tasks/s arriving, 3.2 tasks/s per replica, target 30 s: 0 -> 4"),
    (P(), D(120, 4), pace(0.3125, 3.5), 4, 4, "120 ready, 11.2 tasks/s arriving, 3.2 tasks/s per replica, target 30 s: 4 replicas"),
    (P(), D(1, 0), pace(0.01), 0, 1, "1 ready, 0 tasks/s arriving, 100.0 tasks/s per replica, target 30 s: 0 -> 1"),
    (P(), D(1, 0), pace(0.01), 1, 1, "1 ready, 0 tasks/s arriving, 100.0 tasks/s per replica, target 30 s: 1 replica"),
    (P(), D(0, 0), pace(0.01, 3), 0, 0, "no tasks"),
    (P(), D(9000, 0), pace(0.01), 0, 3, "9000 ready, 0 tasks/s arriving, 100.0 tasks/s per replica, target 30 s: 0 -> 3"),
    (P(), D(10_000, 0), pace(0.01), 0, 50, "10000 or more ready, which are too many to predict from; target 30 s: 0 -> 50"),
    (P(), D(8, 2), pace(600), 2, 10, "8 ready, 0 tasks/s arriving, 6.0 tasks/h per replica, target 30 s: 2 -> 10"),
    (P(slots=4), D(8, 2), pace(600), 1, 3, "8 ready, 0 tasks/s arriving, 24.0 tasks/h per replica, target 30 s: 1 -> 3"),
    (P(slots=4), D(400, 0), pace(1, busy=2), 0, 7, "400 ready, 0 tasks/s arriving, 2.0 tasks/s per replica, target 30 s: 0 -> 7"),
    (P(max_replicas=3), D(8, 2), pace(600), 3, 3, "8 ready, 0 tasks/s arriving, 6.0 tasks/h per replica, target 30 s want more than maxReplicas 3"),
    (P(min_replicas=3), D(1, 0), pace(1), 3, 3, "1 ready, 0 tasks/s arriving, 1.0 tasks/s per replica, target 30 s, minReplicas is 3: 3 replicas"),
    # Half of the time is over: twice the replicas. At its end, a tenth of it is assumed to be left.
    (P(), D(900, 0, 15), pace(0.1), 0, 6, "900 ready, 0 tasks/s arriving, 10.0 tasks/s per replica, target 30 s: 0 -> 6"),
    (P(), D(900, 0, 29), pace(0.1), 0, 30, "900 ready, 0 tasks/s arriving, 10.0 tasks/s per replica, target 30 s: 0 -> 30"),
    (P(), D(900, 0, 9999), pace(0.1), 0, 30, "900 ready, 0 tasks/s arriving, 10.0 tasks/s per replica, target 30 s: 0 -> 30"),
    # Nothing is measured: by count, and more in proportion while the target is missed or tasks are long.
    (P(), D(42, 0), pace(0), 0, 5, "42 ready and 0 running, 10 per replica, target 30 s; no task's duration is measured yet: 0 -> 5"),
    (P(), D(42, 0, 30), pace(0), 5, 5, "42 ready and 0 running, 10 per replica, target 30 s; no task's duration is measured yet: 5 replicas"),
    (P(), D(42, 0, 45), pace(0), 5, 8, "42 ready, the oldest for 45 s, target 30 s; no task's duration is measured yet: 5 -> 8"),
    (P(), D(3, 1, 9999), pace(0), 1, 4, "3 ready, the oldest for 9999 s, target 30 s; no task's duration is measured yet: 1 -> 4"),
    (P(), D(9, 1, 20), pace(0, running_for=20), 1, 7, "9 ready, the running ones for 20 s so far, target 30 s; no task's duration is measured yet: 1 -> 7"),
]
# fmt: on


@pytest.mark.parametrize(("policy", "demand", "estimate", "current", "replicas", "message"), CASES)
def test_situation(
    policy: Policy, demand: Demand, estimate: Pace, current: int, replicas: int, message: str
) -> None:
    decision = decide(policy, demand, estimate, current)

    assert (decision.replicas, decision.message) == (replicas, message)


policies = st.builds(
    P,
    min_replicas=st.integers(0, 3),
    max_replicas=st.integers(3, 60),
    tasks_per_replica=st.integers(1, 40),
    target=st.integers(1, 600).map(float),
    delay=st.sampled_from([0.0, 60.0]),
    slots=st.integers(1, 32),
)
demands = st.builds(Demand, st.integers(0, 12_000), st.integers(0, 500), st.floats(0, 2000))
durations = st.one_of(st.just(0.0), st.floats(0.001, 10_000))
paces = st.builds(
    pace,
    duration=durations,
    load=st.floats(0, 500),
    busy=st.one_of(st.none(), st.floats(0, 32)),
    running_for=st.floats(0, 2000),
)
currents = st.integers(0, 60)


@given(policies, demands, paces, currents)
def test_always(policy: Policy, demand: Demand, estimate: Pace, current: int) -> None:
    decision = decide(policy, demand, estimate, current)

    assert policy.min_replicas <= decision.replicas <= policy.max_replicas
    assert decision.replicas > 0 or not demand.tasks, "tasks never find nobody"
    again = decide(policy, demand, estimate, decision.replicas, decision.history)
    assert again.replicas == decision.replicas, "a decision that was carried out stands"


@given(policies, demands, paces, currents, st.integers(0, 9000), st.integers(0, 200), st.floats(0, 999))
def test_more_or_older_tasks_never_mean_fewer_replicas(
    policy: Policy, demand: Demand, estimate: Pace, current: int, ready: int, running: int, older: float
) -> None:
    more = Demand(demand.ready + ready, demand.running + running, demand.oldest_ready_seconds + older)

    assert (
        decide(policy, more, estimate, current).replicas >= decide(policy, demand, estimate, current).replicas
    )


@given(policies, demands, paces, currents, st.floats(1, 10))
def test_a_higher_load_never_means_fewer_replicas(
    policy: Policy, demand: Demand, estimate: Pace, current: int, times: float
) -> None:
    busier = replace(estimate, load=times * estimate.load)

    assert (
        decide(policy, demand, busier, current).replicas >= decide(policy, demand, estimate, current).replicas
    )


@given(policies, demands, paces, currents, st.floats(0.001, 10_000))
def test_what_remains_keeps_up_with_the_arrivals_and_meets_the_target(
    policy: Policy, demand: Demand, estimate: Pace, current: int, duration: float
) -> None:
    policy = replace(policy, max_replicas=100_000, scale_down_delay_seconds=0)
    estimate = replace(estimate, tasks=1.0, seconds=duration, measured_at=NOW)
    assume(demand.tasks)
    decision = decide(policy, demand, estimate, current, History())
    slots = decision.replicas * estimate.busy_slots(policy.slots)

    assert slots >= estimate.load - 1e-6
    if demand.oldest_ready_seconds < 0.9 * policy.target_latency_seconds:
        left = policy.target_latency_seconds - demand.oldest_ready_seconds
        assert slots * (1 + left / duration) >= demand.tasks * (1 - 1e-6)


@given(st.integers(1, 8), st.floats(0.01, 300), st.integers(1, 100))
def test_long_tasks_get_more_replicas_than_short_ones(slots: int, duration: float, ready: int) -> None:
    policy = P(slots=slots)
    short = decide(policy, D(ready, 0), pace(duration)).replicas
    long = decide(policy, D(ready, 0), pace(4 * duration)).replicas

    assert short <= long <= max(1, math.ceil(ready / slots)), "never more slots than tasks"


@given(policies, demands, paces, currents)
def test_without_a_target_the_pace_makes_no_difference(
    policy: Policy, demand: Demand, estimate: Pace, current: int
) -> None:
    policy = replace(policy, target_latency_seconds=0)

    assert decide(policy, demand, estimate, current) == decide(policy, demand, Pace(), current)


@given(st.floats(0.01, 120), st.floats(0.1, 40), st.integers(1, 8), st.floats(0, 2))
def test_a_steady_trace_does_not_oscillate(
    duration: float, busy: float, slots: int, starts_with: float
) -> None:
    """Tasks come and go at one rate, all slots that are needed are there: the replicas come to rest."""
    policy, estimate, history, current = P(slots=slots, delay=0), Pace(), History(), round(starts_with * busy)
    running, decided = max(1, round(busy)), []
    for second in range(900):
        tasks = (second + 1) * running / duration
        reading = Reading(NOW + second, 0, running, current, tasks, tasks * duration)
        estimate = follow(estimate, reading, slots)
        situation = Situation(policy, D(0, running), history, current, None, NOW + second, estimate)
        decision = decide_operator(situation)
        history, current = decision.history, decision.replicas
        decided.append(current)

    assert len(set(decided[-300:])) == 1
    assert decided[-1] * slots >= min(running, policy.max_replicas * slots) - 0.01


def rest(duration: float, load: float, seconds: int = 900) -> Pace:
    """The estimate after a time in which the load was steady."""
    estimate = Pace()
    for second in range(seconds):
        tasks = second * load / duration
        reading = Reading(float(second), 0, round(load), 1, tasks, tasks * duration)
        estimate = follow(estimate, reading, 1)
    return estimate


@pytest.mark.parametrize("duration", [0.01, 1.0, 50.0])
def test_a_steady_load_is_learnt(duration: float) -> None:
    estimate = rest(duration, 6)

    assert estimate.duration == pytest.approx(duration)
    assert estimate.load == pytest.approx(6, rel=0.01)


def test_arrivals_that_nobody_serves_yet_are_load() -> None:
    """Two tasks of 3 s a second, and no pod: six slots would be busy."""
    estimate = replace(rest(3.0, 1), load=0.0)
    assert estimate.last
    for second in range(1, 600):
        reading = replace(estimate.last, at=estimate.last.at + 1, ready=2 * second, running=0)
        estimate = follow(estimate, reading, 1)

    assert estimate.load == pytest.approx(6, rel=0.01)


def test_a_backlog_that_shrinks_is_not_load() -> None:
    """Ten slots run tasks of 1 s, and eight of ten come from the backlog."""
    estimate = rest(1.0, 10)
    assert estimate.last
    for second in range(600):
        last = estimate.last
        assert last
        reading = replace(
            last, at=last.at + 1, ready=10_000 - 8 * second, tasks=last.tasks + 10, seconds=last.seconds + 10
        )
        estimate = follow(replace(estimate, load=2.0) if second == 0 else estimate, reading, 1)
        if second == 0:
            estimate = replace(estimate, load=2.0)

    assert estimate.load == pytest.approx(2, rel=0.01)


@pytest.mark.parametrize(("ready", "rest_of_it"), [(0, 0.1), (5, 0.45)])
def test_a_load_that_is_over_is_forgotten_sooner_while_nothing_waits(ready: int, rest_of_it: float) -> None:
    estimate = rest(0.1, 10)
    assert estimate.last
    for second in range(1, 51):
        reading = replace(estimate.last, at=899.0 + second, ready=ready, running=0)
        estimate = follow(estimate, reading, 1)

    assert estimate.load == pytest.approx(10 * rest_of_it, rel=0.25)


def test_a_backlog_that_is_not_counted_to_its_end_does_not_look_steady_or_shrinking() -> None:
    estimate = rest(1.0, 10)
    assert estimate.last
    estimate = follow(estimate, replace(estimate.last, at=1000.0, ready=10_000, complete=False), 1)
    before = estimate.load
    assert estimate.last
    estimate = follow(estimate, replace(estimate.last, at=1001.0, ready=0, complete=True), 1)

    assert estimate.load == pytest.approx(before, rel=0.01)


def test_new_durations_replace_old_ones() -> None:
    estimate = rest(1.0, 4)
    assert estimate.last
    start, tasks, seconds = estimate.last.at, estimate.last.tasks, estimate.last.seconds
    for second in range(1, 900):
        reading = Reading(start + second, 0, 4, 1, tasks + second / 2, seconds + 5 * second)
        estimate = follow(estimate, reading, 1)

    assert estimate.duration == pytest.approx(10, rel=0.2)


def test_durations_are_forgotten_after_a_long_time_without_any() -> None:
    estimate = rest(1.0, 4)
    assert estimate.last
    idle = replace(estimate.last, running=0)
    estimate = follow(estimate, replace(idle, at=idle.at + 1), 1)
    kept = follow(estimate, replace(idle, at=idle.at + MEMORY_SECONDS), 1)
    forgotten = follow(estimate, replace(idle, at=idle.at + MEMORY_SECONDS + 2), 1)

    assert kept.duration == pytest.approx(1)
    assert kept.load < 0.01
    assert forgotten.duration is None
    assert forgotten.last
    anew = replace(forgotten.last, at=forgotten.last.at + 1, tasks=idle.tasks + 1, seconds=idle.seconds + 9)
    assert follow(forgotten, anew, 1).duration == pytest.approx(9)


def test_a_new_count_of_what_was_measured_is_no_negative_one() -> None:
    """After a change of the worker's queues, what has been measured starts from 0 again."""
    estimate = rest(1.0, 4)
    assert estimate.last
    estimate = follow(estimate, Reading(estimate.last.at + 1, 0, 4, 1, 2.0, 2.0), 1)

    assert estimate.duration == pytest.approx(1)


def test_a_clock_that_is_put_back_changes_nothing() -> None:
    estimate = rest(1.0, 4)
    assert estimate.last
    back = follow(estimate, replace(estimate.last, at=5.0, running=400), 1)

    assert back.load == estimate.load
    assert follow(back, replace(estimate.last, at=6.0, running=4, ready=396), 1).load == pytest.approx(
        4, rel=1
    )


def test_slots_that_are_busy_less_often_are_noticed_while_tasks_wait() -> None:
    estimate = rest(0.01, 4)
    assert estimate.last
    for second in range(1, 100):
        reading = replace(estimate.last, at=estimate.last.at + 1, ready=1000 + second, running=8, pods=2)
        estimate = follow(estimate, reading, 16)

    assert estimate.busy_slots(16) == pytest.approx(4, rel=0.05)


def test_a_pod_that_claims_nothing_counts_as_a_quarter() -> None:
    assert pace(1.0, busy=0.0).busy_slots(16) == 4


@pytest.mark.parametrize("change", [{"ready": 3}, {"pods": 0}])
def test_slots_that_are_idle_for_want_of_tasks_or_pods_say_nothing(change: dict[str, int]) -> None:
    estimate = rest(1.0, 4)
    assert estimate.last
    for second in range(1, 50):
        reading = replace(estimate.last, at=900.0 + second, ready=1000, running=2, pods=2)
        estimate = follow(estimate, replace(reading, **change), 16)  # type: ignore[arg-type]

    assert estimate.busy is None


readings = st.lists(
    st.builds(
        Reading,
        at=st.floats(0, 10_000),
        ready=st.integers(0, 10_000),
        running=st.integers(0, 500),
        pods=st.integers(0, 50),
        tasks=st.integers(0, 10**6),
        seconds=st.floats(0, 1e6),
        running_for=st.floats(0, 1e5),
        complete=st.booleans(),
    ),
    max_size=30,
)


@given(readings, st.integers(1, 64))
def test_no_readings_lead_to_numbers_that_make_no_sense(trace: list[Reading], slots: int) -> None:
    estimate = Pace()
    for reading in trace:
        estimate = follow(estimate, reading, slots)
        assert math.isfinite(estimate.load)
        assert estimate.load >= 0
        assert estimate.duration is None or math.isfinite(estimate.duration)
        assert slots / 4 <= estimate.busy_slots(slots) <= slots
