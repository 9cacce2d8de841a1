"""What a task, its row and its signals see. With STOCK=1 in the environment the same tests hold upstream's
own worker to it: they say what upstream does.
"""

from __future__ import annotations

import json
import os
import re
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from tests.worker.harness import FINISHED

if TYPE_CHECKING:
    from tests.worker.harness import Project


def test_a_result_an_error_and_who_ran_it(project: Project) -> None:
    before = time.time()
    fine, wrong, deep, odd, left, interrupted, crowd, asynchronous = (
        project.enqueue_one("add", 1, 2),
        project.enqueue_one("fail", "no good"),
        project.enqueue_one("fail_deeply"),
        project.enqueue_one("unserializable"),
        project.enqueue_one("leave", 3),
        project.enqueue_one("interrupt"),
        project.enqueue_one("who"),
        project.enqueue_one("later", {"a": [1, None]}),
    )
    project.batch("--worker-id=me")
    after = time.time()
    rows = project.results()

    assert rows[fine]["status"] == "SUCCESSFUL"
    assert rows[fine]["return_value"] == 3
    assert (rows[fine]["exception_class_path"], rows[fine]["traceback"]) == ("", "")
    assert (
        before <= rows[fine]["enqueued_at"] <= rows[fine]["started_at"] <= rows[fine]["finished_at"] <= after
    )

    assert rows[wrong]["status"] == "FAILED"
    assert rows[wrong]["exception_class_path"] == "builtins.ValueError"
    assert rows[wrong]["traceback"].startswith("Traceback (most recent call last):\n")
    assert rows[wrong]["traceback"].endswith("ValueError: no good\n")
    assert "in fail\n" in rows[wrong]["traceback"]
    assert rows[wrong]["return_value"] is None

    assert rows[deep]["exception_class_path"] == "builtins.RuntimeError"
    assert "direct cause of the following exception" in rows[deep]["traceback"]
    assert rows[odd]["exception_class_path"] == "builtins.TypeError"
    assert "is not JSON serializable" in rows[odd]["traceback"]
    assert rows[left]["exception_class_path"] == "builtins.SystemExit"
    assert rows[interrupted]["exception_class_path"] == "builtins.KeyboardInterrupt"

    ran = rows[crowd]["return_value"]
    assert (ran["id"], ran["attempt"], ran["status"]) == (crowd, 1, "RUNNING")
    assert ran["workers"] == rows[crowd]["worker_ids"]
    assert rows[crowd]["worker_ids"][0].startswith("me")
    assert rows[asynchronous]["return_value"] == [{"a": [1, None]}, True]


def test_what_is_no_task_fails_and_the_next_one_runs(project: Project) -> None:
    rows = [
        project.ask("insert", times=1, task_path=path)[0]
        for path in ("missing.module", "chores.missing", "chores.not_a_task", "subprocess.check_output")
    ]
    fine = project.enqueue_one("add", 1, 1)
    project.batch()
    results = project.results()
    assert [results[row]["status"] for row in rows] == ["FAILED"] * 4
    assert [results[row]["exception_class_path"].rpartition(".")[2] for row in rows] == [
        "ModuleNotFoundError",
        "ImportError",
        "SuspiciousOperation",
        "SuspiciousOperation",
    ]
    assert results[fine]["return_value"] == 2


def test_signals_say_what_the_row_says(project: Project) -> None:
    fine, wrong = project.enqueue_one("nothing"), project.enqueue_one("fail", "x")
    project.batch(WRITE_SIGNALS="1")
    seen = [(entry["task"], entry["what"]) for entry in project.entries()]
    assert seen == [
        (fine, "started DatabaseBackend RUNNING"),
        (fine, "finished DatabaseBackend SUCCESSFUL"),
        (wrong, "started DatabaseBackend RUNNING"),
        (wrong, "finished DatabaseBackend FAILED"),
    ]


@pytest.mark.parametrize(("use_tz", "time_zone"), [("1", "Asia/Tokyo"), ("0", "America/New_York")])
def test_time_zones(project: Project, use_tz: str, time_zone: str) -> None:
    """Due now, long ago and only in the future, in the worker's own time zone."""
    settings = {"USE_TZ": use_tz, "TIME_ZONE": time_zone}
    enqueue = (
        "import chores, sys; from django.utils import timezone as t; from datetime import timedelta as d; "
    )
    done = project.run(
        "shell",
        "--no-imports",
        "--command",
        enqueue + "[print(chores.hour.using(run_after=a and t.now() + d(seconds=a)).enqueue().id)"
        " for a in (None, -1800, 1800)]",
        **settings,
    )
    assert done.returncode == 0, done.stderr
    now, overdue, future = done.stdout.split()
    project.batch(**settings)
    shown = project.run(
        "shell",
        "--no-imports",
        "--command",
        "import json; from django_tasks_db.models import DBTaskResult as D;"
        "rows = {str(r.id): [r.status, r.return_value, str(r.started_at)] for r in D.objects.all()};"
        "print(json.dumps(rows))",
        **settings,
    )
    rows = json.loads(shown.stdout)
    assert (rows[now][0], rows[overdue][0], rows[future][0]) == ("SUCCESSFUL", "SUCCESSFUL", "READY")
    stamp, zone = rows[now][1]
    assert zone == time_zone
    # The row's time is written in the zone that its readers expect: an error is half an hour, or hours.
    spent = datetime.fromisoformat(stamp) - datetime.fromisoformat(rows[now][2])
    assert 0 <= spent.total_seconds() < 600
    if use_tz == "1":
        assert abs((datetime.now(UTC) - datetime.fromisoformat(stamp)).total_seconds()) < 600


