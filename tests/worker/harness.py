"""The project in project/, its console and its workers, all of them in separate processes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.waiting import PATIENCE_S, eventually

ROOT = Path(__file__).parent.parent.parent
RUNTIME = ROOT / "worker-image"
PROJECT = Path(__file__).parent / "project"
# PR_SET_CHILD_SUBREAPER of prctl(2).
BECOME_SUBREAPER = (
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(36, 1, 0, 0, 0); os.execv(sys.argv[1], sys.argv[1:])"
)
FINISHED = {"SUCCESSFUL", "FAILED"}


def children(pid: int) -> list[int]:
    """The child processes of this one, including zombies."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def state(pid: int) -> str:
    """The one-letter state of a process: Z is a zombie; empty if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def get(port: int, path: str) -> tuple[int, str]:
    """The status and the text of a worker's page; status 0 without an answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=PATIENCE_S) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError:
        return 0, ""


class Worker:
    """A running `manage.py db_worker`, and what it has printed so far."""

    def __init__(self, argv: list[str], env: dict[str, str], cwd: Path) -> None:
        self.process = subprocess.Popen(
            argv,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.pid = self.process.pid
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self._lines.append(line)

    @property
    def output(self) -> str:
        return "".join(self._lines)

    def says(self, text: str, *, within_s: float = PATIENCE_S) -> None:
        try:
            eventually(lambda: text in self.output, text, within_s=within_s)
        except AssertionError as error:
            raise AssertionError(f"{error}; but:\n{self.output}") from None

    def runs(self, count: int = 1) -> None:
        """Wait until tasks have begun. Until then a row that is RUNNING already may still be given back."""
        eventually(lambda: self.output.count("state=RUNNING") >= count, f"{count} tasks have begun")

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, within_s: float = PATIENCE_S) -> int:
        """Wait until it has ended and all of its output is read; return its exit code."""
        try:
            code = self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {within_s} s:\n{self.output}") from None
        self._reader.join(5)
        return code

    def terminate(self, within_s: float = PATIENCE_S) -> int:
        self.signal(signal.SIGTERM)
        return self.wait(within_s)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join(5)
        if self.process.stdout:
            self.process.stdout.close()


@dataclass
class Project:
    """The project on one database."""

    url: str
    workers: list[Worker] = field(default_factory=list)
    _console: subprocess.Popen[str] | None = None

    @property
    def engine(self) -> str:
        return self.url.partition(":")[0]

    def env(self, **more: str) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "STOCK") if name in os.environ}
        return {
            **kept,
            "PYTHONPATH": str(RUNTIME),
            "PYTHONUNBUFFERED": "1",
            "PYTHONWARNINGS": "error::RuntimeWarning,error::ResourceWarning",
            "TASK_DATABASE_URL": self.url,
            **more,
        }

    def run(self, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a management command to its end; a test that ends first takes its processes along."""
        command = [sys.executable, "manage.py", *args]
        with subprocess.Popen(
            command,
            cwd=PROJECT,
            env=self.env(**env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                output, errors = process.communicate()
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        return subprocess.CompletedProcess(command, process.returncode, output, errors)

    def migrate(self) -> None:
        done = self.run("migrate", "--verbosity=0")
        assert done.returncode == 0, done.stderr

    def worker(self, *flags: str, manage: str = "manage.py", as_init: bool = False, **env: str) -> Worker:
        """Start a worker without the random delay; with ``as_init``, it inherits orphans, as PID 1 does."""
        argv = [sys.executable, manage, "db_worker", "--no-startup-delay", *flags]
        if as_init:
            argv = [sys.executable, "-c", BECOME_SUBREAPER, *argv]
        worker = Worker(argv, self.env(**env), PROJECT)
        self.workers.append(worker)
        return worker

    def command(self, *args: str) -> Worker:
        """Start another management command."""
        command = Worker([sys.executable, "manage.py", *args], self.env(), PROJECT)
        self.workers.append(command)
        return command

    def batch(self, *flags: str, **env: Any) -> str:
        """Run all ready tasks, and return what the worker printed."""
        worker = self.worker("--batch", "--interval=0.1", *flags, **env)
        code = worker.wait()
        assert code == 0, f"exit code {code}:\n{worker.output}"
        return worker.output

    def ask(self, do: str, **request: Any) -> Any:
        """Let the console do something."""
        if self._console is None or self._console.poll() is not None:
            self._console = subprocess.Popen(
                [sys.executable, "manage.py", "console"],
                cwd=PROJECT,
                env=self.env(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                bufsize=1,
            )
        assert self._console.stdin
        assert self._console.stdout
        self._console.stdin.write(json.dumps({"do": do, **request}) + "\n")
        line = self._console.stdout.readline()
        assert line, f"the console ended at {do}"
        return json.loads(line)

    def enqueue_each(self, task: str, calls: list[list[Any]]) -> list[str]:
        """Enqueue a task once for each list of arguments."""
        ids: list[str] = self.ask("enqueue_each", task=task, calls=calls)
        return ids

    def enqueue(self, task: str, *args: Any, times: int = 1, **using: Any) -> list[str]:
        ids: list[str] = self.ask("enqueue", task=task, args=args, times=times, **using)
        return ids

    def enqueue_one(self, task: str, *args: Any, **using: Any) -> str:
        return self.enqueue(task, *args, **using)[0]

    def results(self, ids: list[str] | None = None) -> dict[str, dict[str, Any]]:
        rows: dict[str, dict[str, Any]] = self.ask("results", ids=ids)
        return rows

    def result(self, one: str) -> dict[str, Any]:
        return self.results([one])[one]

    def finished(self, one: str, *, within_s: float = PATIENCE_S) -> dict[str, Any]:
        """Wait until a task is finished; return its row."""
        eventually(lambda: self.result(one)["status"] in FINISHED, f"{one} is finished", within_s=within_s)
        return self.result(one)

    def all_finished(self, count: int, *, within_s: float = PATIENCE_S) -> None:
        eventually(
            lambda: sum(n for status, n in self.statuses().items() if status in FINISHED) >= count,
            f"{count} tasks are finished",
            within_s=within_s,
        )

    def statuses(self) -> dict[str, int]:
        counts: dict[str, int] = self.ask("statuses")
        return counts

    def entries(self) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = self.ask("entries")
        return entries

    def clear(self) -> None:
        """End all workers, and empty the tables."""
        for worker in self.workers:
            worker.kill()
        self.workers.clear()
        self.ask("clear")

    def close(self) -> None:
        if self._console is not None:
            # This closes its input, which ends the console.
            self._console.communicate(timeout=PATIENCE_S)
            self._console = None
