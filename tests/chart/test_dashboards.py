"""The Grafana dashboards: current, of Grafana's own types, without overlaps, and found by its sidecar."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from tests.chart.test_chart import CHART, render
from tests.conftest import ROOT

FOLDER = CHART / "files" / "dashboards"
DASHBOARDS: dict[str, dict[str, Any]] = {
    path.name: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))
}
# Every query: the dashboard, the panel's title, the expression.
QUERIES: list[tuple[str, str, str]] = [
    (name, panel["title"], target["expr"])
    for name, dashboard in DASHBOARDS.items()
    for panel in dashboard["panels"]
    for target in panel.get("targets", ())
]
# What Grafana itself fills in.
BUILT_IN = {"__rate_interval", "__url_time_range", "__data", "__all"}

register_default_plugins()


def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = dashboard["panels"]
    return found


def test_both_dashboards_are_current() -> None:
    command = [sys.executable, str(ROOT / "docs" / "generate_dashboards.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert list(DASHBOARDS) == ["django-tasks-fleet.json", "django-tasks-worker.json"]


@pytest.mark.parametrize("name", DASHBOARDS)
def test_grafanas_types_have_a_place_for_all_of_it(name: str) -> None:
    """What is misspelt, or in the wrong place, would be lost."""
    read = Dashboard.from_json(DASHBOARDS[name])

    written = json.loads(json.dumps(read, cls=JSONEncoder))

    assert lost(DASHBOARDS[name], written) == []


def lost(before: Any, after: Any, path: str = "") -> list[str]:
    """What is not in ``after``, which may have more."""
    if isinstance(before, dict) and isinstance(after, dict):
        there = [
            found
            for key in before.keys() & after.keys()
            for found in lost(before[key], after[key], f"{path}/{key}")
        ]
        return [*there, *(f"{path}/{key}" for key in before.keys() - after.keys())]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = enumerate(zip(before, after, strict=True))
        return [found for number, pair in pairs for found in lost(*pair, f"{path}/{number}")]
    return [] if before == after else [path]


def test_what_is_lost_is_noticed() -> None:
    wrong = {"title": "A", "panels": [{"type": "stat", "fieldConfigs": {}, "gridPos": {"h": 1, "width": 2}}]}

    read = json.loads(json.dumps(Dashboard.from_json(wrong), cls=JSONEncoder))

    assert set(lost(wrong, read)) == {"/panels/0/fieldConfigs", "/panels/0/gridPos/width"}


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_have_places_of_their_own(name: str) -> None:
    placed = [panel["gridPos"] for panel in panels(DASHBOARDS[name])]

    assert len({panel["id"] for panel in panels(DASHBOARDS[name])}) == len(placed)
    assert all(at["x"] >= 0 and at["x"] + at["w"] <= 24 for at in placed)
    overlapping = [
        (one, other)
        for one, other in itertools.combinations(placed, 2)
        if one["x"] < other["x"] + other["w"]
        and other["x"] < one["x"] + one["w"]
        and one["y"] < other["y"] + other["h"]
        and other["y"] < one["y"] + one["h"]
    ]
    assert overlapping == []


@pytest.mark.parametrize("name", DASHBOARDS)
def test_every_variable_is_defined_and_used(name: str) -> None:
    dashboard = DASHBOARDS[name]
    defined = [variable["name"] for variable in dashboard["templating"]["list"]]
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(dashboard))) - BUILT_IN

    assert used == set(defined)
    # A variable's values may depend on those before it.
    for number, variable in enumerate(dashboard["templating"]["list"]):
        assert set(re.findall(r"\$\{?(\w+)", json.dumps(variable))) - BUILT_IN <= set(defined[:number])


def test_the_views_have_the_variables_that_narrow_them_down() -> None:
    names = [[each["name"] for each in one["templating"]["list"]] for one in DASHBOARDS.values()]

    assert names == [["datasource", "namespace"], ["datasource", "namespace", "worker", "queue"]]
    assert len({dashboard["uid"] for dashboard in DASHBOARDS.values()}) == 2


@pytest.mark.parametrize(("dashboard", "title", "expr"), QUERIES)
def test_a_query_asks_for_metrics_that_there_are(dashboard: str, title: str, expr: str) -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    known = set(re.findall(r"^\| `(\w+)`", page, re.MULTILINE))
    asked = {
        re.sub(r"_seconds_(bucket|sum|count)$", "_seconds", name)
        for name in re.findall(r"\b(?:django|process)_\w+", expr)
    }

    assert asked
    assert asked <= known, f"{dashboard}: {title}"


def test_nothing_of_it_is_rendered_unless_asked_for() -> None:
    assert [each for each in render() if each["metadata"]["name"].endswith("-dashboard")] == []


def test_the_sidecar_finds_both_as_they_are() -> None:
    values = {"enabled": True, "annotations": {"grafana_folder": "Django"}}
    found = render({"dashboards": values, "commonLabels": {"team": "platform"}}, "dashboards")

    assert [each["kind"] for each in found] == ["ConfigMap"] * 2
    shown = {name: json.loads(text) for each in found for name, text in each["data"].items()}
    assert shown == DASHBOARDS
    for each in found:
        assert each["metadata"]["labels"].items() >= {"grafana_dashboard": "1", "team": "platform"}.items()
        assert each["metadata"]["annotations"] == {"grafana_folder": "Django"}


def test_a_sidecar_with_a_label_of_its_own() -> None:
    labels = {"grafana_dashboard": "yes", "dashboards": "here"}
    (one, _) = render({"dashboards": {"enabled": True, "labels": labels}}, "dashboards")

    assert one["metadata"]["labels"].items() >= labels.items()
    assert "annotations" not in one["metadata"]
