"""The status of every slot, in memory that the supervisor and its processes share.

Each word of this memory has one writer at a time, the slot or the supervisor, so no locks are needed. The
counters belong to the slot and survive its process.
"""

import enum
import mmap
import time
import uuid
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)

_STATE, _BEAT, _TASK, _STARTED, _SUCCEEDED, _FAILED, _CLAIMING, _RECYCLING, _DOUBT = 0, 1, 2, 4, 5, 6, 7, 8, 9
_STOPPING, _THREAD = 10, 11
_CLAIMED, _EMPTY, _CLAIM_FAILED, _RECONNECTS = 12, 13, 14, 15
_DURATION = 16
_WAIT = _DURATION + len(BUCKETS) + 2
_TALLIES = _WAIT + len(BUCKETS) + 2

# How many tasks a slot, and a page of metrics, has by name. A project has some dozens; whoever can write rows
# can invent any number of them.
MOST_TASKS = 100
# Names are cut after so many bytes: a task's path seldom has half as many.
LONGEST_NAME = 200
# All tasks beyond MOST_TASKS together, and rows without a path.
OTHER_TASKS = "(others)"
_NAME = LONGEST_NAME // 8
_TALLY = _NAME + 3  # the name, then how often such a task was started, was successful, and failed
_OTHERS = _TALLIES + MOST_TASKS * _TALLY
_WORDS = _OTHERS + _TALLY


class State(enum.IntEnum):
    """What a slot is doing."""

    NEW = 0
    CLAIMING = 1
    IDLE = 2
    RUNNING = 3
    FINISHING = 4
    DISCONNECTED = 5
    ENDED = 6


_NOT_CLAIMING = {State.NEW, State.DISCONNECTED, State.ENDED}


@dataclass(frozen=True)
class Histogram:
    """Counts for each of ``BUCKETS`` and for larger values (not cumulative), and the sum in seconds."""

    counts: tuple[int, ...]
    total: float


def _shown(task: str) -> str:
    """Return what a task is called in metrics. Anybody who can write rows may have invented its path."""
    printable = "".join(each if each.isprintable() else "?" for each in task)
    return printable.encode(errors="replace")[:LONGEST_NAME].decode(errors="ignore")


@dataclass(frozen=True)
class Tally:
    """How often tasks of one name were started, were successful, and failed."""

    started: int = 0
    succeeded: int = 0
    failed: int = 0

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            self.started + other.started, self.succeeded + other.succeeded, self.failed + other.failed
        )