def test_a_task_cannot_spoil_the_connection_for_others(project: Project) -> None:
    expected = {
        "break_transaction": {"FAILED"},
        "close_connection": {"SUCCESSFUL"},
        "duplicate": {"SUCCESSFUL"},
        # Upstream saves the result in the transaction that is never committed: its row stays RUNNING.
        "leave_transaction_open": {"RUNNING"} if os.environ.get("STOCK") else FINISHED,
    }
    spoilers, others = {}, []
    for spoiler in expected:
        spoilers[project.enqueue_one(spoiler)] = spoiler
        others += project.enqueue("note", times=2)
    project.batch()
    results = project.results()
    for one, spoiler in spoilers.items():
        assert results[one]["status"] in expected[spoiler], spoiler
    assert {results[one]["status"] for one in others} == {"SUCCESSFUL"}
    entries = project.entries()
    assert sorted(entry["task"] for entry in entries if entry["what"] == "ran") == sorted(others)
    assert not {"lost", "forgotten"} & {entry["what"] for entry in entries}


def test_a_task_is_in_no_transaction_of_the_workers(project: Project) -> None:
    task = project.enqueue_one("in_transaction")
    project.batch()
    assert project.result(task)["return_value"] is False


def test_order_is_upstreams(project: Project) -> None:
    """By priority, then run_after (none is last), then time of enqueueing."""
    for position, (priority, run_after) in enumerate(
        [(0, None), (100, None), (-100, -10), (0, -60), (5, None), (5, -1), (0, -3600), (100, -1), (0, None)]
    ):
        extra = {} if run_after is None else {"run_after": run_after}
        project.enqueue("note", f"{position}", priority=priority, **extra)
    expected = project.ask("order")
    project.enqueue("note", "future", priority=100, run_after=3600)
    project.batch()
    assert [entry["task"] for entry in project.entries()] == expected


def test_queues_and_backends(project: Project) -> None:
    ids = {
        (queue, backend): project.enqueue_one("nothing", queue_name=queue, backend=backend)
        for queue, backend in [
            ("default", "default"),
            ("reports", "default"),
            ("mails", "default"),
            ("default", "other"),
        ]
    }

    def finished() -> set[tuple[str, str]]:
        rows = project.results()
        return {key for key, one in ids.items() if rows[one]["status"] == "SUCCESSFUL"}

    project.batch("--queue-name=*", "--exclude-queues=mails,default")
    assert finished() == {("reports", "default")}
    project.batch("--queue-name=mails,reports")
    assert finished() == {("reports", "default"), ("mails", "default")}
    project.batch()
    assert finished() == ids.keys() - {("default", "other")}
    project.batch("--backend=other")
    assert finished() == ids.keys()


def test_log_lines_of_verbosity(postgres: Project) -> None:
    if os.environ.get("STOCK"):
        pytest.skip("upstream's lines about tasks are lost in Django's default logging unless DEBUG is on")
    one = postgres.enqueue_one("fail", "the reason")
    output = postgres.batch("--verbosity=3", "--worker-id=me")
    assert "Starting worker worker_id=me" in output
    assert re.search(rf"Task id={one} path=chores.fail state=RUNNING", output)
    assert re.search(rf"Task id={one} path=chores.fail state=FAILED", output)
    assert "exiting gracefully" in output

    postgres.enqueue("say", "from the task itself")
    quiet = postgres.batch("--verbosity=0")
    assert "state=" not in quiet
    assert "Starting" not in quiet
    assert "from the task itself" in quiet


def test_a_worker_that_waits_sees_what_comes(project: Project) -> None:
    worker = project.worker("--interval=0.1")
    project.finished(project.enqueue_one("nothing"))
    # It has found the table empty, or is about to.
    first = project.finished(project.enqueue_one("add", 1, 2))
    later = project.finished(project.enqueue_one("add", 2, 2, run_after=2))
    assert (first["return_value"], later["return_value"]) == (3, 4)
    assert later["started_at"] >= later["run_after"] > first["finished_at"]
    assert worker.terminate() == 0
