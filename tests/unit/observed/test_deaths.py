"""What a pod's status says about its end."""

from __future__ import annotations

from typing import Any

import pytest

from django_task_operator.observed.deaths import Shortage, disruption_of, shortage_of
from django_task_operator.observed.pods import Pod

ONE, TWO, THREE = (f"0000000{number}-89ab-4cde-8f01-23456789abcd" for number in (1, 2, 3))
GREW = f"Short of memory (151 of 160 MiB): process 2 takes 110 MiB for task {ONE}."
BOTH = (
    f"Short of memory (151 of 160 MiB): process 1 takes 70 MiB for tasks {ONE}, {TWO}; "
    f"process 3 takes 66 MiB for task {THREE}."
)


@pytest.mark.parametrize(
    ("message", "tasks"),
    [
        (GREW, {ONE}),
        (f"{GREW}\n", {ONE}),
        (BOTH, {ONE, TWO, THREE}),
        # A log of which nothing else is left, or that quotes such a line.
        (f"ERROR {GREW}", None),
        (f"{GREW}\nTask id={TWO} state=FAILED", None),
        (f"Starting\n{GREW}", None),
        (GREW.replace("for task", "for postgres://shop:secret@db, task"), None),
        # A process that runs no task.
        ("Short of memory (151 of 160 MiB): process 2 takes 110 MiB.", None),
        (GREW.replace(ONE, "1"), None),
        ("", None),
        (None, None),
    ],
)
def test_whose_memory_it_was(message: str | None, tasks: set[str] | None) -> None:
    ended = {"reason": "OOMKilled", "exitCode": 137, "message": message}
    expected = Shortage(frozenset(tasks), message.strip()) if tasks and message else None
    assert shortage_of(ended) == expected
    assert shortage_of({**ended, "reason": "Error"}) is None


def status(reason: str, of_pod: str = "", value: str = "True") -> dict[str, Any]:
    conditions = [
        {"type": "Ready", "status": "False", "reason": "EvictionByEvictionAPI"},
        {"type": "DisruptionTarget", "status": value, "reason": reason},
    ]
    return {"conditions": conditions, "reason": of_pod}


@pytest.mark.parametrize(
    ("seen", "disruption"),
    [
        (status("PreemptionByScheduler"), "was preempted by a pod of higher priority"),
        (status("DeletionByTaintManager"), "was removed from its node because of a taint"),
        (status("EvictionByEvictionAPI"), "was evicted through the API"),
        (status("DeletionByPodGC"), "was on a node that no longer exists"),
        (status("TerminationByKubelet", "Terminated"), "was on a node that shut down"),
        (status("TerminationByKubelet", "Preempting"), "was preempted by a critical pod"),
        # It may have used up the memory or the disk of its node itself.
        (status("TerminationByKubelet", "Evicted"), ""),
        (status("TerminationByKubelet"), ""),
        (status("SomethingNew"), ""),
        # Nothing came of it.
        (status("EvictionByEvictionAPI", value="False"), ""),
        ({}, ""),
    ],
)
def test_who_ended_it(seen: dict[str, Any], disruption: str) -> None:
    assert disruption_of(seen) == disruption


def test_a_pod_has_both() -> None:
    ended = {
        "exitCode": 137,
        "reason": "OOMKilled",
        "startedAt": "2026-11-22T12:00:01Z",
        "finishedAt": "2026-11-22T12:00:09Z",
        "message": GREW,
    }
    container = {"name": "worker", "restartCount": 1, "lastState": {"terminated": ended}}
    manifest = {
        "metadata": {"name": "p"},
        "status": {**status("DeletionByPodGC"), "containerStatuses": [container]},
    }
    pod = Pod.of(manifest)
    assert pod.began_at
    assert pod.began_at.second == 1
    assert pod.out_of_memory
    assert pod.shortage == Shortage(frozenset({ONE}), GREW)
    assert pod.crash == f"killed for using too much memory: {GREW}"
    assert pod.disruption == "was on a node that no longer exists"
