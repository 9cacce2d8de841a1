"""Where the threads of another process are: asked for by a signal, read from memory that both share."""

import faulthandler
import os
import re
import signal
import tempfile
import time

# Its handler needs no interpreter, so it also answers while a C extension keeps Python waiting. A real-time
# signal: nobody else uses it by accident, and Linux has it, where workers run for good.
ASK = signal.Signals(getattr(signal, "SIGRTMIN", signal.SIGUSR2))
PATIENCE_SECONDS = 2.0

_THREAD = re.compile(r"^(?:Current thread|Thread) 0x([0-9a-f]+)\b.*$", re.MULTILINE)


class Stacks:
    """The stacks of one worker process after another: `arm()` there, `ask()` and `read()` here."""

    def __init__(self) -> None:
        # Both processes have the same open file, and so the same position in it.
        self._file = os.memfd_create("stacks") if hasattr(os, "memfd_create") else _unnamed()
        self._asked = 0.0
        self._size = 0

    def arm(self) -> None:
        """In the process: answer from now on."""
        faulthandler.register(ASK, file=self._file, all_threads=True, chain=False)

    def ask(self, pid: int) -> None:
        """Have the process write its stacks."""
        os.ftruncate(self._file, 0)
        os.lseek(self._file, 0, os.SEEK_SET)
        self._asked, self._size = time.monotonic(), 0
        os.kill(pid, ASK)

    def answered(self) -> bool:
        """Whether the answer is complete, or will never be."""
        size, before = os.fstat(self._file).st_size, self._size
        self._size = size
        return 0 < size == before or time.monotonic() - self._asked > PATIENCE_SECONDS

    def read(self, thread: int) -> str:
        """The stack of the thread of this identifier, innermost call last; empty if it is not there."""
        text = os.pread(self._file, os.fstat(self._file).st_size, 0)
        return stack_of(thread, text.decode(errors="backslashreplace"))


def stack_of(thread: int, dump: str) -> str:
    """One thread's part of what faulthandler writes, turned round to read as a traceback does."""
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
