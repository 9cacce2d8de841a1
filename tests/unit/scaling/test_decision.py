# ruff: noqa: E501
"""How many replicas: a table of situations, and what is true in every situation."""

from __future__ import annotations

import math
from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_task_operator.scaling import (
    Decision,
    Demand,
    History,
    Policy,
    Reason,
    Situation,
    decide_operator,
    hold,
)

NEW = History()


def was(*points: tuple[float, int]) -> History:
    """What was wanted: (until how many seconds ago, replicas). Now is 100."""
    return History(tuple((100.0 - ago, replicas) for ago, replicas in points))


def P(  # noqa: N802
    min_replicas: int = 0,
    max_replicas: int = 10,
    tasks_per_replica: int = 10,
    target_latency_seconds: float = 0,
    scale_down_delay_seconds: float = 60,
) -> Policy:
    return Policy(
        min_replicas, max_replicas, tasks_per_replica, target_latency_seconds, scale_down_delay_seconds
    )


def decide(policy: Policy, demand: Demand, history: History, current: int, now: float) -> Decision:
    return decide_operator(Situation(policy, demand, history, current, None, now))


D = Demand


# One line a case.
# fmt: off
CASES = [
    # policy, demand, history, current: replicas, reason, message
    (P(), D(0, 0), NEW, 0, 0, "DemandMet", "no tasks"),
    (P(), D(1, 0), NEW, 0, 1, "ScaledUp", "1 ready and 0 running, 10 per replica: 0 -> 1"),
    (P(), D(10, 0), NEW, 0, 1, "ScaledUp", "10 ready and 0 running, 10 per replica: 0 -> 1"),
    (P(), D(11, 0), NEW, 0, 2, "ScaledUp", "11 ready and 0 running, 10 per replica: 0 -> 2"),
    (P(), D(42, 8), was((0, 2)), 2, 5, "ScaledUp", "42 ready and 8 running, 10 per replica: 2 -> 5"),
    (P(), D(100, 0), NEW, 0, 10, "ScaledUp", "100 or more ready and 0 running, 10 per replica: 0 -> 10"),
    (P(max_replicas=100), D(1000, 0), NEW, 0, 100, "ScaledUp", "1000 or more ready and 0 running, 10 per replica: 0 -> 100"),
    (P(), D(15, 0), was((0, 2)), 2, 2, "DemandMet", "15 ready and 0 running, 10 per replica"),
    (P(), D(90, 50), was((0, 10)), 10, 10, "AtMaximum", "90 ready and 50 running, 10 per replica want more than maxReplicas 10"),
    (P(), D(0, 3), was((0, 5)), 5, 5, "Stabilizing", "0 ready and 3 running, 10 per replica want 1; scaleDownDelaySeconds keeps 5 for now"),
    (P(), D(0, 3), was((59, 5), (0, 1)), 5, 5, "Stabilizing", "0 ready and 3 running, 10 per replica want 1; scaleDownDelaySeconds keeps 5 for now"),
    (P(), D(0, 3), was((60, 5), (0, 1)), 5, 1, "ScaledDown", "0 ready and 3 running, 10 per replica: 5 -> 1"),
    (P(), D(0, 3), was((61, 5), (30, 3), (0, 1)), 5, 3, "ScaledDown", "no more than 3 wanted within scaleDownDelaySeconds: 5 -> 3"),
    (P(), D(35, 5), was((5, 5), (0, 1)), 4, 4, "DemandMet", "35 ready and 5 running, 10 per replica"),
    (P(scale_down_delay_seconds=0), D(0, 3), was((0, 5)), 5, 1, "ScaledDown", "0 ready and 3 running, 10 per replica: 5 -> 1"),
    (P(scale_down_delay_seconds=0), D(0, 0), was((0, 5)), 5, 0, "ScaledDown", "no tasks: 5 -> 0"),
    (P(min_replicas=2), D(0, 0), NEW, 0, 2, "ScaledUp", "no tasks, minReplicas is 2: 0 -> 2"),
    (P(min_replicas=2), D(0, 0), was((0, 2)), 2, 2, "DemandMet", "no tasks, minReplicas is 2"),
    (P(max_replicas=4), D(40, 9), was((0, 9)), 9, 4, "ScaledDown", "maxReplicas is 4: 9 -> 4"),
    (P(max_replicas=1), D(500, 3), NEW, 0, 1, "ScaledUp", "500 or more ready and 3 running, 10 per replica: 0 -> 1"),
    (P(target_latency_seconds=0), D(4, 2, 9999), was((0, 1)), 1, 1, "DemandMet", "4 ready and 2 running, 10 per replica"),
]
# fmt: on


