"""How long tasks take, from those that looks have seen: the mean of all, not of those that are seen most."""

from __future__ import annotations

import random

import pytest

from django_task_operator.tasktable import Durations


def seen(durations: list[float], apart: float, chance: random.Random) -> Durations:
    """Measure tasks that start at any time, with looks at every multiple of ``apart``."""
    found = Durations()
    for took in durations:
        started = chance.uniform(0, apart)
        if started + took > apart:
            found = found.plus(took, apart)
    return found


@pytest.mark.parametrize("mean", [0.02, 0.3, 1.0, 20.0])
def test_the_mean_is_that_of_all_tasks(mean: float) -> None:
    chance = random.Random(3)
    durations = [chance.expovariate(1 / mean) for _ in range(60_000)]

    found = seen(durations, 1.0, chance)

    assert found.seconds / found.tasks == pytest.approx(mean, rel=0.15)
    assert found.tasks == pytest.approx(len(durations), rel=0.15)


def test_a_task_of_no_time_does_not_stand_for_all_others() -> None:
    assert Durations().plus(0.0, 1.0) == Durations(1000.0, 1.0)


def test_a_sum_has_the_latest_age() -> None:
    assert Durations(1, 2, 3).after(Durations(10, 20, 30)) == Durations(11, 22, 3)
