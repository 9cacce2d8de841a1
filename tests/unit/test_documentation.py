"""The documentation names what the code defines."""

from __future__ import annotations

import importlib
import pkgutil
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import django_task_operator
from django_task_operator import scaling, telemetry
from django_task_operator.contract import ConditionReason, EventReason
from django_task_operator.errors import WorkerError
from django_task_operator.metrics_api.figures import METRICS
from django_task_operator.observed.pods import PodTrouble

ROOT = Path(__file__).parent.parent.parent
PACKAGE = ROOT / "operator" / "django_task_operator"
DOCS = sorted((ROOT / "docs").glob("*.md"))
RESULTS = sorted((ROOT / "benchmarks" / "results").glob("*.md"))
CHART_PAGE = ROOT / "charts" / "django-task-operator" / "README.md"


# Errors are known once their modules are imported, whatever else this process has run.
for module in pkgutil.walk_packages(django_task_operator.__path__, f"{django_task_operator.__name__}."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)


def leaves(kind: type[WorkerError]) -> list[type[WorkerError]]:
    below = [leaf for child in kind.__subclasses__() for leaf in leaves(child)]
    return below or [kind]


def reasons() -> set[str]:
    """Every reason that a condition or an event can have, with the module that defines it."""
    errors_ = (reason for kind in leaves(WorkerError) for reason in kind.reasons())
    return {*errors_, *ConditionReason, *EventReason, *scaling.Reason, *PodTrouble}


def test_every_room_has_its_reasons_here() -> None:
    assert {"TableMissing", "SecretMissing", "CrashLooping", "ScaledUp", "AtMaximum"} <= reasons()


@pytest.mark.parametrize("reason", sorted(reasons()))
def test_every_reason_is_explained(reason: str) -> None:
    assert f"`{reason}`" in (ROOT / "docs" / "troubleshooting.md").read_text()


@pytest.mark.parametrize(
    "page", [*ROOT.glob("*.md"), *ROOT.glob("[!b.]*/**/*.md")], ids=lambda path: str(path.relative_to(ROOT))
)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)", text, re.MULTILINE)
    shown = (re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings)
    return {re.sub(r"[^\w -]", "", heading).strip().replace(" ", "-") for heading in shown}


@pytest.mark.parametrize(
    "page", [*ROOT.glob("*.md"), *ROOT.glob("[!b.]*/**/*.md")], ids=lambda path: str(path.relative_to(ROOT))
)
def test_links_lead_to_a_heading(page: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#([^)]+)\)", page.read_text()):
        other = page.parent / target if target else page
        assert other.suffix != ".md" or anchor in anchors(other), f"{target}#{anchor}"


@pytest.mark.parametrize("page", [CHART_PAGE, *DOCS], ids=lambda path: path.name)
def test_upgrades_take_the_defaults_of_values_that_are_new(page: Path) -> None:
    """With --reuse-values, Helm leaves out what the chart of the last release did not have."""
    commands = re.findall(r"^helm upgrade (?:.*\\\n)*.*", page.read_text(), re.MULTILINE)

    assert all("--reset-then-reuse-values" in command for command in commands), commands


def blocks(page: str) -> list[dict[str, Any]]:
    """The YAML examples of a page."""
    found = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)
    return [yaml.safe_load(block) for block in found]


def exposed() -> dict[str, set[str]]:
    """The labels of every Prometheus metric that a worker has."""
    status = {"conditions": [{"type": "DatabaseReachable", "status": "True"}]}
    telemetry.observe("shop", "emails", status)
    try:
        families = telemetry.REGISTRY.collect()
        return {one.name: set(one.labels) for family in families for one in family.samples if one.labels}
    finally:
        telemetry.forget("shop", "emails")


def test_rules_for_other_adapters_ask_for_metrics_that_there_are() -> None:
    page = blocks("scaling-with-the-hpa.md")
    (rule,) = next(block for block in page if "rules" in block)["rules"]["external"]
    (trigger,) = next(block for block in page if block.get("kind") == "ScaledObject")["spec"]["triggers"]
    metrics = exposed()

    pattern = re.search(r'__name__=~"([^"]+)"', rule["seriesQuery"])
    assert pattern
    series = {name for name in metrics if re.fullmatch(pattern[1], name)}
    assert series == set(METRICS)
    assert all(metrics[name] == {"namespace", "worker"} for name in series)
    for query in (rule["metricsQuery"], trigger["metadata"]["query"]):
        assert "on (namespace, worker)" in query
        named = set(re.findall(r"django_\w+", query))
        assert named <= set(metrics)
        assert "django_task_worker_condition" in named
    assert "condition" in metrics["django_task_worker_condition"]