class SlotStatus:
    """One slot's part of the memory."""

    def __init__(self, words: "memoryview[int]", numbers: "memoryview[float]") -> None:
        self._words = words
        self._numbers = numbers
        # Where each name's tally is; empty until this process counts its first task.
        self._places: dict[str, int] = {}

    def enter(self, state: State) -> None:
        """Set what the slot is doing from now on, on the machine's clock, which all processes share."""
        self._words[_BEAT] = time.monotonic_ns()
        self._words[_STATE] = state
        if state in _NOT_CLAIMING:
            self._words[_CLAIMING] = 0

    @property
    def state(self) -> State:
        """What the slot is doing."""
        return State(self._words[_STATE])

    @property
    def seconds_in_state(self) -> float:
        """How long it has been in this state."""
        return max(0.0, (time.monotonic_ns() - self._words[_BEAT]) / 1e9)

    @property
    def claims(self) -> bool:
        """Whether the slot has queried the table successfully, and has not lost its connection since."""
        return bool(self._words[_CLAIMING])

    def note_claim(self, *, found: bool) -> None:
        """Record that a query of the table was successful, and count whether it found a task."""
        self._words[_CLAIMING] = 1
        self._words[_CLAIMED if found else _EMPTY] += 1

    def count_failed_claim(self) -> None:
        """Count a claim that the database did not answer, or answered with an error."""
        self._words[_CLAIM_FAILED] += 1

    def count_reconnect(self) -> None:
        """Count a connection that replaces one that was lost or closed."""
        self._words[_RECONNECTS] += 1

    @property
    def recycling(self) -> bool:
        """Whether this process has the ``RecycleToken``; stored with its first slot."""
        return bool(self._words[_RECYCLING])

    @recycling.setter
    def recycling(self, recycling: bool) -> None:
        self._words[_RECYCLING] = recycling

    @property
    def stopping(self) -> bool:
        """Whether the supervisor has asked this process to stop; stored with its first slot.

        It has the same meaning as SIGTERM, which a task may catch or ignore.
        """
        return bool(self._words[_STOPPING])

    @stopping.setter
    def stopping(self, stopping: bool) -> None:
        self._words[_STOPPING] = stopping

    @property
    def thread(self) -> int:
        """The identifier of the thread that runs this slot: threading.get_ident()."""
        return self._words[_THREAD]

    @thread.setter
    def thread(self, thread: int) -> None:
        self._words[_THREAD] = thread

    @property
    def doubt(self) -> bool:
        """Whether a claim is in progress, so that the slot may have claimed another row than ``task``."""
        return bool(self._words[_DOUBT])

    @doubt.setter
    def doubt(self, doubt: bool) -> None:
        self._words[_DOUBT] = doubt

    @property
    def unsettled(self) -> bool:
        """Whether a row may be RUNNING with this slot's worker id."""
        return self.doubt or self.task is not None

    @property
    def task(self) -> uuid.UUID | None:
        """The task that this slot has claimed and not finished."""
        value = (self._words[_TASK] << 64) | self._words[_TASK + 1]
        return uuid.UUID(int=value) if value else None

    @task.setter
    def task(self, task: uuid.UUID | None) -> None:
        value = task.int if task is not None else 0
        self._words[_TASK] = value >> 64
        self._words[_TASK + 1] = value & (2**64 - 1)

    def count_started(self, task: str, waited: float) -> None:
        """Count a task, by its path, that starts after it has been ready for ``waited`` seconds."""
        self._words[_STARTED] += 1
        self._words[self._place(task) + _NAME] += 1
        self._observe(_WAIT, waited)

    def count_finished(self, task: str, duration: float, *, successful: bool) -> None:
        """Count a task, by its path, that took ``duration`` seconds."""
        self._words[_SUCCEEDED if successful else _FAILED] += 1
        self._words[self._place(task) + _NAME + (1 if successful else 2)] += 1
        self._observe(_DURATION, duration)

    @property
    def tallies(self) -> dict[str, Tally]:
        """What was counted of each task; those beyond ``MOST_TASKS`` under ``OTHER_TASKS`` together."""
        found: dict[str, Tally] = {}
        for at in self._named():
            # The name is written before the first count.
            if tally := self._tally(at):
                found[self._name(at)] = tally
        if others := self._tally(_OTHERS):
            found[OTHER_TASKS] = found.get(OTHER_TASKS, Tally()) + others
        return found

    def _place(self, task: str) -> int:
        """Return where a task's tally is, which is made if there is none and room for one."""
        name = _shown(task)
        if not self._places:
            # Names that the process before this one has written.
            self._places = {self._name(at): at for at in self._named()}
        place = self._places.get(name)
        if place is None:
            if not name or len(self._places) >= MOST_TASKS:
                return _OTHERS
            place = self._places[name] = _TALLIES + len(self._places) * _TALLY
            padded = name.encode().ljust(LONGEST_NAME, b"\0")
            self._words[place : place + _NAME] = memoryview(padded).cast("Q")
        return place

    def _named(self) -> Iterator[int]:
        return takewhile(self._words.__getitem__, range(_TALLIES, _OTHERS, _TALLY))

    def _tally(self, at: int) -> Tally | None:
        counts = self._words[at + _NAME : at + _TALLY].tolist()
        return Tally(*counts) if any(counts) else None

    def _name(self, at: int) -> str:
        return self._words[at : at + _NAME].tobytes().rstrip(b"\0").decode(errors="replace")

    def _observe(self, at: int, seconds: float) -> None:
        self._words[at + bisect_left(BUCKETS, seconds)] += 1
        self._numbers[at + len(BUCKETS) + 1] += seconds

    @property
    def started(self) -> int:
        """The number of tasks that were started."""
        return self._words[_STARTED]

    @property
    def succeeded(self) -> int:
        """The number of tasks that were successful."""
        return self._words[_SUCCEEDED]

    @property
    def failed(self) -> int:
        """The number of tasks that failed."""
        return self._words[_FAILED]

    @property
    def claimed(self) -> int:
        """The number of claims that found a task."""
        return self._words[_CLAIMED]

    @property
    def empty(self) -> int:
        """The number of claims that found none."""
        return self._words[_EMPTY]

    @property
    def failed_claims(self) -> int:
        """The number of claims that failed."""
        return self._words[_CLAIM_FAILED]

    @property
    def reconnects(self) -> int:
        """The number of connections after the first one."""
        return self._words[_RECONNECTS]

    @property
    def durations(self) -> Histogram:
        """How long tasks took."""
        return self._histogram(_DURATION)

    @property
    def waits(self) -> Histogram:
        """How long tasks had been ready when they started."""
        return self._histogram(_WAIT)

    def _histogram(self, at: int) -> Histogram:
        end = at + len(BUCKETS) + 1
        return Histogram(tuple(self._words[at:end]), self._numbers[end])


class StatusBoard:
    """The status of all slots: ``board.slot(process, thread)``, both from zero."""

    def __init__(self, processes: int, threads: int) -> None:
        self.processes = processes
        self.threads = threads
        # Anonymous and shared: it needs no file, so neither a writable directory nor /dev/shm.
        memory = memoryview(mmap.mmap(-1, processes * threads * _WORDS * 8))
        words, numbers = memory.cast("Q"), memory.cast("d")
        self._slots = [
            SlotStatus(words[at : at + _WORDS], numbers[at : at + _WORDS])
            for at in range(0, processes * threads * _WORDS, _WORDS)
        ]
        self._shown: dict[str, None] = {}

    def slot(self, process: int, thread: int) -> SlotStatus:
        """Return the status of one slot."""
        return self._slots[process * self.threads + thread]

    def of_process(self, process: int) -> list[SlotStatus]:
        """Return the status of each slot of a process."""
        return self._slots[process * self.threads : (process + 1) * self.threads]

    def tallies(self) -> dict[str, Tally]:
        """Return what was counted of each task, over all slots.

        A name that was returned once stays one of the ``MOST_TASKS``, because a counter must not decrease.
        """
        total: dict[str, Tally] = {}
        for slot in self._slots:
            for name, tally in slot.tallies.items():
                if name != OTHER_TASKS and len(self._shown) < MOST_TASKS:
                    self._shown[name] = None
                shown = name if name in self._shown else OTHER_TASKS
                total[shown] = total.get(shown, Tally()) + tally
        return total

    @property
    def all(self) -> list[SlotStatus]:
        """Return the status of every slot."""
        return list(self._slots)
