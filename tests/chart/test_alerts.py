"""The alerts: promtool's own tests, a runbook for each, and metrics that there are."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from prometheus_client import generate_latest
from prometheus_client.metrics import MetricWrapperBase
from tests.chart.test_chart import CHART, helm, one, render
from tests.conftest import ROOT, tool
from tests.waiting import PATIENCE_S

from django_task_operator import telemetry

if TYPE_CHECKING:
    from collections.abc import Callable

RULES_FILE = CHART / "files" / "alerts.yaml"
GROUPS = yaml.safe_load(RULES_FILE.read_text())["groups"]
ALERTS: dict[str, dict[str, Any]] = {rule["alert"]: rule for group in GROUPS for rule in group["rules"]}
CASES = ROOT / "tests" / "chart" / "alerts_test.yaml"
RUNBOOKS = (ROOT / "docs" / "runbooks.md").read_text()
ALL_ON = {name: {"enabled": True} for name in ("serviceMonitor", "podMonitor", "prometheusRule")}
LABELS = {"release": "kube-prometheus-stack"}


def promtool(*args: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [tool("promtool"), *args],
        input=text,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        cwd=CASES.parent,
    )


def page_of_operator() -> str:
    """What the operator serves once everything has happened for a first time."""
    for metric in vars(telemetry).values():
        if isinstance(metric, MetricWrapperBase) and metric._labelnames:
            metric.labels(*metric._labelnames)
    try:
        return generate_latest(telemetry.REGISTRY).decode()
    finally:
        for metric in vars(telemetry).values():
            if isinstance(metric, MetricWrapperBase) and metric._labelnames:
                metric.remove(*metric._labelnames)


def page_of_worker() -> str:
    # The worker is a separate package, which this environment does not have.
    program = (
        "from django_db_worker import metrics, status_board as board\n"
        "slots = board.StatusBoard(1, 1)\n"
        "slots.slot(0, 0).count_started('shop.tasks.mail', 0)\n"
        "print(metrics.exposition(slots, restarts=0), end='')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(ROOT / "worker-image")},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )
    return done.stdout


@pytest.mark.parametrize("page", [page_of_operator, page_of_worker])
def test_metrics_follow_the_conventions_of_prometheus(page: Callable[[], str]) -> None:
    text = page()
    assert len(re.findall("^# TYPE django_", text, re.MULTILINE)) > 5
    done = promtool("check", "metrics", text=text)

    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_prometheus_takes_the_rules() -> None:
    done = promtool("check", "rules", str(RULES_FILE))

    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(ALERTS)} rules found" in done.stdout


def test_alerts_fire_when_they_should_and_only_then() -> None:
    done = promtool("test", "rules", str(CASES))

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_is_tested_both_ways(alert: str) -> None:
    cases = [
        case
        for test in yaml.safe_load(CASES.read_text())["tests"]
        for case in test.get("alert_rule_test", [])
        if case["alertname"] == alert
    ]

    assert any(case["exp_alerts"] for case in cases)
    # The story of a settled operator is about all of them.
    assert any(
        "ALERTS" in str(test.get("promql_expr_test")) for test in yaml.safe_load(CASES.read_text())["tests"]
    )


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_says_what_it_is_and_has_a_runbook(alert: str) -> None:
    rule = ALERTS[alert]

    assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["runbook_url"] == f"runbooks.md#{alert.lower()}"
    assert rule["labels"]["severity"] in {"warning", "critical"}
    (section,) = re.findall(rf"^## {alert}\n(.*?)(?=^## |\Z)", RUNBOOKS, re.DOTALL | re.MULTILINE)
    assert all(part in section for part in ("**Meaning.**", "**Consequence.**", "**What to do.**"))


def test_every_runbook_is_for_an_alert() -> None:
    assert re.findall(r"^## (.*)$", RUNBOOKS, re.MULTILINE) == list(ALERTS)


@pytest.mark.parametrize("alert", ALERTS)
def test_alerts_ask_for_metrics_that_there_are(alert: str) -> None:
    known = set(re.findall(r"^\| `(\w+)`", (ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE))
    asked = set(re.findall(r"\bdjango_\w+", ALERTS[alert]["expr"]))

    assert asked
    assert asked <= known


def test_nothing_of_it_is_rendered_unless_asked_for() -> None:
    assert {manifest["apiVersion"] for manifest in render()}.isdisjoint({"monitoring.coreos.com/v1"})


def test_rule_has_the_alerts_and_the_address_of_the_runbooks() -> None:
    values = {"enabled": True, "labels": LABELS}
    rule = one(render({"prometheusRule": values}), "PrometheusRule")
    served = one(
        render({"prometheusRule": {**values, "runbooks": "https://docs.example/operator/"}}), "PrometheusRule"
    )

    assert rule["spec"] == {"groups": GROUPS}
    assert rule["metadata"]["labels"].items() >= LABELS.items()
    urls = [each["annotations"]["runbook_url"] for each in served["spec"]["groups"][0]["rules"]]
    assert urls == [f"https://docs.example/operator/runbooks.md#{alert.lower()}" for alert in ALERTS]


def test_monitors_find_what_they_scrape() -> None:
    manifests = render({**ALL_ON, "serviceMonitor": {"enabled": True, "labels": LABELS}})
    monitor, pods = one(manifests, "ServiceMonitor"), one(manifests, "PodMonitor")
    (endpoint,) = monitor["spec"]["endpoints"]
    selected = [
        service["metadata"]["name"]
        for service in manifests
        if service["kind"] == "Service"
        and service["metadata"]["labels"].items() >= monitor["spec"]["selector"]["matchLabels"].items()
        and endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    ]

    assert selected == ["django-task-operator-metrics"]
    assert endpoint["honorLabels"] is True
    assert monitor["metadata"]["labels"].items() >= LABELS.items()
    golden = ROOT / "tests" / "unit" / "resources" / "golden"
    worker = next(
        manifest
        for path in sorted(golden.rglob("*.yaml"))
        for manifest in yaml.safe_load_all(path.read_text())
        if manifest and manifest.get("kind") == "Deployment"
    )["spec"]["template"]
    assert worker["metadata"]["labels"].items() >= pods["spec"]["selector"]["matchLabels"].items()
    (expression,) = pods["spec"]["selector"]["matchExpressions"]
    assert expression["key"] in worker["metadata"]["labels"]
    ports = {port["name"] for container in worker["spec"]["containers"] for port in container["ports"]}
    assert pods["spec"]["podMetricsEndpoints"][0]["port"] in ports


@pytest.mark.parametrize(
    ("namespaces", "selector"), [([], {"any": True}), (["shop", "blog"], {"matchNames": ["shop", "blog"]})]
)
def test_workers_are_scraped_where_the_operator_serves_them(
    namespaces: list[str], selector: dict[str, Any]
) -> None:
    pods = one(render({"podMonitor": {"enabled": True}, "watchNamespaces": namespaces}), "PodMonitor")

    assert pods["spec"]["namespaceSelector"] == selector


def test_a_service_monitor_needs_the_service() -> None:
    done = helm("template", "a", str(CHART), values={**ALL_ON, "metrics": {"service": False}})

    assert done.returncode != 0
    assert "so set metrics.service, too" in done.stderr


def test_the_address_of_the_runbooks_is_a_url() -> None:
    done = helm(
        "template", "a", str(CHART), values={"prometheusRule": {"enabled": True, "runbooks": "docs.example"}}
    )

    assert "/prometheusRule/runbooks" in done.stderr
