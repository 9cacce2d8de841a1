"""Which attempts count against ``maxRequeues``, and which do not."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_task_operator.keepers.evidence import Fate, Trace
from django_task_operator.keepers.excuses import excused
from django_task_operator.observed.deaths import Shortage
from django_task_operator.observed.pods import Pod
from django_task_operator.tasktable import RunningRow

POD = "emails-5d9f-abcde"
START = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
NAMES = tuple(str(uuid.UUID(int=number)) for number in range(9))
GREEDY, ANOTHER = NAMES[1], NAMES[2]
ITS_MEMORY = f"another task ({GREEDY}) had taken the memory of its container"
EVICTED = "was evicted through the API"
NOT_ITS_OWN = f"the pod {EVICTED}"


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def trace(fate: Fate, number: int = 2, started: float | None = 10.4, pod: str = POD) -> Trace:
    started_at = None if started is None else at(started)
    row = RunningRow(uuid.UUID(int=number), "orders.tasks.send", "default", pod, 1, started_at)
    return Trace(row, pod, fate)


def short(*tasks: str) -> Shortage:
    return Shortage(frozenset(tasks), "")


FIRST = Pod(POD, running_since=at(0))
GONE = replace(FIRST, terminating=True, disruption=EVICTED)
# Its container was killed twice: the second one ran from 5 to 15.
KILLED = Pod(POD, restarts=2, running_since=at(16), began_at=at(5), ended_at=at(15), out_of_memory=True)
GREW = replace(KILLED, shortage=short(GREEDY))
STOPPED = replace(GREW, restarts=1, running_since=None)
ENDED = Pod(POD, phase="Failed", began_at=at(5), ended_at=at(15), disruption=EVICTED)


@pytest.mark.parametrize(
    ("fate", "pod", "started", "excuse"),
    [
        (Fate.RESTARTED, GREW, 10.4, ITS_MEMORY),
        (Fate.STOPPED, STOPPED, 10.4, ITS_MEMORY),
        (Fate.STOPPED, replace(STOPPED, restarts=0, began_at=None), 10.4, ITS_MEMORY),
        # Nobody had said who took it.
        (Fate.RESTARTED, KILLED, 10.4, ""),
        # Those that were blamed had ended by then.
        (Fate.RESTARTED, replace(KILLED, shortage=short(NAMES[7])), 10.4, ""),
        (Fate.RESTARTED, replace(KILLED, shortage=short(NAMES[7], GREEDY)), 10.4, ITS_MEMORY),
        # It was blamed, too.
        (Fate.RESTARTED, replace(KILLED, shortage=short(GREEDY, ANOTHER)), 10.4, ""),
        # It may be of the container before, about whose end nothing is known any more.
        (Fate.RESTARTED, GREW, 3.0, ""),
        (Fate.RESTARTED, GREW, 5.9, ""),
        (Fate.RESTARTED, GREW, 6.0, ITS_MEMORY),
        (Fate.RESTARTED, replace(GREW, began_at=None), 10.4, ""),
        # Not for a lack of memory.
        (Fate.RESTARTED, replace(KILLED, out_of_memory=False), 10.4, ""),
        # The pod was ended by others, and its last container with it.
        (Fate.GONE, GONE, 10.4, NOT_ITS_OWN),
        (Fate.GONE, GONE, None, NOT_ITS_OWN),
        (Fate.GONE, replace(GONE, restarts=1), 10.4, NOT_ITS_OWN),
        (Fate.GONE, replace(GONE, restarts=1, running_since=at(10)), 10.4, ""),
        (Fate.GONE, replace(GONE, restarts=1), None, ""),
        (Fate.ENDED, ENDED, 10.4, NOT_ITS_OWN),
        (Fate.ENDED, ENDED, None, NOT_ITS_OWN),
        # It ran out of memory in its last moments.
        (Fate.ENDED, replace(ENDED, out_of_memory=True), 10.4, ""),
        (Fate.ENDED, replace(ENDED, out_of_memory=True, shortage=short(GREEDY)), 10.4, ITS_MEMORY),
        # Someone deleted it, or nothing is known.
        (Fate.GONE, FIRST, 10.4, ""),
        (Fate.GONE, None, 10.4, ""),
        (Fate.ENDED, replace(ENDED, disruption=""), 10.4, ""),
        # That pod is to be evicted, but its container had ended before.
        (Fate.RESTARTED, replace(KILLED, out_of_memory=False, disruption=EVICTED), 10.4, ""),
    ],
)
def test_what_excuses_an_attempt(fate: Fate, pod: Pod | None, started: float | None, excuse: str) -> None:
    pods = {POD: pod} if pod else {}
    _, bystander = excused([trace(fate, 1, started), trace(fate, 2, started)], pods)
    assert bystander == replace(trace(fate, 2, started), excuse=excuse)


def test_the_one_that_grew_is_not_excused() -> None:
    greedy, bystander = excused([trace(Fate.STOPPED, 1), trace(Fate.STOPPED, 2)], {POD: STOPPED})
    assert (greedy.excuse, bystander.excuse) == ("", ITS_MEMORY)


def test_pods_are_judged_one_by_one() -> None:
    other = "emails-5d9f-other"
    both = [trace(Fate.STOPPED, 1), trace(Fate.STOPPED, 2), trace(Fate.STOPPED, 3, pod=other)]
    found = excused(both, {POD: STOPPED, other: replace(STOPPED, name=other)})
    assert [each.excuse for each in found] == ["", ITS_MEMORY, ""]


@given(st.sets(st.sampled_from(range(9)), min_size=1), st.none() | st.sets(st.sampled_from(NAMES)))
def test_every_death_for_a_lack_of_memory_counts_for_somebody(
    lost: set[int], blamed: set[str] | None
) -> None:
    pod = replace(KILLED, shortage=short(*blamed) if blamed else None)
    found = excused([trace(Fate.RESTARTED, number) for number in sorted(lost)], {POD: pod})
    assert any(not each.excuse for each in found)
