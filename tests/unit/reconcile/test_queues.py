"""Which workers serve which queues."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_task_operator.reconcile.queues import ServedQueues, overlap
from django_task_operator.spec import Key
from django_task_operator.tasktable import DatabaseURL, Selection

SHOP = DatabaseURL.parse("postgres://u:p@db/shop")
OTHER = DatabaseURL.parse("postgres://u:p@db/other")


def key(name: str) -> Key:
    return Key(namespace="shop", name=name)


A, B, C = map(key, "abc")


def serves(*queues: str, but: tuple[str, ...] = (), backend: str = "default") -> Selection:
    return Selection(backend, queues, but)


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        (serves("a"), serves("a"), "a"),
        (serves("a", "b"), serves("c", "b"), "b"),
        (serves("a"), serves("b"), None),
        (serves("a"), serves("*"), "a"),
        (serves("a"), serves("*", but=("a",)), None),
        (serves("a", "b"), serves("*", but=("a",)), "b"),
        (serves("*"), serves("*"), "*"),
        # Both take what neither of them leaves out.
        (serves("*", but=("a",)), serves("*", but=("b",)), "*"),
        (serves("a"), serves("a", backend="other"), None),
        (serves("*"), serves("*", backend="other"), None),
    ],
)
def test_overlap(one: Selection, other: Selection, shared: str | None) -> None:
    assert overlap(one, other) == shared
    assert overlap(other, one) == shared


queues = st.lists(st.sampled_from("abcd"), min_size=1, max_size=4, unique=True).map(tuple)
selections = st.one_of(
    st.builds(Selection, st.sampled_from(["x", "y"]), queues),
    st.builds(Selection, st.sampled_from(["x", "y"]), st.just(("*",)), queues),
)


@given(selections, selections)
def test_overlap_is_mutual(one: Selection, other: Selection) -> None:
    assert (overlap(one, other) is None) == (overlap(other, one) is None)


@given(selections, selections)
def test_a_shared_queue_is_one_that_both_serve(one: Selection, other: Selection) -> None:
    def takes(selection: Selection, queue: str) -> bool:
        return (
            selection.is_every_queue or queue in selection.queues
        ) and queue not in selection.exclude_queues

    shared = overlap(one, other)
    both = [queue for queue in "abcde" if takes(one, queue) and takes(other, queue)]

    assert bool(shared) == (one.backend == other.backend and bool(both))
    assert shared in {None, "*", *both}


@given(selections)
def test_one_shares_with_itself(one: Selection) -> None:
    assert overlap(one, one)


@pytest.fixture
def woken() -> list[Key]:
    return []


@pytest.fixture
def served(woken: list[Key]) -> ServedQueues:
    return ServedQueues(woken.append)


def test_who_shares_is_said_to_both(served: ServedQueues) -> None:
    served.set(A, SHOP, serves("a", "b"))
    served.set(B, SHOP, serves("b"))

    assert served.shared(A) == ("b", B)
    assert served.shared(B) == ("b", A)


def test_another_database_is_another_table(served: ServedQueues) -> None:
    served.set(A, SHOP, serves("a"))
    served.set(B, OTHER, serves("a"))

    assert served.shared(A) is None


def test_of_several_the_same_one_is_named(served: ServedQueues) -> None:
    for worker in (C, A, B):
        served.set(worker, SHOP, serves("a"))

    assert [served.shared(worker) for worker in (A, B, C)] == [("a", B), ("a", A), ("a", A)]


def test_neighbours_hear_of_a_change_and_nobody_else(served: ServedQueues, woken: list[Key]) -> None:
    served.set(A, SHOP, serves("a"))
    served.set(B, SHOP, serves("b"))
    served.set(C, OTHER, serves("a"))
    assert woken == [A]
    woken.clear()

    served.set(B, SHOP, serves("b"))
    assert woken == [], "no change"

    served.set(B, SHOP, serves("a"))
    assert set(woken) == {A}
    woken.clear()

    served.set(B, OTHER, serves("a"))
    assert set(woken) == {A, C}, "the old neighbour and the new one"
    woken.clear()

    served.drop(B)
    served.drop(B)
    assert woken == [C]
    assert served.shared(C) is None


def test_neighbours_share_a_database_whatever_they_serve() -> None:
    served = ServedQueues(lambda _: None)
    served.set(A, SHOP, serves("a"))
    served.set(B, SHOP, serves("b"))
    served.set(C, OTHER, serves("a"))

    assert served.neighbours(A) == [B]
    assert served.neighbours(C) == []
    assert served.neighbours(key("unknown")) == []
