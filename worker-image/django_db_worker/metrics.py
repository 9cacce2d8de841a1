"""The metrics page: the status board, summed up over the slots."""

from collections.abc import Callable, Iterable
from itertools import accumulate

from .status_board import BUCKETS, Histogram, SlotStatus, State, StatusBoard

PREFIX = "django_db_worker"


def exposition(board: StatusBoard, *, restarts: int) -> str:
    """Return all metrics, in Prometheus' text format."""
    slots = board.all

    def total(count: Callable[[SlotStatus], int]) -> int:
        return sum(map(count, slots))

    lines = [
        *_family("tasks_started_total", "counter", "Tasks started."),
        _sample("tasks_started_total", total(lambda slot: slot.started)),
        *_family("tasks_finished_total", "counter", "Tasks finished, by their status."),
        _sample("tasks_finished_total", total(lambda slot: slot.succeeded), 'status="SUCCESSFUL"'),
        _sample("tasks_finished_total", total(lambda slot: slot.failed), 'status="FAILED"'),
        *_by_task(board),
        *_histogram("task_duration_seconds", "From a task's start to its end.", (p.durations for p in slots)),
        *_histogram(
            "task_queue_wait_seconds",
            "From when a task could start to when it did.",
            (p.waits for p in slots),
        ),
        *_family("claims_total", "counter", "Attempts to claim a task, by their outcome."),
        _sample("claims_total", total(lambda slot: slot.claimed), 'outcome="claimed"'),
        _sample("claims_total", total(lambda slot: slot.empty), 'outcome="empty"'),
        _sample("claims_total", total(lambda slot: slot.failed_claims), 'outcome="failed"'),
        *_family("reconnects_total", "counter", "Connections to the task table that replaced another."),
        _sample("reconnects_total", total(lambda slot: slot.reconnects)),
        *_family("slots", "gauge", "Worker slots: processes times threads."),
        _sample("slots", len(slots)),
        *_family("slots_active", "gauge", "Slots that run a task now."),
        _sample("slots_active", total(lambda slot: slot.state is State.RUNNING)),
        *_family("slots_disconnected", "gauge", "Slots that wait for the database."),
        _sample("slots_disconnected", total(lambda slot: slot.state is State.DISCONNECTED)),
        *_family("process_restarts_total", "counter", "Worker processes that crashed or were stuck."),
        _sample("process_restarts_total", restarts),
    ]
    return "\n".join(lines) + "\n"


def _by_task(board: StatusBoard) -> list[str]:
    tallies = [
        (name.replace("\\", "\\\\").replace('"', '\\"'), tally)
        for name, tally in sorted(board.tallies().items())
    ]
    finished = [
        _sample("finished_by_task_total", count, f'task="{name}",status="{status}"')
        for name, tally in tallies
        for status, count in (("SUCCESSFUL", tally.succeeded), ("FAILED", tally.failed))
    ]
    return [
        *_family("started_by_task_total", "counter", "Tasks started, by their path."),
        *(_sample("started_by_task_total", tally.started, f'task="{name}"') for name, tally in tallies),
        *_family("finished_by_task_total", "counter", "Tasks finished, by their path and status."),
        *finished,
    ]


def _family(name: str, kind: str, text: str) -> list[str]:
    return [f"# HELP {PREFIX}_{name} {text}", f"# TYPE {PREFIX}_{name} {kind}"]


def _sample(name: str, value: float, labels: str = "") -> str:
    return f"{PREFIX}_{name}{{{labels}}} {value}" if labels else f"{PREFIX}_{name} {value}"


def _histogram(name: str, text: str, parts: Iterable[Histogram]) -> list[str]:
    histograms = list(parts)
    counts = [sum(column) for column in zip(*(each.counts for each in histograms), strict=True)]
    bounds = [*(f"{bucket:g}" for bucket in BUCKETS), "+Inf"]
    return [
        *_family(name, "histogram", text),
        *(
            _sample(f"{name}_bucket", count, f'le="{bound}"')
            for bound, count in zip(bounds, accumulate(counts), strict=True)
        ),
        _sample(f"{name}_sum", sum(each.total for each in histograms)),
        _sample(f"{name}_count", sum(counts)),
    ]