def generate_values(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the script of that name in a folder that is like the repository."""
    command = [sys.executable, str(folder / "docs" / "generate_values.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_charts_table_of_values_is_current() -> None:
    done = generate_values(ROOT, "--check")

    assert done.returncode == 0, done.stderr


def test_the_page_of_the_command_line_is_current() -> None:
    command = [sys.executable, str(ROOT / "docs" / "generate_cli.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", [*DOCS, *RESULTS], ids=lambda path: path.name)
def test_every_page_is_in_the_navigation_of_the_site(page: Path) -> None:
    name = f"benchmarks/{page.name}" if page in RESULTS else page.name
    assert f"- {name}\n" in (ROOT / "mkdocs.yml").read_text()


def test_the_table_of_values_is_made_of_comments(tmp_path: Path) -> None:
    chart = tmp_path / "charts" / "django-task-operator"
    chart.mkdir(parents=True)
    (tmp_path / "docs").mkdir()
    shutil.copy(ROOT / "docs" / "generate_values.py", tmp_path / "docs")
    readme = "# Chart\n\n| value | default | meaning |\n|---|---|---|\n{}\nAfter it.\n"
    (chart / "README.md").write_text(readme.format("| `old` | `1` | Of no use |\n"))
    values = (
        "# About the file.\n\nimage:\n  # Its tag, `a|b`,\n  # or another\n  tag: ''\n"
        "# Where it runs\n# Default: everywhere\nnodes: [a, b]\n\n# How many\nreplicas: 1\n"
    )
    (chart / "values.yaml").write_text(values)

    refused = generate_values(tmp_path, "--check")
    assert "not current" in refused.stderr
    assert generate_values(tmp_path).returncode == 0
    rows = (
        '| `image.tag` | `""` | Its tag, `a\\|b`, or another |\n'
        "| `nodes` | everywhere | Where it runs |\n"
        "| `replicas` | `1` | How many |\n"
    )
    assert (chart / "README.md").read_text() == readme.format(rows)
    assert generate_values(tmp_path, "--check").returncode == 0

    (chart / "values.yaml").write_text(f"{values}\nlogLevel: info\n")
    assert generate_values(tmp_path).stderr.startswith("logLevel: say in a comment above it")


def test_every_metric_of_the_metrics_api_is_in_its_page() -> None:
    text = (ROOT / "docs" / "scaling-with-the-hpa.md").read_text()
    assert all(f"| `{metric}` |" in text for metric in METRICS)


def rows(page: Path) -> dict[str, list[str]]:
    """The rows of a page's tables, by their first cell."""
    found = re.findall(r"^\| (.*) \|$", page.read_text(), re.MULTILINE)
    return {cells[0]: cells[1:] for cells in (row.split(" | ") for row in found)}


def test_what_is_said_of_keda_was_measured() -> None:
    said = rows(ROOT / "docs" / "why-not-keda.md")
    results = ROOT / "benchmarks" / "results"
    scaling, footprint = (rows(results / f"{name}.md") for name in ("scaling", "footprint"))

    for row, ours in (
        ("50 rows, 0 -> 5", "driver Operator, 50 rows, 0 -> 5"),
        ("200 rows, 0 -> 20 (driver `HPA`)", "driver HPA, 200 rows, 0 -> 20"),
        ("1,000 rows, 0 -> 100", "driver Operator, 1,000 rows, 0 -> 100"),
    ):
        _, p50, p95, _, _, keda, tuned = scaling[ours]
        assert said[row] == [f"{p50} / {p95}", keda, tuned]
    active, theirs = (
        footprint["active: a row a second in each queue"],
        footprint["KEDA 2.20.2 on the same cluster"],
    )
    assert said["memory, MiB"] == [active[1], theirs[1]]
    assert said["queries a minute"] == [active[2], theirs[2]]
    text = (results / "sample.md").read_text().partition("## mariadb")[0]
    line = re.search(r"^\| and 1,000,000 ready in one queue \| yes \| (.*) \|$", text, re.MULTILINE)
    assert line
    operator, *_, trigger, _ = line[1].split(" | ")
    assert said["the operator, for 50 workers at once"] == [operator]
    assert said["one trigger's query, with the same index"] == [trigger]
