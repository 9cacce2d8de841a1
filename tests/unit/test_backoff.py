from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from django_task_operator.backoff import Backoff

seconds = st.floats(0.1, 60)


def test_delays_double_up_to_the_ceiling() -> None:
    backoff = Backoff(1, 30)

    assert [backoff.next() for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]


def test_a_success_begins_anew() -> None:
    backoff = Backoff(0.5, 4)
    assert [backoff.next(), backoff.next()] == [0.5, 1]

    backoff.reset()

    assert backoff.next() == 0.5


def test_jitter_does_not_add_up() -> None:
    factors = iter([0.5, 1.5, 1.0])
    backoff = Backoff(1, 10, lambda: next(factors))

    assert [backoff.next() for _ in range(3)] == [0.5, 3, 4]


@given(seconds, seconds, st.lists(st.booleans()))
def test_no_delay_is_outside_of_its_bounds(one: float, other: float, failures: list[bool]) -> None:
    floor, ceiling = sorted((one, other))
    backoff, before = Backoff(floor, ceiling), 0.0
    for failed in failures:
        if failed:
            delay = backoff.next()
            assert max(floor, before) <= delay <= ceiling
            before = delay
        else:
            backoff.reset()
            before = 0.0
