"""Which pods are removed: situations, and what is true in all of them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_task_operator.due import Due
from django_task_operator.scaling import (
    VICTIM_COST,
    Candidate,
    Decision,
    History,
    Marks,
    Reason,
    ScaleIn,
    choose_victims,
    held_up,
    stale_marks,
    with_busy_kept,
)

if TYPE_CHECKING:
    import random

READY, UNREADY, PENDING = 11, 10, 6


def pods(text: str) -> list[Candidate]:
    """``a`` is ready, ``a?`` is not, ``a..`` is pending, ``a!`` is marked, ``old/a`` is of another group."""
    made = []
    for word in text.split():
        group, _, rest = word.rpartition("/")
        name = rest.rstrip("?!.")
        rank = PENDING if ".." in rest else UNREADY if "?" in rest else READY
        made.append(Candidate(name, group or "new", rank, VICTIM_COST if "!" in rest else 0))
    return made


@pytest.mark.parametrize(
    ("there", "busy", "wanted", "expected"),
    [
        ("a b c d", "", 0, ScaleIn(0)),
        ("a b c d", "", 2, ScaleIn(2, Marks(("a", "b")))),
        ("a b c d", "a", 2, ScaleIn(2, Marks(("b", "c")))),
        ("a b c d", "a b c", 2, ScaleIn(3, Marks(("d",)), kept=1)),
        ("a b c d", "a b c d", 2, ScaleIn(4, kept=2)),
        ("a b c d", "a", 0, ScaleIn(1, Marks(("b", "c", "d")), kept=1)),
        # Pods that Kubernetes removes first anyway.
        ("a b? c d..", "a", 2, ScaleIn(2, Marks(("d", "b")))),
        ("a b? c d", "b", 1, ScaleIn(4, kept=3)),
        ("a b? c? d", "b", 1, ScaleIn(3, Marks(("c",)), kept=2)),
        # What was chosen stays chosen, unless it became busy.
        ("a b c! d", "", 3, ScaleIn(3)),
        ("a b c! d", "c", 3, ScaleIn(3, Marks(("a",), ("c",)))),
        ("a b! c! d", "", 3, ScaleIn(3, Marks(unmark=("c",)))),
        # In the middle of a rollout.
        ("old/a old/b c d", "a", 2, ScaleIn(4, kept=2)),
        ("old/a old/b c d", "", 2, ScaleIn(2, Marks(("a", "b")))),
        # Not all are there yet, or some are going already.
        ("a b", "a b", 1, ScaleIn(2, kept=1)),
        ("a b", "", 3, ScaleIn(3)),
        ("", "", 0, ScaleIn(0)),
        # A pod about which nothing is known counts as one that cannot be removed.
        ("a b c", "x", 1, ScaleIn(1, Marks(("a", "b")))),
        ("a b c", "a x", 1, ScaleIn(2, Marks(("b",)), kept=1)),
    ],
    ids=str,
)
def test_who_goes(there: str, busy: str, wanted: int, expected: ScaleIn) -> None:
    found = choose_victims(wanted, 4, pods(there), set(busy.split()))

    assert found == expected


CANDIDATES = st.lists(
    st.builds(
        Candidate,
        name=st.from_regex(r"[a-z]{3}", fullmatch=True),
        group=st.just("new"),
        rank=st.sampled_from([PENDING, UNREADY, READY]),
        cost=st.sampled_from([0, 0, -5, 100, VICTIM_COST]),
    ),
    max_size=12,
    unique_by=lambda pod: pod.name,
)


def taken_by_kubernetes(there: list[Candidate], found: ScaleIn, chance: random.Random) -> list[Candidate]:
    """Which pods Kubernetes removes, with these marks and replicas; among equal pods, by chance."""
    costs = {**dict.fromkeys(found.marks.mark, VICTIM_COST), **dict.fromkeys(found.marks.unmark, 0)}
    now = [replace(pod, cost=costs.get(pod.name, pod.cost)) for pod in there]
    chance.shuffle(now)
    now.sort(key=lambda pod: (pod.rank, pod.cost))
    return now[: max(0, len(now) - found.replicas)]


@given(CANDIDATES, st.data(), st.randoms(use_true_random=False))
def test_a_busy_pod_never_goes(there: list[Candidate], data: st.DataObject, chance: random.Random) -> None:
    names = [pod.name for pod in there]
    busy = set(data.draw(st.lists(st.sampled_from(names)))) if names else set()
    current = len(there) + data.draw(st.integers(0, 2))
    wanted = data.draw(st.integers(0, max(0, current - 1)))
    found = choose_victims(wanted, current, there, busy)

    assert not {pod.name for pod in taken_by_kubernetes(there, found, chance)} & busy
    assert min(wanted, current) <= found.replicas <= current
    assert found.replicas >= len(busy)
    assert found.kept == found.replicas - wanted
    assert not set(found.marks.mark) & set(found.marks.unmark)
    assert not set(found.marks.mark) & busy


@given(CANDIDATES, st.data(), st.randoms(use_true_random=False))
def test_it_goes_as_far_as_idle_pods_allow(
    there: list[Candidate], data: st.DataObject, chance: random.Random
) -> None:
    there = [replace(pod, rank=READY) for pod in there]
    names = [pod.name for pod in there]
    busy = set(data.draw(st.lists(st.sampled_from(names)))) if names else set()
    wanted = data.draw(st.integers(0, len(there)))
    found = choose_victims(wanted, len(there) + 1, there, busy)

    assert found.replicas == max(wanted, len(busy))
    # Once planned, and the marks set, there is nothing more to mark.
    costs = {**dict.fromkeys(found.marks.mark, VICTIM_COST), **dict.fromkeys(found.marks.unmark, 0)}
    marked = [replace(pod, cost=costs.get(pod.name, pod.cost)) for pod in there]
    again = choose_victims(wanted, len(there) + 1, marked, busy)
    assert (again.marks.mark, again.marks.unmark, again.replicas) == ((), (), found.replicas)


@given(
    current=st.integers(1, 12),
    wanted=st.integers(0, 12),
    kept=st.integers(0, 12),
    due=st.one_of(st.none(), st.floats(0, 60)),
)
def test_what_is_kept_is_part_of_the_decision(
    current: int, wanted: int, kept: int, due: float | None
) -> None:
    wanted = min(wanted, current - 1)
    kept = min(kept, current - wanted)
    decision = Decision(
        current, wanted, Reason.SCALED_DOWN, "why", History(), Due(due, "why") if due is not None else None
    )
    again = Due(2.0, "again")

    spared = with_busy_kept(decision, ScaleIn(wanted + kept, kept=kept), again)
    assert spared.replicas == wanted + kept
    assert (spared.before, spared.history) == (current, decision.history)
    assert (spared == decision) == (kept == 0)
    held = held_up(decision, current, "nobody knows", again)
    assert (held.replicas, held.event) == (current, None)
    assert held.message == f"{wanted} wanted; {current} kept because nobody knows"
    for changed in (spared, held) if kept else (held,):
        assert changed.is_held
        assert changed.due
        assert changed.due.seconds == min(2.0, 2.0 if due is None else due)


def test_marks_are_stale_where_no_pod_is_about_to_go() -> None:
    assert stale_marks(3, pods("a! b c!")) == Marks(unmark=("a", "c"))
    assert stale_marks(2, pods("a! b c!")) == Marks()
    assert not stale_marks(3, pods("a b c"))
