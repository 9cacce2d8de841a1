"""How fast tasks come and go: an estimate that each sample of the task table improves.

Three things are enough to predict what a number of replicas would do, and none of them needs a count of what
has finished:

- the *duration* of a task, measured on tasks that were seen RUNNING and have ended since;
- the *load*, the number of slots that the arrivals keep busy: by Little's law the arrival rate times the
  duration. Tasks that are running are load that is served; tasks that pile up, times their duration, are load
  that is not. A queue without a backlog shows its load even if the duration is not known;
- how many slots of a pod are *busy* while tasks wait, which is fewer than it has if claims or a busy
  interpreter take a large part of the time, or more than the spec says (settings of django-prodserver).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

# Arrivals are averaged over this time, or over a task's duration if that is longer. A shorter time would take
# a burst, which the backlog shows anyway, for arrivals that go on; while nothing waits, less is enough.
# Chosen with benchmarks/simulate.py.
LOAD_SECONDS = 60.0
UNHINDERED_LOAD_SECONDS = 20.0
# After this time, a measured duration counts half as much as one that is measured now.
DURATION_HALF_LIFE_SECONDS = 120.0
# Durations that were measured longer ago than this say nothing about the tasks of now.
MEMORY_SECONDS = 3600.0
# How fast the number of busy slots follows what is seen: long enough for about ten samples.
BUSY_SECONDS = 10.0
# A pod whose slots look idle while tasks wait may just not have begun: it counts as this part at least.
LEAST_BUSY = 0.25


@dataclass(frozen=True, slots=True)
class Reading:
    """What one sample of the task table says about the pace.

    Args:
        at: when it was taken, in seconds; only differences matter.
        ready: due tasks that wait.
        running: tasks that run.
        pods: the worker's ready pods.
        tasks: how many tasks have been measured, since the start. It may be a fraction or fall back to 0.
        seconds: how long those took together.
        running_for: how long the running tasks have been running, on average; 0 if that is not known.
        complete: whether ``ready`` are all: it is counted up to a limit.
    """

    at: float
    ready: int
    running: int
    pods: int = 0
    tasks: float = 0.0
    seconds: float = 0.0
    running_for: float = 0.0
    complete: bool = True


@dataclass(frozen=True, slots=True)
class Pace:
    """The estimate.

    Args:
        last: the latest reading; None before the first.
        load: how many slots the arrivals keep busy.
        tasks: how many measured tasks the duration rests on, older ones counting less.
        seconds: how long those took together.
        measured_at: the time of the reading that measured the latest of them.
        busy: how many slots of a pod are busy while tasks wait; None while that is not known.
    """

    last: Reading | None = None
    load: float = 0.0
    tasks: float = 0.0
    seconds: float = 0.0
    measured_at: float = -math.inf
    busy: float | None = None

    @property
    def duration(self) -> float | None:
        """How long a task takes, in seconds; None while that is not known."""
        if self.last is None or self.tasks <= 0 or self.last.at - self.measured_at > MEMORY_SECONDS:
            return None
        return self.seconds / self.tasks

    @property
    def running_for(self) -> float:
        """How long the running tasks have been running, on average: they take longer than that."""
        return self.last.running_for if self.last else 0.0

    def busy_slots(self, slots: int) -> float:
        """How many tasks a pod with ``slots`` slots runs at a time while tasks wait."""
        return slots if self.busy is None else max(self.busy, LEAST_BUSY * slots)


UNKNOWN = Pace()


def follow(pace: Pace, reading: Reading, slots: int) -> Pace:
    """Return the estimate after one more reading of a worker whose pods have ``slots`` slots."""
    last = pace.last
    if last is None or reading.at < last.at:
        # After a change of the database's clock, the next interval is a good one again.
        return replace(_measured(pace, reading, 0.0), last=reading)
    passed = reading.at - last.at
    if passed == 0:
        return pace
    pace = replace(_measured(pace, reading, passed), last=reading)
    return replace(pace, load=_load(pace, last, reading, passed), busy=_busy(pace, last, reading, slots))


def _measured(pace: Pace, reading: Reading, passed: float) -> Pace:
    """Add the durations that were measured since the last reading."""
    before = pace.last
    if before is None or reading.tasks < before.tasks:
        tasks, seconds = reading.tasks, reading.seconds
    else:
        tasks, seconds = reading.tasks - before.tasks, reading.seconds - before.seconds
    if tasks <= 0:
        return pace
    if reading.at - pace.measured_at > MEMORY_SECONDS:
        return replace(pace, tasks=tasks, seconds=seconds, measured_at=reading.at)
    kept = 0.5 ** (passed / DURATION_HALF_LIFE_SECONDS)
    return replace(
        pace, tasks=kept * pace.tasks + tasks, seconds=kept * pace.seconds + seconds, measured_at=reading.at
    )


def _load(pace: Pace, last: Reading, reading: Reading, passed: float) -> float:
    """Return the load: the average of what runs, and of what the growing backlog would keep running."""
    duration = pace.duration or 0.0
    served = (last.running + reading.running) / 2
    growth = 0.0
    if last.complete and reading.complete:
        growth = (reading.ready + reading.running - last.ready - last.running) / passed
    offered = served + growth * duration
    # With a shorter time than its duration, one task that arrives would look like several.
    usual = LOAD_SECONDS if last.ready or reading.ready else UNHINDERED_LOAD_SECONDS
    weight = -math.expm1(-passed / max(usual, duration))
    # Below 0 only after a sudden end of a backlog, such as tasks that are deleted.
    return max(0.0, pace.load + weight * (offered - pace.load))


def _busy(pace: Pace, last: Reading, reading: Reading, slots: int) -> float | None:
    """Return the busy slots of a pod, seen while every slot has a task that waits for it."""
    pods = reading.pods
    if not pods or pods != last.pods or min(reading.ready, last.ready) < slots * pods:
        return pace.busy
    seen = min(float(slots), reading.running / pods)
    # At first as if it had been as expected until now: one sample may come at an unusual moment.
    before = slots if pace.busy is None else pace.busy
    return _towards(before, seen, reading.at - last.at)


def _towards(old: float, new: float, passed: float) -> float:
    return old - math.expm1(-passed / BUSY_SECONDS) * (new - old)