@pytest.mark.parametrize(("policy", "demand", "history", "current", "replicas", "reason", "message"), CASES)
def test_situation(
    policy: Policy,
    demand: Demand,
    history: History,
    current: int,
    replicas: int,
    reason: str,
    message: str,
) -> None:
    decision = decide(policy, demand, history, current, 100.0)

    assert (decision.replicas, decision.reason, decision.message) == (replicas, reason, message)


def test_what_was_wanted_last_counts_until_now() -> None:
    """No decision is made while nothing changes, which does not mean that fewer replicas were wanted."""
    decision = decide(P(), Demand(0, 0), was((1000, 5)), 5, 100.0)

    assert decision.replicas == 5
    assert decision.due
    assert decision.due.seconds == pytest.approx(60, abs=0.01)


def test_from_nothing_to_the_target_in_one_decision() -> None:
    decision = decide(P(max_replicas=1000, tasks_per_replica=1), Demand(1000, 0), NEW, 0, 0.0)

    assert decision.replicas == 1000


def test_held_means_where_it_is_but_inside_the_bounds() -> None:
    policy, history = P(min_replicas=2, max_replicas=6), was((0, 4))

    def held(current: int) -> Decision:
        return hold(Situation(policy, None, history, current, None, 100.0), "why")

    assert held(4) == Decision(4, 4, Reason.HELD, "why", history, is_held=True)
    assert held(0).replicas == 2
    assert held(9).replicas == 6


# Quarters of seconds are exact, so that the reference below may compare times.
SECONDS = st.integers(0, 800).map(lambda quarters: quarters / 4)


@st.composite
def policies(draw: st.DrawFn, *, latency: bool = True) -> Policy:
    most = draw(st.integers(1, 40))
    return P(
        min_replicas=draw(st.integers(0, most)),
        max_replicas=most,
        tasks_per_replica=draw(st.sampled_from([1, 2, 7, 10, 1000])),
        target_latency_seconds=draw(st.sampled_from([0, 1, 30])) if latency else 0,
        scale_down_delay_seconds=draw(st.sampled_from([0, 1, 10, 60, 86400])),
    )


demands = st.builds(Demand, st.integers(0, 300), st.integers(0, 60), SECONDS)
traces = st.lists(st.tuples(SECONDS, demands), min_size=1, max_size=25)


def by_count(policy: Policy, demand: Demand) -> int:
    return policy.clamp(math.ceil((demand.ready + demand.running) / policy.tasks_per_replica))


def follow(
    policy: Policy, trace: list[tuple[float, Demand]], running: int
) -> list[tuple[float, Demand, Decision]]:
    """The decisions of an operator that started at time 0 with ``running`` replicas; each is applied."""
    steps, history, current = [], History(((0.0, running),)), running
    for now, (_, demand) in zip(accumulate(seconds for seconds, _ in trace), trace, strict=True):
        decision = decide(policy, demand, history, current, now)
        steps.append((now, demand, decision))
        history, current = decision.history, decision.replicas
    return steps


