# ruff: noqa: E501
"""How many replicas if others decide, too: a table of situations, and what is always true."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_task_operator.contract import EventReason
from django_task_operator.scaling import (
    DRIVERS,
    Decision,
    Demand,
    History,
    Policy,
    Reason,
    Situation,
    decide,
    decide_external,
    decide_hpa,
)
from django_task_operator.spec import Driver

NEW = History()
NOW = 100.0


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


def follow(policy: Policy, history: History, current: int, asked: int | None, now: float) -> Decision:
    return decide_external(Situation(policy, None, history, current, asked, now))


def share(
    policy: Policy, demand: Demand | None, history: History, current: int, asked: int | None, now: float
) -> Decision:
    return decide_hpa(Situation(policy, demand, history, current, asked, now))


D = Demand


def was(*points: tuple[float, int]) -> History:
    """What was wanted: (until how many seconds ago, replicas)."""
    return History(tuple((NOW - ago, replicas) for ago, replicas in points))


# One line a case.
# fmt: off
FOLLOWED = [
    # history, current, asked: replicas
    (NEW, 0, None, 1),
    (was((0, 5)), 5, None, 5),
    (was((0, 0)), 0, None, 1),
    (was((0, 5)), 5, 3, 3),
    (was((0, 5)), 5, 0, 0),
    (was((0, 5)), 5, 500, 500),
]
SHARED = [
    # policy, demand, history, current, asked: replicas, reason, message
    (P(), D(0, 0), NEW, 0, None, 0, "DemandMet", "no tasks"),
    (P(), D(0, 0), NEW, 0, 0, 0, "DemandMet", "no tasks"),
    (P(), D(42, 0), NEW, 0, None, 5, "ScaledUp", "42 ready and 0 running, 10 per replica: 0 -> 5"),
    (P(), D(42, 0), NEW, 0, 0, 5, "ScaledUp", "42 ready and 0 running, 10 per replica: 0 -> 5"),
    (P(), D(100, 0), was((0, 0)), 0, 0, 10, "ScaledUp", "100 or more ready and 0 running, 10 per replica: 0 -> 10"),
    (P(min_replicas=2), D(0, 0), NEW, 0, 0, 2, "ReplicasAsked", "the HorizontalPodAutoscaler asks for 2 (no tasks)"),
    (P(), D(42, 0), was((0, 5)), 5, 7, 7, "ReplicasAsked", "the HorizontalPodAutoscaler asks for 7 (42 ready and 0 running, 10 per replica)"),
    (P(), D(42, 0), was((0, 5)), 5, 2, 2, "ReplicasAsked", "the HorizontalPodAutoscaler asks for 2 (42 ready and 0 running, 10 per replica)"),
    (P(), D(42, 0), was((0, 5)), 5, None, 5, "ReplicasAsked", "the HorizontalPodAutoscaler asks for 5 (42 ready and 0 running, 10 per replica)"),
    (P(), D(90, 50), was((0, 10)), 10, 10, 10, "AtMaximum", "90 ready and 50 running, 10 per replica want more than maxReplicas 10"),
    (P(), D(90, 50), was((0, 10)), 10, 50, 10, "AtMaximum", "90 ready and 50 running, 10 per replica want more than maxReplicas 10"),
    (P(), D(0, 1), was((999, 5)), 5, 3, 3, "ReplicasAsked", "the HorizontalPodAutoscaler asks for 3 (0 ready and 1 running, 10 per replica)"),
    (P(), D(0, 0), was((0, 5)), 5, 5, 5, "Stabilizing", "no tasks; the HorizontalPodAutoscaler keeps 5 until scaleDownDelaySeconds are over"),
    (P(), D(0, 0), was((59, 5), (0, 0)), 5, 1, 1, "Stabilizing", "no tasks; the HorizontalPodAutoscaler keeps 1 until scaleDownDelaySeconds are over"),
    (P(), D(0, 0), was((60, 5), (0, 0)), 5, 5, 0, "ScaledDown", "no tasks: 5 -> 0"),
    (P(scale_down_delay_seconds=0), D(0, 0), was((0, 5)), 5, 5, 0, "ScaledDown", "no tasks: 5 -> 0"),
    (P(min_replicas=1), D(0, 0), was((60, 5), (0, 0)), 5, 5, 5, "ReplicasAsked", "the HorizontalPodAutoscaler asks for 5 (no tasks)"),
    (P(), None, was((0, 5)), 5, 7, 7, "Held", "the demand is not known"),
    (P(), None, was((0, 5)), 5, None, 5, "Held", "the demand is not known"),
    (P(), None, was((60, 5), (0, 0)), 0, 0, 0, "Held", "the demand is not known"),
]
AGREED = [
    # driver, decided, asked: what spec.replicas becomes
    (Driver.OPERATOR, 5, None, None),
    (Driver.OPERATOR, 5, 3, None),
    (Driver.EXTERNAL, 5, None, 5),
    (Driver.EXTERNAL, 3, 3, 3),
    (Driver.HPA, 5, None, 5),
    (Driver.HPA, 5, 0, 5),
    (Driver.HPA, 0, 5, 0),
    (Driver.HPA, 5, 5, 5),
]
# fmt: on


@pytest.mark.parametrize(("history", "current", "asked", "replicas"), FOLLOWED)
def test_external(history: History, current: int, asked: int | None, replicas: int) -> None:
    decision = follow(P(max_replicas=4), history, current, asked, NOW)

    assert (decision.replicas, decision.reason) == (replicas, "ReplicasAsked")
    assert decision.message == f"spec.replicas asks for {replicas}"


@pytest.mark.parametrize(
    ("policy", "demand", "history", "current", "asked", "replicas", "reason", "message"), SHARED
)
def test_hpa(
    policy: Policy,
    demand: Demand | None,
    history: History,
    current: int,
    asked: int | None,
    replicas: int,
    reason: str,
    message: str,
) -> None:
    decision = share(policy, demand, history, current, asked, NOW)

    assert (decision.replicas, decision.reason, decision.message) == (replicas, reason, message)


@pytest.mark.parametrize(("driver", "decided", "asked", "becomes"), AGREED)
def test_what_the_scale_says(driver: Driver, decided: int, asked: int | None, becomes: int | None) -> None:
    assert DRIVERS[driver].write(decided, asked) == becomes


@pytest.mark.parametrize("driver", Driver)
@pytest.mark.parametrize("asked", [None, 0, 3, 5])
def test_what_the_scale_says_while_the_worker_is_paused(driver: Driver, asked: int | None) -> None:
    situation = Situation(P(max_replicas=4), D(42, 0), was((0, 5)), 5, asked, NOW)
    decision, spec_replicas = decide(driver, situation, paused=True)

    assert spec_replicas == asked
    assert (decision.replicas, decision.reason, decision.message) == (5, "Held", "paused")


def test_the_way_to_zero_is_looked_at_when_it_is_over() -> None:
    decision = share(P(), D(0, 0), was((20, 5), (0, 0)), 5, 1, NOW)

    assert decision.due
    assert decision.due.seconds == pytest.approx(40, abs=0.01)
    assert share(P(), D(0, 0), decision.history, 1, 1, NOW + decision.due.seconds).replicas == 0


policies = st.builds(
    P,
    min_replicas=st.integers(0, 3),
    max_replicas=st.integers(3, 12),
    tasks_per_replica=st.integers(1, 20),
    scale_down_delay_seconds=st.sampled_from([0.0, 30.0]),
)
demands = st.builds(Demand, st.integers(0, 300), st.integers(0, 20))
# Seconds that pass, tasks, and what an autoscaler writes (above zero, as it does).
worlds = st.lists(
    st.tuples(st.floats(0, 40), st.one_of(st.none(), demands), st.one_of(st.none(), st.integers(1, 12))),
    min_size=1,
    max_size=12,
)


@given(
    policy=policies, asked=st.one_of(st.none(), st.integers(0, 12)), current=st.integers(0, 12), steps=worlds
)
def test_shared_between_the_operator_and_an_autoscaler(
    policy: Policy, asked: int | None, current: int, steps: list[tuple[float, Demand | None, int | None]]
) -> None:
    now, history = 0.0, History(((0.0, current),))
    for seconds, demand, wish in steps:
        now += seconds
        # At zero it sleeps; above, it stays inside its own bounds.
        if asked and wish:
            asked = max(1, policy.min_replicas, min(policy.max_replicas, wish))
        before = asked
        decision = share(policy, demand, history, current, asked, now)
        current, history = decision.replicas, decision.history
        asked = DRIVERS[Driver.HPA].write(decision.replicas, asked)

        assert asked == current, "what runs is what the scale says"
        assert policy.min_replicas <= current <= policy.max_replicas
        if demand and demand.tasks:
            assert current > 0, "tasks never find nobody"
        if before and current != policy.clamp(before):
            assert current == 0, "above zero the autoscaler's number is law"
            assert demand is not None
        if before == 0 and current and not policy.min_replicas:
            assert demand
            wanted = math.ceil(min(demand.tasks, policy.limit + demand.running) / policy.tasks_per_replica)
            assert current == policy.clamp(wanted), "awake at once, with all that are needed"
        again = share(policy, demand, history, current, asked, now)
        assert again.replicas == current, "a decision that was carried out stands"


@given(policy=policies, history=st.integers(1, 12), demand=demands)
def test_no_change_of_the_driver_ends_a_pod_at_once(policy: Policy, history: int, demand: Demand) -> None:
    policy = P(0, 12, policy.tasks_per_replica, scale_down_delay_seconds=30)
    followed = follow(policy, History(((NOW - 5, history),)), history, history, NOW)
    shared = share(policy, demand, followed.history, followed.replicas, None, NOW + 1)

    assert followed.replicas == history
    assert shared.replicas == history
    assert follow(policy, shared.history, shared.replicas, None, NOW + 2).replicas == history


situations = st.builds(
    Situation,
    policies,
    st.one_of(st.none(), demands),
    st.integers(0, 12).map(lambda replicas: History(((NOW - 5, replicas),))),
    st.integers(0, 12),
    st.one_of(st.none(), st.integers(0, 15)),
    st.just(NOW),
)


@given(st.sampled_from(Driver), situations, st.booleans())
def test_whoever_decides(driver: Driver, situation: Situation, paused: bool) -> None:
    decision, spec_replicas = decide(driver, situation, paused=paused)

    assert decision.before == situation.current
    if paused:
        assert (decision.replicas, spec_replicas) == (situation.current, situation.asked)
    elif driver is Driver.EXTERNAL:
        expected = max(1, situation.current) if situation.asked is None else situation.asked
        assert decision.replicas == spec_replicas == expected
    else:
        assert situation.policy.min_replicas <= decision.replicas <= situation.policy.max_replicas
        assert spec_replicas == (decision.replicas if driver is Driver.HPA else None)
    went = (decision.replicas > decision.before) - (decision.replicas < decision.before)
    told = {EventReason.SCALED_UP: 1, EventReason.SCALED_DOWN: -1, None: 0}[decision.event]
    assert told == went or (decision.is_held and went > told == 0)
    assert {Reason.SCALED_UP: 1, Reason.SCALED_DOWN: -1}.get(decision.reason, went) == went
    assert decision.note == f"{decision.why}: {decision.before} -> {decision.replicas}"
    assert decision.message in {decision.why, decision.note}
    assert decision.due is None or decision.due.seconds >= 0
