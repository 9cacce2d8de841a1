"""Which changes of the status cause an event, once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.report.test_status import DOWN, GOOD, MISSING, OTHER, TABLE, status_of, unsampled, with_pod

from django_task_operator.errors import ObjectNameTaken
from django_task_operator.observed.pods import PodTrouble
from django_task_operator.report.events import build_event, transitions
from django_task_operator.spec import Key
from django_task_operator.turn import Event, Turn

NEW = Turn(GOOD.key, 1)
TAKEN = replace(GOOD, apply_error=ObjectNameTaken(kind="Deployment", name="emails"))
PAUSED = replace(GOOD, paused=True)


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (None, GOOD, []),
        (None, NEW, []),
        (NEW, GOOD, []),
        (None, unsampled(DOWN), ["Warning ConnectionRefused"]),
        (GOOD, unsampled(DOWN), ["Warning ConnectionRefused"]),
        (unsampled(DOWN), GOOD, ["Normal DatabaseReachable"]),
        (unsampled(DOWN), NEW, []),
        # The Secret is both what stalls it and why the database is not known: one event says so.
        (GOOD, unsampled(MISSING), ["Warning SecretMissing"]),
        (unsampled(MISSING), GOOD, ["Normal DatabaseReachable", "Normal Recovered"]),
        (unsampled(DOWN), unsampled(MISSING), ["Warning SecretMissing"]),
        (GOOD, TAKEN, ["Warning DeploymentNameTaken"]),
        (TAKEN, GOOD, ["Normal Recovered"]),
        (GOOD, with_pod(PodTrouble.CRASH_LOOPING), ["Warning CrashLooping"]),
        (
            with_pod(PodTrouble.IMAGE_PULL_FAILED),
            with_pod(PodTrouble.CRASH_LOOPING),
            ["Warning CrashLooping"],
        ),
        (GOOD, with_pod(PodTrouble.UNSCHEDULABLE), []),
        (GOOD, replace(GOOD, shared_queue=("a", OTHER)), ["Warning QueueShared"]),
        (GOOD, replace(GOOD, unserved_queues=("a",)), ["Warning QueueUnserved"]),
        (replace(GOOD, unserved_queues=("a",)), GOOD, []),
        (GOOD, PAUSED, ["Normal Paused"]),
        (PAUSED, GOOD, ["Normal Resumed"]),
        (None, PAUSED, ["Normal Paused"]),
    ],
)
def test_transition(before: Turn | None, after: Turn, told: list[str]) -> None:
    old = status_of(before) if before else {}

    assert [f"{event.kind} {event.reason}" for event in transitions(old, status_of(after, old))] == told


@pytest.mark.parametrize("turn", [case[1] for case in TABLE], ids=[case[0] for case in TABLE])
def test_nothing_is_said_twice(turn: Turn) -> None:
    status = status_of(turn)

    assert transitions(status, status_of(turn, status)) == []


def test_notes_say_what_happened() -> None:
    down, taken = status_of(unsampled(DOWN)), status_of(TAKEN)

    assert transitions({}, down) == [Event("Warning", "ConnectionRefused", str(DOWN))]
    assert transitions(taken, status_of(GOOD, taken)) == [
        Event("Normal", "Recovered", "DeploymentNameTaken is over.")
    ]


def event_object(note: str) -> dict[str, Any]:
    key = Key(namespace="shop", name="emails")
    return build_event(key, "w-1", Event("Normal", "ScaledUp", note), "operator-5d4")


def test_event_object() -> None:
    event = event_object("10 ready: 0 -> 1")

    assert event.pop("eventTime").endswith("Z")
    assert event == {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"generateName": "emails-", "namespace": "shop"},
        "type": "Normal",
        "reason": "ScaledUp",
        "note": "10 ready: 0 -> 1",
        "action": "Reconcile",
        "reportingController": "djangotasks.dev/django-task-operator",
        "reportingInstance": "operator-5d4",
        "regarding": {
            "apiVersion": "djangotasks.dev/v1alpha1",
            "kind": "DjangoTaskWorker",
            "name": "emails",
            "namespace": "shop",
            "uid": "w-1",
        },
    }


def test_event_about_the_autoscaler() -> None:
    key = Key(namespace="shop", name="emails")
    event = build_event(key, "w-1", Event("Normal", "ScaledUp", "n"), "operator-5d4", autoscaler="h-1")

    assert event["regarding"] == {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "name": "emails",
        "namespace": "shop",
        "uid": "h-1",
    }


@pytest.mark.parametrize("letter", ["x", "ü", "任", "🐍"])
def test_a_note_is_as_long_as_the_api_allows(letter: str) -> None:
    note = event_object(letter * 2000)["note"]

    assert set(note) == {letter}
    assert 1020 < len(note.encode()) <= 1024
