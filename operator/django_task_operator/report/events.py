"""The Kubernetes events of a worker: what `kubectl describe djtw` tells of its past."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from django_task_operator.resources.labels import MANAGER
from django_task_operator.spec import GROUP, KIND, VERSION
from django_task_operator.turn import Event

if TYPE_CHECKING:
    from django_task_operator.spec import Key, Manifest

# The API's own limit for a note, which counts bytes.
_LONGEST_NOTE = 1024
# Reasons of ScalingActive that somebody should hear of.
_SCALING_WARNINGS = {
    "AutoscalerFailing",
    "MetricsApiForeign",
    "MetricsApiOff",
    "MetricsApiUnreachable",
    "QueueShared",
    "QueueUnserved",
}

# What is told when a count is no longer zero.
_COUNTS = {
    "orphanedTasks": (
        "TasksOrphaned",
        "{number} of the tasks that are RUNNING in the table ran on pods that are gone.",
    ),
    "stuckTasks": (
        "TasksStuck",
        "{number} of the tasks have run for longer than spec.stuckAfterSeconds on pods that live.",
    ),
}


def transitions(previous: Manifest, status: Manifest) -> list[Event]:
    """Tell what changed between two statuses that a person should hear of.

    Compared with what the API server has stored, so a restarted operator repeats nothing.
    """
    before = {condition["type"]: condition for condition in previous.get("conditions", ())}
    after = {condition["type"]: condition for condition in status["conditions"]}
    events: list[Event] = []
    for kind, bad in (("DatabaseReachable", "False"), ("Stalled", "True")):
        old, new = before.get(kind, {}), after[kind]
        if new["status"] == bad:
            is_news = (old.get("status"), old.get("reason")) != (bad, new["reason"])
            if is_news and new["reason"] not in {event.reason for event in events}:
                events.append(Event("Warning", new["reason"], new["message"]))
        elif old.get("status") == bad and kind == "Stalled":
            events.append(Event("Normal", "Recovered", f"{old['reason']} is over."))
        elif old.get("status") == bad and new["status"] == "True":
            events.append(Event("Normal", "DatabaseReachable", "The task table answers again."))
    scaling, was_scaling = after["ScalingActive"], before.get("ScalingActive", {})
    if scaling["reason"] in _SCALING_WARNINGS and was_scaling.get("reason") != scaling["reason"]:
        events.append(Event("Warning", scaling["reason"], scaling["message"]))
    for count, (reason, note) in _COUNTS.items():
        if status.get(count) and not previous.get(count):
            events.append(Event("Warning", reason, note.format(number=status[count])))
    paused, was_paused = after["Paused"]["status"], before.get("Paused", {}).get("status", "False")
    if paused != was_paused:
        events.append(
            Event("Normal", "Paused", after["Paused"]["message"])
            if paused == "True"
            else Event("Normal", "Resumed", "spec.paused is no longer set.")
        )
    return events


def build_event(
    worker: Key, uid: str, event: Event, instance: str, *, autoscaler: str | None = None
) -> Manifest:
    """Build the object of the events API; ``instance`` is the name of the operator's pod.

    With ``autoscaler``, a uid, it is about the worker's HorizontalPodAutoscaler and not the worker.
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
        "reason": event.reason,
        "note": event.note.encode()[:_LONGEST_NOTE].decode(errors="ignore"),
        "action": "Reconcile",
        "reportingController": f"{GROUP}/{MANAGER}",
        "reportingInstance": instance,
        "regarding": {**about, "name": worker.name, "namespace": worker.namespace},
    }
