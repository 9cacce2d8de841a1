"""Metrics, probes and log lines."""

from __future__ import annotations

import json
import logging
import re
from typing import Any

import aiohttp
import pytest
from prometheus_client import generate_latest

from django_task_operator import logs, telemetry
from django_task_operator.startup import probes
from django_task_operator.telemetry import MOST_QUEUES, OTHER_QUEUES, QueueFigures, queue_series

STATUS = {
    "pendingTasks": 12,
    "runningTasks": 3,
    "oldestPendingSeconds": 4,
    "desiredReplicas": 2,
    "readyReplicas": 1,
    "orphanedTasks": 5,
    "stuckTasks": 6,
    "conditions": [{"type": "Ready", "status": "True"}, {"type": "Stalled", "status": "Unknown"}],
}


def scraped(worker: str = "w") -> dict[str, float]:
    text = generate_latest(telemetry.REGISTRY).decode()
    lines = [line.rsplit(" ", 1) for line in text.splitlines() if f'worker="{worker}"' in line]
    return {name: float(value) for name, value in lines if "_created" not in name}


def test_a_status_becomes_metrics_and_is_forgotten() -> None:
    telemetry.observe("shop", "w", STATUS)
    telemetry.observe("shop", "other", STATUS)
    telemetry.SCALINGS.labels("shop", "w", "ScaledUp").inc()
    telemetry.ORPHANS.labels("shop", "w", "Failed").inc(7)
    telemetry.DECISIONS.labels("shop", "w", "DemandMet").inc(2)
    telemetry.observe_limits("shop", "w", least=0, most=9)
    telemetry.observe_queues("shop", "w", {"emails": QueueFigures(10, 2, 4.5)})
    of = 'namespace="shop",worker="w"'
    assert scraped() == {
        f"django_tasks_pending{{{of}}}": 12,
        f"django_tasks_running{{{of}}}": 3,
        f"django_tasks_demand{{{of}}}": 15,
        f"django_tasks_oldest_pending_seconds{{{of}}}": 4,
        'django_task_queue_pending_tasks{namespace="shop",queue="emails",worker="w"}': 10,
        'django_task_queue_running_tasks{namespace="shop",queue="emails",worker="w"}': 2,
        'django_task_queue_oldest_pending_seconds{namespace="shop",queue="emails",worker="w"}': 4.5,
        f"django_task_worker_min_replicas{{{of}}}": 0,
        f"django_task_worker_max_replicas{{{of}}}": 9,
        f"django_task_worker_desired_replicas{{{of}}}": 2,
        f"django_task_worker_ready_replicas{{{of}}}": 1,
        f'django_task_worker_condition{{condition="Ready",{of}}}': 1,
        f'django_task_worker_condition{{condition="Stalled",{of}}}': 0,
        f"django_task_worker_orphaned_tasks{{{of}}}": 5,
        f"django_task_worker_stuck_tasks{{{of}}}": 6,
        'django_task_worker_orphans_total{namespace="shop",outcome="Failed",worker="w"}': 7,
        'django_task_worker_decisions_total{namespace="shop",reason="DemandMet",worker="w"}': 2,
        'django_task_worker_scalings_total{namespace="shop",reason="ScaledUp",worker="w"}': 1,
    }

    telemetry.forget("shop", "w")
    assert scraped() == {}
    assert scraped("other")
    telemetry.forget("shop", "other")
    telemetry.forget("shop", "never-seen")


def test_the_largest_queues_are_shown_and_all_tasks_are_counted() -> None:
    queues = {f"queue-{number:03}": QueueFigures(number, 1, number) for number in range(MOST_QUEUES + 20)}
    series = queue_series(queues)

    assert len(series) == MOST_QUEUES + 1
    assert series["queue-069"] == QueueFigures(69, 1, 69)
    assert series[OTHER_QUEUES] == QueueFigures(sum(range(20)), 20, 19)
    assert sum(one.pending for one in series.values()) == sum(one.pending for one in queues.values())


