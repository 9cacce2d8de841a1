"""To which worker a row belongs, and whether a pod still runs its task."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_task_operator.keepers.evidence import Fate, Trace, is_own, own_replica_sets, pod_of, traces
from django_task_operator.observed.objects import ReplicaSet
from django_task_operator.observed.pods import Pod
from django_task_operator.tasktable import RunningRow

POD = "emails-5d9f-abcde"
OWN = frozenset({"emails-5d9f"})
START = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def row(worker_id: str = POD, started: float | None = 10.4, number: int = 1) -> RunningRow:
    started_at = None if started is None else at(started)
    return RunningRow(uuid.UUID(int=number), "orders.tasks.send", "default", worker_id, 1, started_at)


def unsure(worker_id: str = POD, reading: float = 10.4, number: int = 1) -> RunningRow:
    """A row whose time is in an unknown time zone."""
    return replace(row(worker_id, None, number), reading=at(reading))


def fates(rows: list[RunningRow], *pods: Pod) -> list[Fate]:
    return [trace.fate for trace in traces(rows, {pod.name: pod for pod in pods}, OWN)]


FIRST = Pod(POD, running_since=at(0))
RESTARTED = Pod(POD, restarts=1, running_since=at(20), ended_at=at(15))
AT_ONCE = Pod(POD, restarts=1, running_since=at(10), ended_at=at(10))
WAITING = Pod(POD, restarts=1, ended_at=at(15))


@pytest.mark.parametrize(
    ("started", "pod", "fate"),
    [
        (10.4, FIRST, Fate.ALIVE),
        (10.4, Pod(POD, phase="Unknown", ready=False, running_since=at(0)), Fate.ALIVE),
        (10.4, Pod(POD, terminating=True, running_since=at(0)), Fate.ALIVE),
        (10.4, Pod(POD, phase="Failed", ended_at=at(15)), Fate.ENDED),
        (10.4, Pod(POD, phase="Succeeded", ended_at=at(15)), Fate.ENDED),
        # Nothing is known of its container.
        (10.4, Pod(POD, phase="Pending"), Fate.ALIVE),
        # The container before this one had it, or this one has it.
        (10.4, RESTARTED, Fate.RESTARTED),
        (19.999, RESTARTED, Fate.RESTARTED),
        (20.0, RESTARTED, Fate.ALIVE),
        (25.0, RESTARTED, Fate.ALIVE),
        # After the loss of a node's state, Kubernetes does not know when the container before ended.
        (10.4, replace(RESTARTED, ended_at=None), Fate.RESTARTED),
        (10.4, Pod(POD, restarts=1), Fate.ALIVE),
        # A node's clock was put back: a container that was never restarted cannot have lost a task.
        (-5.0, FIRST, Fate.ALIVE),
        # In the second of the restart nobody can tell.
        (10.4, AT_ONCE, Fate.ALIVE),
        (9.999, AT_ONCE, Fate.RESTARTED),
        # No container runs; what started later is of one that the API server was not yet told of.
        (10.4, WAITING, Fate.STOPPED),
        (15.9, WAITING, Fate.STOPPED),
        (16.0, WAITING, Fate.ALIVE),
    ],
    ids=str,
)
def test_what_became_of_a_row(started: float, pod: Pod, fate: Fate) -> None:
    assert fates([row(started=started)], pod) == [fate]


def test_a_row_whose_pod_is_not_there_is_nobodys() -> None:
    assert fates([row()], Pod("emails-5d9f-other")) == [Fate.GONE]


def test_a_slot_runs_one_task_so_an_older_one_is_of_the_container_before() -> None:
    both = [row(started=10.4, number=1), row(started=10.9, number=2)]
    assert fates(both, AT_ONCE) == [Fate.RESTARTED, Fate.ALIVE]
    # Two slots, or a container that was never restarted, prove nothing.
    assert fates([row(f"{POD}/1.1", 10.4), row(f"{POD}/1.2", 10.9)], AT_ONCE) == [Fate.ALIVE, Fate.ALIVE]
    assert fates(both, FIRST) == [Fate.ALIVE, Fate.ALIVE]


@pytest.mark.parametrize("worker_id", [POD, f"{POD}/1.1", f"{POD}/64.64"])
def test_every_slot_of_a_pod_is_its_own(worker_id: str) -> None:
    assert traces([row(worker_id)], {}, OWN) == [Trace(row(worker_id), POD, Fate.GONE)]


@pytest.mark.parametrize(
    "worker_id",
    [
        "",
        "laptop",
        "emails",
        "emails-5d9f",
        "emails-5d9f-",
        "emails-5d9f-abcdef",
        "emails-5d9f-abcd",
        "emails-5d9f-ABCDE",
        "emails-5d9f-ab-de",
        "emails-5d9e-abcde",
        "emails-5d9f-x-abcde",
        "x-emails-5d9f-abcde",
        "emails-5d9f-abcde-fghij",
        "emails-5d9f-abcde\n",
        "dLrBkQ3vYxWm9sT2aZcE7nHf",
    ],
)
def test_a_foreign_row_is_never_judged(worker_id: str) -> None:
    assert traces([row(worker_id)], {}, OWN) == []


def test_a_row_that_does_not_say_when_is_never_judged() -> None:
    assert traces([row(started=None)], {}, OWN) == []


@given(st.text(max_size=64))
def test_whatever_a_foreign_worker_calls_itself(worker_id: str) -> None:
    pod = pod_of(worker_id)
    assert is_own(pod, OWN) == (
        pod.startswith("emails-5d9f-")
        and len(pod) == 17
        and pod[12:].isalnum()
        and pod[12:].isascii()
        and pod[12:] == pod[12:].lower()
    )


@given(st.sets(st.from_regex(r"[a-z]{1,9}-[a-z0-9]{4,10}", fullmatch=True)), st.data())
def test_only_pods_of_ones_own_replica_sets_are_own(names: set[str], data: st.DataObject) -> None:
    mine = frozenset(data.draw(st.sets(st.sampled_from(sorted(names))))) if names else frozenset()
    for name in names:
        assert is_own(f"{name}-x9k2d", mine) == (name in mine)


def test_a_replica_set_is_own_by_its_deployment_and_the_workers_uid() -> None:
    sets = [
        ReplicaSet("own", "deployment", "worker"),
        ReplicaSet("own-before-a-rollout", "deployment", "worker"),
        ReplicaSet("of-another-deployment", "other", "worker"),
        # Brought here by a backup of another cluster, or adopted from a worker that was deleted.
        ReplicaSet("of-another-worker", "deployment", "other"),
        # Made by a version that did not write it: its hash may be another cluster's too.
        ReplicaSet("of-long-ago", "deployment", None),
        ReplicaSet("of-nobody", None, "worker"),
    ]
    assert own_replica_sets(sets, "deployment", "worker") == {"own", "own-before-a-rollout"}


@pytest.mark.parametrize(
    ("pod", "fate"),
    [
        (FIRST, Fate.ALIVE),
        (RESTARTED, Fate.ALIVE),
        (WAITING, Fate.ALIVE),
        (Pod(POD, phase="Failed", ended_at=at(15)), Fate.ENDED),
        (None, Fate.GONE),
    ],
)
@pytest.mark.parametrize("hours", [-12, -5, 0, 14])
def test_without_a_known_time_zone_only_the_pod_tells(pod: Pod | None, fate: Fate, hours: int) -> None:
    assert fates([unsure(reading=10.4 + hours * 3600)], *([pod] if pod else [])) == [fate]
