"""Threads of the project in the worker's processes: the setting DB_WORKER_AFTER_FORK."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING

import pytest
from tests.waiting import eventually
from tests.worker.harness import ROOT, RUNTIME, children

if TYPE_CHECKING:
    from pathlib import Path

    from tests.worker.harness import Project, Worker

TWO = ["--processes=2", "--interval=0.1"]

# The parts of OpenTelemetry that the page uses. As there, the processor exports in a thread of its own, and a
# process sets its provider only once.
STAND_IN = {
    "opentelemetry/trace.py": """
provider = None
def set_tracer_provider(given):
    global provider
    assert provider is None, "only once"
    provider = given
""",
    "opentelemetry/exporter/otlp/proto/http/trace_exporter.py": """
class OTLPSpanExporter:
    pass
""",
    "opentelemetry/sdk/trace/__init__.py": """
class TracerProvider:
    def add_span_processor(self, processor):
        processor.begin()
""",
    "opentelemetry/sdk/trace/export.py": """
import threading
import beating
class BatchSpanProcessor:
    def __init__(self, exporter):
        assert type(exporter).__name__ == "OTLPSpanExporter"
    def begin(self):
        threading.Thread(target=beating.beat, name="OtelBatchSpanProcessor", daemon=True).start()
""",
}


def start(project: Project, *flags: str, hook: object = None) -> Worker:
    settings = {} if hook is None else {"DB_WORKER_AFTER_FORK": hook}
    return project.worker(*flags, MORE_APPS='["beating"]', MORE_SETTINGS=json.dumps(settings))


def test_a_thread_that_ready_started_is_named_with_the_setting_that_helps(shared: Project) -> None:
    worker = start(shared, *TWO)
    row = shared.finished(shared.enqueue_one("beats"))
    assert row["return_value"][1] is False
    (line,) = [line for line in worker.output.splitlines() if "Threads that were started" in line]
    assert "beating-heart" in line
    assert "DB_WORKER_AFTER_FORK" in line
    assert worker.terminate() == 0


def test_the_function_runs_in_each_process_also_in_one_that_replaces_another(shared: Project) -> None:
    worker = start(shared, *TWO, hook="beating.start")
    shared.enqueue("beats", times=4)
    shared.all_finished(4)
    first = eventually(lambda: len(children(worker.pid)) == 2 and children(worker.pid), "two processes")
    shared.finished(shared.enqueue_one("crash", 3))
    eventually(lambda: len(set(children(worker.pid)) - set(first)) == 1, "one is new")
    (fresh,) = set(children(worker.pid)) - set(first)

    def fresh_has_run() -> bool:
        return fresh in [shared.finished(one)["return_value"][0] for one in shared.enqueue("beats", times=4)]

    eventually(fresh_has_run, "the new one has run a task")
    answers = [row["return_value"] for row in shared.results().values() if row["status"] == "SUCCESSFUL"]
    assert [pid for pid, beats in answers if not beats] == []
    assert "Threads that were started" not in worker.output
    assert worker.terminate() == 0


def test_the_example_for_opentelemetry(postgres: Project, tmp_path: Path) -> None:
    """The page's own code, with a stand-in for the library."""
    page = (ROOT / "docs" / "worker.md").read_text()
    section = page.partition("### Threads of your own\n")[2].partition("\n### ")[0]
    telemetry, settings = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    for name, text in {**STAND_IN, "shop/telemetry.py": telemetry, "shop/__init__.py": ""}.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    given: dict[str, object] = {}
    exec(settings, given)
    del given["__builtins__"]

    both = f"{RUNTIME}{os.pathsep}{tmp_path}"
    worker = postgres.worker(*TWO, MORE_SETTINGS=json.dumps(given), PYTHONPATH=both)
    postgres.enqueue("beats", times=4)
    postgres.all_finished(4)
    rows = postgres.results().values()
    assert [row["return_value"][1] for row in rows] == [True] * 4, worker.output
    assert "Threads that were started" not in worker.output
    assert worker.terminate() == 0


def test_a_worker_that_does_not_fork_keeps_its_threads(shared: Project) -> None:
    worker = start(shared, "--interval=0.1", hook="beating.fail")
    assert shared.finished(shared.enqueue_one("beats"))["return_value"][1] is True
    assert "Threads that were started" not in worker.output
    assert worker.terminate() == 0


@pytest.mark.parametrize(
    ("hook", "sentence"),
    [
        ("beating.strat", "DB_WORKER_AFTER_FORK is 'beating.strat', which cannot be imported"),
        ("nowhere.start", "DB_WORKER_AFTER_FORK is 'nowhere.start', which cannot be imported"),
        ("start", "DB_WORKER_AFTER_FORK is 'start', which cannot be imported"),
        ("beating.not_a_function", "which is not a function: name a function by its dotted path"),
        (["beating.start"], "DB_WORKER_AFTER_FORK is ['beating.start']: name a function by its dotted path"),
        ("beating.broken.start", "'beating.broken.start', whose module raised KeyError when imported."),
    ],
)
def test_a_function_that_is_not_there(postgres: Project, hook: object, sentence: str) -> None:
    worker = start(postgres, *TWO, hook=hook)
    assert worker.wait() == 1
    assert sentence in worker.output
    assert "Traceback" not in worker.output


def test_a_function_that_fails_keeps_its_process_from_working(postgres: Project) -> None:
    waiting = postgres.enqueue_one("note")
    worker = start(postgres, *TWO, hook="beating.fail")
    assert worker.wait() == 4
    assert "The function that DB_WORKER_AFTER_FORK names failed" in worker.output
    assert "no exporter at all" in worker.output
    assert postgres.result(waiting)["status"] == "READY"
