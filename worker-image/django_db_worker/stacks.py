"""The stacks of another process's threads: requested with a signal, read from shared memory."""

import faulthandler
import os
import re
import signal
import tempfile
import time

# faulthandler's handler does not need the interpreter, so it works even while a C extension holds the GIL.
# Nothing else uses a real-time signal by accident. Linux has them, where workers run in production.
ASK = signal.Signals(getattr(signal, "SIGRTMIN", signal.SIGUSR2))
PATIENCE_SECONDS = 2.0

_THREAD = re.compile(r"^(?:Current thread|Thread) 0x([0-9a-f]+)\b.*$", re.MULTILINE)


class Stacks:
    """The stacks of one worker process at a time: call ``arm()`` there, and ``ask()`` and ``read()`` here."""

    def __init__(self) -> None:
        # Both processes share the open file, and so the position in it.
        self._file = os.memfd_create("stacks") if hasattr(os, "memfd_create") else _unnamed()
        self._asked = 0.0
        self._size = 0

    def arm(self) -> None:
        """Answer requests from now on. Call it in the worker process."""
        faulthandler.register(ASK, file=self._file, all_threads=True, chain=False)

    def ask(self, pid: int) -> None:
        """Make the process write its stacks."""
        os.ftruncate(self._file, 0)
        os.lseek(self._file, 0, os.SEEK_SET)
        self._asked, self._size = time.monotonic(), 0
        os.kill(pid, ASK)

    def answered(self) -> bool:
        """Whether the answer is complete, or never will be."""
        size, before = os.fstat(self._file).st_size, self._size
        self._size = size
        return 0 < size == before or time.monotonic() - self._asked > PATIENCE_SECONDS

    def read(self, thread: int) -> str:
        """Return the stack of the thread with this identifier, innermost call last; empty without one."""
        text = os.pread(self._file, os.fstat(self._file).st_size, 0)
        return stack_of(thread, text.decode(errors="backslashreplace"))


def stack_of(thread: int, dump: str) -> str:
    """Return one thread's part of faulthandler's output, reversed to read like a traceback."""
    heads = list(_THREAD.finditer(dump))
    ends = [*(head.start() for head in heads[1:]), len(dump)]
    for head, end in zip(heads, ends, strict=False):
        if int(head[1], 16) == thread:
            part = dump[head.end() : end]
            frames = [line for line in part.splitlines() if line.startswith("  ")]
            return "\n".join(reversed(frames))
    return ""


def _unnamed() -> int:
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
