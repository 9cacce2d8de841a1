"""Runs a command that prints a token: within limits of time and size, and without telling what it printed."""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from django_task_operator.harmless import harmless
from django_task_operator.redaction import HIDDEN, Redactor

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

# What a command may print.
MOST_BYTES = 64 * 1024
# How much of the end of its complaints is read, and shown.
LAST_BYTES = 4096
LONGEST_WORDS = 300
# How long the system may take to end a process that was killed.
REAP_SECONDS = 2.0
# How often it is looked whether the command has ended, while it keeps its pipes open or has closed them.
LOOK_SECONDS = 0.05

TOO_LONG = "took too long"

# A run of the characters that tokens consist of. Ordinary words, paths and names of hosts are no tokens: they
# do not mix capital letters, small ones and digits.
_RUN = re.compile(r"[\w+/=%.~:&?@-]{12,}")
_HEX = re.compile(r"[0-9a-fA-F]{24,}")


class CommandFailed(Exception):
    """A command did not do its work; the text says how, and ends with its redacted last words."""


@dataclass(slots=True)
class _Output:
    printed: bytearray
    said: bytearray

    def take_printed(self, data: bytes) -> None:
        self.printed += data

    def take_said(self, data: bytes) -> None:
        self.said += data
        del self.said[:-LAST_BYTES]


def run(
    command: Sequence[str], environment: Mapping[str, str], timeout_seconds: float, secrets: Iterable[str]
) -> bytes:
    """Run a command in a process group of its own, and return what it printed.

    Args:
        command: the program's path, and its arguments.
        environment: all of its variables.
        timeout_seconds: how long it may take; then it is killed, with the processes that it has started.
        secrets: what must not be in its last words: URLs of databases, and tokens.

    Raises:
        CommandFailed: it could not be started, failed, took too long or printed too much.
    """
    deadline = time.monotonic() + timeout_seconds
    try:
        process = subprocess.Popen(  # noqa: S603  whoever installed the operator has chosen it
            command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            bufsize=0,
        )
    except (OSError, ValueError) as error:
        why = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else "a null character"
        raise CommandFailed(f"could not be started: {why}") from None
    output = _Output(bytearray(), bytearray())
    try:
        problem = _read(process, output, deadline)
    finally:
        _end(process)
    if problem is None and process.returncode:
        problem = _exit(process.returncode)
    if problem:
        words = last_words(output.said.decode("utf-8", "replace"), secrets)
        how = f"took longer than {timeout_seconds:g} s" if problem is TOO_LONG else problem
        raise CommandFailed(how + (f": {words}" if words else ""))
    return bytes(output.printed)


def last_words(text: str, secrets: Iterable[str] = ()) -> str:
    """Return the last line of what a command complained, without anything that may be a secret."""
    redact = Redactor()
    for secret in secrets:
        redact.learn(secret)
    lines = [line for line in redact(text).splitlines() if line.strip()]
    if not lines:
        return ""
    shown = _HEX.sub(HIDDEN, _RUN.sub(lambda run: HIDDEN if _may_be_token(run[0]) else run[0], lines[-1]))
    return harmless(shown.strip(), LONGEST_WORDS)


def _may_be_token(run: str) -> bool:
    return any(map(str.isdigit, run)) and any(map(str.isupper, run)) and any(map(str.islower, run))


def _read(process: subprocess.Popen[bytes], output: _Output, deadline: float) -> str | None:
    """Read until the command has ended; return the problem, if there is one."""
    with selectors.DefaultSelector() as selector:
        for stream, take in ((process.stdout, output.take_printed), (process.stderr, output.take_said)):
            if stream is not None:
                selector.register(stream, selectors.EVENT_READ, take)
        while (left := deadline - time.monotonic()) > 0:
            # What it has started may keep the pipes open after it has ended.
            ended = _has_ended(process.pid)
            ready = selector.select(0 if ended else min(left, LOOK_SECONDS))
            if ended and not ready:
                return None
            for key, _ in ready:
                data = os.read(key.fd, MOST_BYTES)
                key.data(data)
                if not data:
                    selector.unregister(key.fileobj)
            if len(output.printed) > MOST_BYTES:
                return f"printed more than {MOST_BYTES} bytes"
    return TOO_LONG


def _has_ended(pid: int) -> bool:
    """Whether a child has ended. It is not reaped yet, so that its number stays its own for the kill."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of the group: nothing of it outlives the call."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(REAP_SECONDS)


def _exit(code: int) -> str:
    if code < 0:
        return f"was killed by signal {-code}"
    return f"failed with exit code {code}"
