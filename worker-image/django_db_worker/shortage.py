"""Records which tasks use the memory when a container is about to run out of it.

Since Kubernetes 1.28, the kernel kills all processes of a container at once (memory.oom.group), so that none
is left to say which task used the memory. The supervisor therefore says it in advance: it writes a line to
the file that the kubelet copies to the pod's status when the container has ended. When there is memory again,
it empties the file, because only then does the kubelet copy the end of the log after another failure
(terminationMessagePolicy: FallbackToLogsOnError). The operator reads the line; its format is also in
operator/django_task_operator/observed/deaths.py.
"""

import os
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from . import memory
from .child import Child
from .memory import TICK_SECONDS, in_mib

# Where Kubernetes provides the file, unless a container has a terminationMessagePath of its own.
TERMINATION_LOG = Path("/dev/termination-log")
# The share of the container's limit from which memory is short. The line has to be written early, because a
# task may use the rest within a tick.
SHORT = 0.9
# How many ticks ahead the use is estimated, at the pace of the last tick.
AHEAD = 2
# The share of the limit below which the processes are not measured.
CALM = 0.5
# Growth is measured over ten seconds; less than this share of the limit does not count.
GROWTH_TICKS = round(10 / TICK_SECONDS)
NOTABLE = 0.05
# How much the container's use may change, as a share of the limit, before the line is written again.
STEP = 0.02
# The kubelet's own limit for the file. A longer line is not written, because it would name too few tasks.
MOST_BYTES = 4096


def is_short(used: int, before: int, most: int) -> bool:
    """Whether a container will soon use its limit of ``most`` bytes; it used ``before`` a tick ago."""
    return used + AHEAD * max(0, used - before) > SHORT * most


def suspects(sizes: Mapping[int, int], growths: Mapping[int, int], most: int) -> list[int]:
    """Return the processes that may be the cause: the largest ones, and those that have grown most.

    It is better to name too many than too few, because the tasks of all others count as innocent. Sizes and
    growths are in bytes, by process, without what every process has from its start.
    """
    largest, fastest = max(sizes.values(), default=0), max(growths.values(), default=0)
    return [
        process
        for process, size in sizes.items()
        if 2 * size >= largest
        or (2 * growths.get(process, 0) >= fastest and growths.get(process, 0) > NOTABLE * most)
    ]


def describe(used: int, most: int, processes: Sequence[tuple[int, int, Sequence[str]]]) -> str:
    """Return the line for processes, each with its number, its bytes and its tasks; empty if it is too long.

    It is also empty if none of them runs a task: then no task is to blame, and none is innocent.
    """
    parts = [
        f"process {number} takes {in_mib(size)} for task{'s' if len(tasks) > 1 else ''} {', '.join(tasks)}"
        for number, size, tasks in processes
        if tasks
    ]
    line = f"Short of memory ({used // memory.MIB} of {in_mib(most)}): {'; '.join(parts)}.\n"
    return line if parts and len(line) <= MOST_BYTES else ""


class ShortageWatch:
    """Watches the memory of the supervisor's container."""

    def __init__(self) -> None:
        """Nothing is read or written before ``watch``."""
        self._measured = 0.0
        self._before: int | None = None
        self._sizes: deque[dict[int, int]] = deque(maxlen=GROWTH_TICKS)
        self._written = ""
        self._written_key: tuple[object, ...] = ()

    @staticmethod
    def is_useful(processes: int) -> bool:
        """Whether the line would be read, and there are processes that can be innocent."""
        return processes > 1 and os.access(TERMINATION_LOG, os.W_OK) and memory.of_container() is not None

    def watch(self, children: Sequence[Child], now: float) -> None:
        """Measure, if it is time to, and write or withdraw the line; ``now`` is ``time.monotonic()``."""
        if now - self._measured < TICK_SECONDS / 2:
            return
        self._measured = now
        container = memory.of_container()
        if container is None or container.used < CALM * container.most:
            self._before = None if container is None else container.used
            self._sizes.clear()
            self.withdraw()
            return
        # A forked process starts with the supervisor's memory.
        shared = memory.used_by(os.getpid()) or 0
        living = {child.pid: child for child in children if child.pid is not None}
        sizes = {pid: max(0, (memory.used_by(pid) or 0) - shared) for pid in living}
        oldest = self._sizes[0] if self._sizes else sizes
        growths = {pid: size - oldest.get(pid, 0) for pid, size in sizes.items()}
        self._sizes.append(sizes)
        before, self._before = self._before, container.used
        if not is_short(container.used, container.used if before is None else before, container.most):
            self.withdraw()
            return
        named = [
            (
                living[pid].number + 1,
                sizes[pid],
                [str(slot.task) for slot in living[pid].slots if slot.task is not None],
            )
            for pid in suspects(sizes, growths, container.most)
        ]
        key = (
            container.used // int(STEP * container.most),
            *((number, *tasks) for number, _, tasks in named),
        )
        if key != self._written_key:
            self._write(describe(container.used, container.most, named))
            self._written_key = key

    def withdraw(self) -> None:
        """Empty the file, unless it is empty or somebody else's."""
        if self._written:
            self._write("")
        self._written_key = ()

    def _write(self, line: str) -> None:
        if line == self._written:
            return
        with suppress(OSError):
            file = os.open(TERMINATION_LOG, os.O_WRONLY | os.O_CLOEXEC)
            try:
                # If the supervisor is killed in between, too much is left, and the operator ignores it all.
                os.pwrite(file, line.encode(), 0)
                os.ftruncate(file, len(line))
            finally:
                os.close(file)
            self._written = line