@given(policies(), traces, st.integers(0, 40))
def test_always(policy: Policy, trace: list[tuple[float, Demand]], running: int) -> None:
    before = running
    for _, demand, decision in follow(policy, trace, running):
        assert policy.min_replicas <= decision.replicas <= policy.max_replicas
        assert decision.replicas >= by_count(policy, demand), "up at once"
        assert decision.replicas > 0 or demand.running == 0, "no running task loses its pod"
        scaled = {Reason.SCALED_UP: 1, Reason.SCALED_DOWN: -1}.get(decision.reason, 0)
        assert scaled == (decision.replicas > before) - (decision.replicas < before)
        if scaled:
            assert decision.message.endswith(f": {before} -> {decision.replicas}")
        before = decision.replicas


@given(policies(latency=False), traces, st.integers(0, 40))
def test_the_replicas_are_the_most_that_was_wanted_within_the_delay(
    policy: Policy, trace: list[tuple[float, Demand]], running: int
) -> None:
    steps = follow(policy, trace, running)
    # What was wanted, and from when until when: from one decision to the next.
    wanted = [(0.0, running), *((now, by_count(policy, demand)) for now, demand, _ in steps)]
    spans = [(replicas, until) for (_, replicas), (until, _) in pairwise(wanted)]
    for number, (now, demand, decision) in enumerate(steps, start=1):
        start = now - policy.scale_down_delay_seconds
        lately = [replicas for replicas, until in spans[:number] if until > start]
        assert decision.replicas == policy.clamp(max([*lately, by_count(policy, demand)]))


@given(policies(), demands, traces, st.integers(0, 40), st.integers(0, 50), st.integers(0, 50))
def test_more_tasks_never_mean_fewer_replicas(
    policy: Policy,
    demand: Demand,
    trace: list[tuple[float, Demand]],
    running: int,
    more_ready: int,
    more_running: int,
) -> None:
    now, _, last = follow(policy, trace, running)[-1]
    more = Demand(demand.ready + more_ready, demand.running + more_running, demand.oldest_ready_seconds)

    fewer = decide(policy, demand, last.history, last.replicas, now + 1)

    assert decide(policy, more, last.history, last.replicas, now + 1).replicas >= fewer.replicas


@given(policies(), traces, st.integers(0, 40), st.floats(0, 1, exclude_max=True))
def test_before_it_asks_to_be_woken_nothing_would_be_decided_otherwise(
    policy: Policy, trace: list[tuple[float, Demand]], running: int, when: float
) -> None:
    for now, demand, decision in follow(policy, trace, running):
        # The turn is due just after the moment from which another number would be decided.
        rest = 100_000 if decision.due is None else max(0.0, decision.due.seconds - 0.002)
        later = now + when * rest
        assert (
            decide(policy, demand, decision.history, decision.replicas, later).replicas == decision.replicas
        )


@given(policies(latency=False), traces, st.integers(0, 40))
def test_waking_when_asked_ends_at_what_is_wanted(
    policy: Policy, trace: list[tuple[float, Demand]], running: int
) -> None:
    now, demand, decision = follow(policy, trace, running)[-1]
    turns = 0
    while decision.due is not None:
        assert decision.due.seconds > 0
        now += decision.due.seconds
        decision = decide(policy, demand, decision.history, decision.replicas, now)
        turns += 1

    assert decision.replicas == by_count(policy, demand)
    assert turns <= len(trace) + 1, "one turn for each step down"


@given(policies(), demands, st.integers(0, 40), st.floats(0, 1, exclude_max=True))
def test_a_restart_scales_nothing_in_early(policy: Policy, demand: Demand, running: int, when: float) -> None:
    now = when * policy.scale_down_delay_seconds
    (step,) = follow(policy, [(now, demand)], running)

    assert step[2].replicas >= min(running, policy.max_replicas) or policy.scale_down_delay_seconds == 0


@given(policies(), traces, st.integers(0, 40))
def test_the_history_stays_short(policy: Policy, trace: list[tuple[float, Demand]], running: int) -> None:
    for _, _, decision in follow(policy, trace, running):
        replicas = [point[1] for point in decision.history.wanted]
        assert replicas == sorted(set(replicas), reverse=True)
        assert len(replicas) <= policy.max_replicas + 1 + running
