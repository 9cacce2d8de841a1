"""What a latency target is worth, in a simulation: ``make bench-simulate``.

The traces are served by simulated pods, whose number the operator's own functions decide: ``decide_operator``
from the samples, ``follow`` for the pace. An event is the arrival of a task, its end, a pod that has started,
or a sample. Nothing is measured on this machine, so the table is the same wherever it is made.

Each trace is served four times, with the same tasks:

- by *prediction*: ``targetLatencySeconds``;
- by *depth*: ``tasksPerReplica`` at its default, without a target;
- by *steps*: what a target did before it predicted, half as many pods more every 15 seconds while the oldest
  task is too old;
- by *depth, tuned*: the ``tasksPerReplica`` with the fewest pod-seconds among those whose 95th percentile is
  not above the prediction's. Nobody can know it before: all are tried on the very trace.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import math
import random
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from django_task_operator.scaling import (
    Demand,
    History,
    Pace,
    Policy,
    Reading,
    Situation,
    decide_operator,
    follow,
)
from django_task_operator.tasktable import Durations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

RESULTS = Path(__file__).parent / "results" / "simulate.md"
SEED = 7
TARGET_SECONDS = 30.0
POLL_SECONDS = 1.0
# From the decision to the first claim: an image that the node has, and Django's start.
START_SECONDS = 6.0
# What a slot needs between two tasks, to store a result and to claim the next row.
CLAIM_SECONDS = 0.001
SCALE_DOWN_DELAY_SECONDS = 60.0
MOST_REPLICAS = 50
SLOTS = 2
TUNED = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 30, 50, 70, 90, 120, 200, 300)
STEP_SECONDS = 15.0
LENGTHS = (0.5, 5.0, 60.0)

# A task: when it arrives, and how long it takes. Seconds.
Task = tuple[float, float]


@dataclass
class Pod:
    """A pod: since when it has existed, from when it claims, and how many tasks it runs."""

    since: float
    ready_at: float
    busy: int = 0


@dataclass
class Outcome:
    """What serving a trace came to."""

    pod_seconds: float = 0.0
    most_pods: int = 0
    changes: int = 0
    waits: list[float] = field(default_factory=list)

    def wait(self, part: float) -> float:
        """Return a quantile of the waiting times."""
        return sorted(self.waits)[min(len(self.waits) - 1, int(part * len(self.waits)))]


class Simulation:
    """Pods that serve a trace, and what decides their number."""

    def __init__(self, policy: Policy, decide: Callable[[Situation], tuple[int, History]]) -> None:
        """Start with no pods."""
        self._policy = policy
        self._decide = decide
        self._outcome = Outcome()
        self._pods: list[Pod] = []
        self._ready: deque[Task] = deque()
        self._running: dict[int, tuple[float, float]] = {}
        self._watched: set[int] = set()
        self._durations = Durations()
        self._pace = Pace()
        self._history = History(((0.0, 0),))
        self._wanted = 0
        self._numbers = itertools.count()
        self._events: list[tuple[float, int, str, object]] = []

    def serve(self, tasks: Sequence[Task], until: float) -> Outcome:
        """Serve ``tasks``, and go on until ``until``."""
        coming = iter(tasks)
        self._arrive(coming)
        self._at(0.0, "sample", None)
        while self._events:
            now, _, what, about = heapq.heappop(self._events)
            if what == "sample":
                self._sample(now)
                if now < until or self._ready or self._running:
                    self._at(now + POLL_SECONDS, "sample", None)
            elif what == "arrival":
                assert isinstance(about, tuple)
                self._ready.append(about)
                self._arrive(coming)
            elif what == "end":
                assert isinstance(about, tuple)
                number, pod = about
                self._running[number] = (self._running[number][0], now)
                if number not in self._watched:
                    del self._running[number]
                self._at(now + CLAIM_SECONDS, "free", pod)
            elif what == "free":
                assert isinstance(about, Pod)
                about.busy -= 1
            self._claim(now)
        for pod in self._pods:
            self._outcome.pod_seconds += now - pod.since
        return self._outcome

    def _at(self, when: float, what: str, about: object) -> None:
        heapq.heappush(self._events, (when, next(self._numbers), what, about))

    def _arrive(self, coming: Iterator[Task]) -> None:
        task = next(coming, None)
        if task is not None:
            self._at(task[0], "arrival", task)

    def _claim(self, now: float) -> None:
        if not self._ready:
            return
        for pod in self._pods:
            while self._ready and pod.busy < SLOTS and pod.ready_at <= now:
                arrived, seconds = self._ready.popleft()
                self._outcome.waits.append(now - arrived)
                number = next(self._numbers)
                pod.busy += 1
                self._running[number] = (now, math.inf)
                self._at(now + seconds, "end", (number, pod))

    def _sample(self, now: float) -> None:
        for number in list(self._watched):
            started, ended = self._running[number]
            if ended < math.inf:
                self._durations = self._durations.plus(ended - started, POLL_SECONDS)
                self._watched.remove(number)
                del self._running[number]
        self._watched |= set(self._running)
        ages = [now - started for started, _ in self._running.values()]
        oldest = now - self._ready[0][0] if self._ready else 0.0
        demand = Demand(min(len(self._ready), self._policy.limit), len(self._running), oldest)
        reading = Reading(
            now,
            demand.ready,
            demand.running,
            pods=sum(pod.ready_at <= now for pod in self._pods),
            tasks=self._durations.tasks,
            seconds=self._durations.seconds,
            running_for=sum(ages) / len(ages) if ages else 0.0,
            complete=demand.ready < self._policy.limit,
        )
        self._pace = follow(self._pace, reading, self._policy.slots)
        situation = Situation(self._policy, demand, self._history, self._wanted, None, now, self._pace)
        wanted, self._history = self._decide(situation)
        self._outcome.changes += wanted != self._wanted
        self._wanted = wanted
        self._scale(now)

    def _scale(self, now: float) -> None:
        while len(self._pods) < self._wanted:
            pod = Pod(now, now + START_SECONDS)
            self._pods.append(pod)
            self._at(pod.ready_at, "started", None)
        # The operator removes idle pods, the youngest first, and waits for the others.
        for pod in [pod for pod in reversed(self._pods) if not pod.busy][: len(self._pods) - self._wanted]:
            self._outcome.pod_seconds += now - pod.since
            self._pods.remove(pod)
        self._outcome.most_pods = max(self._outcome.most_pods, len(self._pods))


def as_decided(situation: Situation) -> tuple[int, History]:
    """Decide as the operator does."""
    decision = decide_operator(situation)
    return decision.replicas, decision.history


class Steps:
    """The rule that prediction replaced: half as many replicas more every 15 s while the target is missed."""

    def __init__(self) -> None:
        """No step has been taken yet."""
        self._stepped_at = -math.inf

    def __call__(self, situation: Situation) -> tuple[int, History]:
        """Decide."""
        policy, demand, now = situation.policy, situation.demand, situation.now
        assert demand is not None
        wanted = math.ceil(demand.tasks / policy.tasks_per_replica)
        if demand.ready and demand.oldest_ready_seconds >= policy.target_latency_seconds:
            grown = situation.current
            if now - self._stepped_at >= STEP_SECONDS:
                grown += max(1, grown // 2)
                self._stepped_at = now
            wanted = max(wanted, min(grown, demand.tasks))
        wanted = policy.clamp(wanted)
        history = situation.wanting(wanted)
        return max(wanted, min(situation.current, history.highest[1])), history


def arrivals(
    rate: Callable[[float], float], most: float, until: float, chance: random.Random
) -> Iterator[float]:
    """Return the times of a Poisson process whose rate, at most ``most``, changes with the time."""
    now = 0.0
    while (now := now + chance.expovariate(most)) < until:
        if chance.random() * most < rate(now):
            yield now


HOUR = 3600.0


@dataclass(frozen=True)
class Trace:
    """A load: how many slots are busy at a time, if every task runs at once, and what comes in one moment."""

    name: str
    words: str
    load: Callable[[float], float]
    most: float
    bursts: tuple[tuple[float, float], ...] = ()

    def tasks(self, seconds: float) -> list[Task]:
        """Return its tasks, which take ``seconds`` on average, most of them less and some much more."""
        chance = random.Random(SEED)
        times = list(arrivals(lambda now: self.load(now) / seconds, self.most / seconds, HOUR, chance))
        for at, work in self.bursts:
            times += [at + chance.random() for _ in range(max(1, round(work / seconds)))]
        # A log-normal distribution with a mean of ``seconds``, and a standard deviation of 0.95 times that.
        return [(at, chance.lognormvariate(math.log(seconds) - 0.32, 0.8)) for at in sorted(times)]


TRACES = (
    Trace("steady", "7 slots busy for an hour", lambda _: 7.0, 7.0),
    Trace(
        "spike",
        "half a slot busy for an hour, and four times 1,200 seconds of work within one second",
        lambda _: 0.5,
        0.5,
        ((300.0, 1200.0), (1200.0, 1200.0), (2100.0, 1200.0), (3000.0, 1200.0)),
    ),
    Trace(
        "daily",
        "a day in an hour: from no load at night to 20 busy slots at noon",
        lambda now: 20.0 * max(0.0, math.sin(math.pi * (now / HOUR * 1.5 - 0.25))) ** 2,
        20.0,
    ),
    # The constants of the prediction were chosen with the traces above, and not with these.
    Trace("full", "8 slots busy for an hour, which is 4 pods exactly (held out)", lambda _: 8.0, 8.0),
    Trace(
        "twice",
        "3 slots busy for half an hour, then 12 (held out)",
        lambda now: 3.0 + 9.0 * (now > HOUR / 2),
        12.0,
    ),
)


def policy(target: float, per_replica: int = 10 * SLOTS) -> Policy:
    """Return the settings of a simulated worker."""
    return Policy(0, MOST_REPLICAS, per_replica, target, SCALE_DOWN_DELAY_SECONDS, SLOTS)


def tuned(tasks: Sequence[Task], wait: float) -> tuple[int, Outcome]:
    """Return the ``tasksPerReplica`` with the fewest pod-seconds whose 95th percentile is ``wait`` at most.

    If there is none, the one that comes closest.
    """
    found = []
    for per_replica in TUNED:
        outcome = Simulation(policy(0, per_replica), as_decided).serve(tasks, HOUR)
        found.append((max(0.0, outcome.wait(0.95) - wait), outcome.pod_seconds, per_replica, outcome))
        if outcome.wait(0.95) > 2 * wait + 10:
            break
    _, _, per_replica, outcome = min(found, key=lambda each: each[:2])
    return per_replica, outcome


def serve(trace: Trace, seconds: float) -> dict[str, Outcome]:
    """Serve a trace in each way."""
    tasks = trace.tasks(seconds)
    predicted = Simulation(policy(TARGET_SECONDS), as_decided).serve(tasks, HOUR)
    per_replica, best = tuned(tasks, predicted.wait(0.95))
    return {
        "prediction": predicted,
        "depth": Simulation(policy(0), as_decided).serve(tasks, HOUR),
        "steps": Simulation(policy(TARGET_SECONDS), Steps()).serve(tasks, HOUR),
        f"depth, tuned ({per_replica})": best,
    }


HEAD = [
    "# A latency target, simulated",
    "",
    "`make bench-simulate`: the same tasks served by pods whose number is decided in four ways, with a",
    f"target of {TARGET_SECONDS:g} s. A pod has {SLOTS} slots and needs {START_SECONDS:g} s to start.",
    f"At most {MOST_REPLICAS} pods are allowed. Tasks are counted every {POLL_SECONDS:g} s, and pods are",
    f"removed after {SCALE_DOWN_DELAY_SECONDS:g} s. Tasks arrive at random. Their durations are log-normal:",
    "most are shorter than the mean, and some much longer.",
    "",
    "- *prediction*: `targetLatencySeconds`, the operator's own code;",
    f"- *depth*: the default of `tasksPerReplica`, {10 * SLOTS}, without a target;",
    "- *steps*: what a target did before, half as many pods more every 15 s while a task is too old;",
    f"- *depth, tuned*: of {len(TUNED)} values of `tasksPerReplica`, the one with the fewest pod-seconds and",
    "  a p95 no higher than the prediction's (or the closest to it). It is found by trying all on the very",
    "  trace, and is another one for each line: no one can set it beforehand;",
    *(f"- the trace *{trace.name}*: {trace.words};" for trace in TRACES),
    "- *held out*: the constants of the prediction were chosen with the other traces, and not with these.",
    "",
    "| trace | a task takes | decided by | pod-seconds | its share | wait | p95 | longest | pods | changes |",
    "|---|---|---|---:|---:|---:|---:|---:|---:|---:|",
]
FOOT = [
    "",
    "*Its share*: the prediction's pod-seconds divided by those of the line. Below 1, it needs fewer.",
]


def main() -> None:
    """Simulate, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--dry", action="store_true", help="only print the rows")
    parser.add_argument("--lengths", type=float, nargs="*", default=LENGTHS, help="mean seconds of a task")
    given = parser.parse_args()
    rows = []
    for trace in TRACES:
        for seconds in given.lengths:
            outcomes = serve(trace, seconds)
            predicted = outcomes["prediction"].pod_seconds
            for name, outcome in outcomes.items():
                rows.append(row(trace.name, seconds, name, outcome, predicted / outcome.pod_seconds))
                print(rows[-1], flush=True)
    if not given.dry:
        RESULTS.write_text("\n".join([*HEAD, *rows, *FOOT]) + "\n")
        print(f"written: {RESULTS}")


def row(trace: str, seconds: float, name: str, outcome: Outcome, share: float) -> str:
    """Return a row of the table."""
    waits = " | ".join(f"{outcome.wait(part):.1f} s" for part in (0.5, 0.95, 1.0))
    pods = f"{outcome.pod_seconds:,.0f} | {share:.2f}"
    return (
        f"| {trace} | {seconds:g} s | {name} | {pods} | {waits} | {outcome.most_pods} | {outcome.changes} |"
    )


if __name__ == "__main__":
    main()
