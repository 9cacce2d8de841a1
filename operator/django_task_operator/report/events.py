"""The Kubernetes events of a worker: the history that `kubectl describe djtw` shows."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from django_task_operator.contract import ConditionReason, ConditionType, EventReason, StatusField
from django_task_operator.harmless import harmless
from django_task_operator.resources.labels import MANAGER
from django_task_operator.scaling import Reason
from django_task_operator.spec import GROUP, KIND, VERSION
from django_task_operator.turn import Event

if TYPE_CHECKING:
    from django_task_operator.spec import Key, Manifest

# The API's own limit for a note, which counts bytes.
_LONGEST_NOTE = 1024
# Reasons of ScalingActive that are worth an event.
_SCALING_WARNINGS = {
    ConditionReason.AUTOSCALER_FAILING,
    ConditionReason.METRICS_API_FOREIGN,
    ConditionReason.METRICS_API_OFF,
    ConditionReason.METRICS_API_UNREACHABLE,
    ConditionReason.QUEUE_SHARED,
    ConditionReason.QUEUE_UNSERVED,
    Reason.CONFLICT,
}

# Events for when a count is no longer zero.
_COUNTS = {
    StatusField.ORPHANED_TASKS: (
        EventReason.TASKS_ORPHANED,
        "{number} of the tasks that are RUNNING in the table ran on pods that are gone.",
    ),
    StatusField.STUCK_TASKS: (
        EventReason.TASKS_STUCK,
        "{number} of the tasks have run for longer than spec.stuckAfterSeconds on live pods.",
    ),
}


def transitions(previous: Manifest, status: Manifest) -> list[Event]:
    """Return events for the changes between two statuses that matter to people.

    The old status is the one that the API server has stored, so a restarted operator repeats nothing.
    """
    before = {condition["type"]: condition for condition in previous.get(StatusField.CONDITIONS, ())}
    after = {condition["type"]: condition for condition in status[StatusField.CONDITIONS]}
    events: list[Event] = []
    for kind, bad in ((ConditionType.DATABASE_REACHABLE, "False"), (ConditionType.STALLED, "True")):
        old, new = before.get(kind, {}), after[kind]
        if new["status"] == bad:
            is_news = (old.get("status"), old.get("reason")) != (bad, new["reason"])
            if is_news and new["reason"] not in {event.reason for event in events}:
                events.append(Event("Warning", new["reason"], new["message"]))
        elif old.get("status") == bad and kind is ConditionType.STALLED:
            events.append(Event("Normal", EventReason.RECOVERED, f"{old['reason']} is over."))
        elif old.get("status") == bad and new["status"] == "True":
            events.append(Event("Normal", EventReason.DATABASE_REACHABLE, "The task table answers again."))
    scaling, was_scaling = after[ConditionType.SCALING_ACTIVE], before.get(ConditionType.SCALING_ACTIVE, {})
    if scaling["reason"] in _SCALING_WARNINGS and was_scaling.get("reason") != scaling["reason"]:
        events.append(Event("Warning", scaling["reason"], scaling["message"]))
    for count, (reason, note) in _COUNTS.items():
        if status.get(count) and not previous.get(count):
            events.append(Event("Warning", reason, note.format(number=status[count])))
    paused, was_paused = (
        after[ConditionType.PAUSED]["status"],
        before.get(ConditionType.PAUSED, {}).get("status", "False"),
    )
    if paused != was_paused:
        events.append(
            Event("Normal", EventReason.PAUSED, after[ConditionType.PAUSED]["message"])
            if paused == "True"
            else Event("Normal", EventReason.RESUMED, "spec.paused is no longer set.")
        )
    return events


def build_event(
    worker: Key, uid: str, event: Event, instance: str, *, autoscaler: str | None = None
) -> Manifest:
    """Build the object of the events API; ``instance`` is the name of the operator's pod.

    With ``autoscaler``, a uid, the event is about the worker's HorizontalPodAutoscaler instead of the worker.
    """
    about = {"apiVersion": f"{GROUP}/{VERSION}", "kind": KIND, "uid": uid}
    if autoscaler:
        about = {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "uid": autoscaler}
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"generateName": f"{worker.name}-", "namespace": worker.namespace},
        "eventTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "type": event.kind,
        "reason": str(event.reason),
        "note": harmless(event.note).encode()[:_LONGEST_NOTE].decode(errors="ignore"),
        "action": "Reconcile",
        "reportingController": f"{GROUP}/{MANAGER}",
        "reportingInstance": instance,
        "regarding": {**about, "name": worker.name, "namespace": worker.namespace},
    }
