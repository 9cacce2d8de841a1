"""Replaces processes that use more memory than --max-memory-per-process.

Above the limit a process leaves between tasks. Far above it, or when the container's memory is nearly used
up, it is killed, before the kernel has to choose a process.
"""

import logging
from collections.abc import Sequence

from . import memory
from .child import Child
from .errors import grew_too_large
from .memory import TICK_SECONDS, Verdict, in_mib
from .outcome import LostTask
from .status_board import State

logger = logging.getLogger("django_tasks_db")

# How long a process that is to be killed may still store the results of tasks that have finished.
LAST_RESULTS_SECONDS = 2.0


class MemoryWatch:
    """Watches how much memory the children use."""

    def __init__(self, limit: int) -> None:
        """``limit`` is --max-memory-per-process, in bytes."""
        self._limit = limit
        self._measured = 0.0

    def watch(self, children: Sequence[Child], now: float) -> None:
        """Measure every process, if it is time to; ``now`` is ``time.monotonic()``."""
        if now - self._measured < TICK_SECONDS / 2:
            return
        self._measured = now
        living = [child for child in children if child.pid is not None and not child.killed]
        sizes = [memory.used_by(child.pid or 0) or 0 for child in living]
        scarce = max(sizes, default=0) > self._limit and memory.is_scarce()
        verdicts = memory.judge_all(sizes, self._limit, scarce=scarce)
        for child, used, verdict in zip(living, sizes, verdicts, strict=True):
            if verdict is Verdict.KILL:
                self._kill(child, used, now)
            elif verdict is Verdict.LEAVE and child.leaving_since is None:
                logger.warning(
                    "Worker process %d uses %s of memory, more than --max-memory-per-process (%s). "
                    "It is replaced when its tasks have finished.",
                    child.number + 1,
                    in_mib(used),
                    in_mib(self._limit),
                )
                child.ask_to_leave(now)

    def _kill(self, child: Child, used: int, now: float) -> None:
        if child.too_large_since is None:
            child.too_large_since = now
        child.ask_to_leave(now)
        storing = any(slot.state is State.FINISHING for slot in child.slots)
        if storing and now - child.too_large_since < LAST_RESULTS_SECONDS:
            return
        error = grew_too_large(in_mib(used), in_mib(self._limit), shared=len(child.slots) > 1)
        for thread, slot in enumerate(child.slots):
            if slot.task is not None:
                child.lost_tasks[thread] = LostTask(slot.task, error)
        child.kill()
        logger.error(
            "Worker process %d uses %s of memory, far more than --max-memory-per-process (%s). It is killed.",
            child.number + 1,
            in_mib(used),
            in_mib(self._limit),
        )