def test_names_of_queues_can_do_no_harm() -> None:
    long = "q" * 300
    series = queue_series(
        {
            "\x1b[2J": QueueFigures(4),
            "<script>": QueueFigures(3),
            f"{long}1": QueueFigures(1, 2, 5),
            f"{long}2": QueueFigures(2, 0, 7),
            "\ud800": QueueFigures(1),
            "": QueueFigures(9),
            OTHER_QUEUES: QueueFigures(1),
        }
    )

    assert series == {
        r"\x1b[2J": QueueFigures(4),
        r"\x3cscript>": QueueFigures(3),
        "q" * 199 + "…": QueueFigures(3, 2, 7),
        r"\ud800": QueueFigures(1),
        OTHER_QUEUES: QueueFigures(10),
    }


def test_a_queue_that_is_gone_has_no_series() -> None:
    telemetry.observe_queues("shop", "w", {"emails": QueueFigures(1), "mails": QueueFigures(2)})
    telemetry.observe_queues("shop", "w", {"mails": QueueFigures(3)})
    pending = [line for line in scraped() if "queue_pending" in line]
    telemetry.forget("shop", "w")

    assert pending == ['django_task_queue_pending_tasks{namespace="shop",queue="mails",worker="w"}']
    assert scraped() == {}


async def test_probes() -> None:
    state = {"alive": True, "ready": False}
    server = await probes.serve(0, alive=lambda: state["alive"], ready=lambda: state["ready"])
    try:
        # With port 0, each of the addresses has a port of its own.
        (port,) = (address[1] for address in server.addresses if address[0] == "0.0.0.0")
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:

            async def get(path: str) -> tuple[int, str]:
                async with session.get(path) as answer:
                    return answer.status, await answer.text()

            assert await get("/healthz") == (200, "ok")
            assert (await get("/readyz"))[0] == 503
            state.update(alive=False, ready=True)
            assert (await get("/healthz"))[0] == 503
            assert await get("/readyz") == (200, "ok")
            assert "django_task_operator_turns_total" in (await get("/metrics"))[1]
    finally:
        await server.cleanup()


def logged(capsys: pytest.CaptureFixture[str], form: Any, level: str = "info") -> str:
    logs.configure(level, form)
    log = logging.getLogger("django_task_operator.test")
    log.debug("too fine")
    log.info("scaled", extra={"worker": "shop/emails", "replicas": 5})
    return capsys.readouterr().err


@pytest.mark.usefixtures("unchanged_logging")
def test_json_has_the_extra_fields(capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = logged(capsys, "json").splitlines()
    fields = json.loads(line)

    assert list(fields)[:2] == ["ts", "level"]
    # RFC 3339, in UTC.
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", fields.pop("ts"))
    assert fields == {
        "level": "info",
        "logger": "django_task_operator.test",
        "msg": "scaled",
        "worker": "shop/emails",
        "replicas": 5,
    }


@pytest.mark.usefixtures("unchanged_logging")
def test_text_has_them_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert logged(capsys, "text").endswith(" INFO    scaled worker=shop/emails replicas=5\n")


@pytest.mark.usefixtures("unchanged_logging")
def test_debug_is_for_those_who_ask(capsys: pytest.CaptureFixture[str]) -> None:
    assert "too fine" in logged(capsys, "json", "debug")


@pytest.mark.usefixtures("unchanged_logging")
@pytest.mark.parametrize("form", ["json", "text"])
def test_a_traceback_stays_with_its_line(capsys: pytest.CaptureFixture[str], form: Any) -> None:
    logs.configure("info", form)
    try:
        _ = 1 / 0
    except ZeroDivisionError:
        logging.getLogger("x").exception("turn failed", extra={"worker": "shop/emails"})
    told = capsys.readouterr().err

    assert "ZeroDivisionError" in told
    assert "shop/emails" in told.splitlines()[0]
    assert len(told.splitlines()) == 1 or form == "text"
