from __future__ import annotations

import os
import signal
import threading
import time

import pytest
from django_db_worker.stacks import Stacks, stack_of

DUMP = """\
Thread 0x00007f0000000001 (most recent call first):
  File "/app/tasks.py", line 7 in wait
  File "/app/tasks.py", line 3 in send

Current thread 0x00007f0000000002 [slot 1.2] (most recent call first):
  File "/lib/process.py", line 9 in run
Extension modules: _cffi_backend (total: 1)
"""


@pytest.mark.parametrize(
    ("thread", "stack"),
    [
        (
            0x7F0000000001,
            '  File "/app/tasks.py", line 3 in send\n  File "/app/tasks.py", line 7 in wait',
        ),
        (0x7F0000000002, '  File "/lib/process.py", line 9 in run'),
        (0x7F0000000003, ""),
        (0, ""),
    ],
)
def test_a_threads_part_of_a_dump(thread: int, stack: str) -> None:
    assert stack_of(thread, DUMP) == stack


def test_a_dump_that_was_cut_off() -> None:
    assert stack_of(0x7F0000000001, DUMP[:40]) == ""
    assert stack_of(0x7F0000000001, "") == ""


def answered(stacks: Stacks) -> bool:
    deadline = time.monotonic() + 30
    while not stacks.answered():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return True


def test_where_another_process_is() -> None:
    stacks = Stacks()
    ready, started = os.pipe()

    def stand_still() -> None:
        os.write(started, threading.get_ident().to_bytes(8, "little"))
        time.sleep(60)

    pid = os.fork()
    if not pid:
        try:
            stacks.arm()
            threading.Thread(target=stand_still, daemon=True).start()
            time.sleep(60)
        finally:
            os._exit(1)
    try:
        thread = int.from_bytes(os.read(ready, 8), "little")
        # Once for each task that is late: the answers do not pile up.
        for _ in range(2):
            stacks.ask(pid)
            assert answered(stacks)
            assert stacks.read(thread).count("in stand_still") == 1
        assert stacks.read(1) == ""
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_a_process_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    stacks = Stacks()
    pid = os.fork()
    if not pid:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        time.sleep(60)
        os._exit(1)
    try:
        monkeypatch.setattr("django_db_worker.stacks.PATIENCE_SECONDS", 0.2)
        stacks.ask(pid)
        assert answered(stacks)
        assert stacks.read(1) == ""
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
