#!/usr/bin/env python3
"""Writes the chart's Grafana dashboards from a list of their panels, or checks that they are current."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent.parent / "charts" / "django-task-operator" / "files" / "dashboards"
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
# The schema of Grafana 10, which later ones migrate.
SCHEMA_VERSION = 38
TAGS = ["django-tasks"]
FLEET_UID, WORKER_UID = "django-tasks-fleet", "django-tasks-worker"
WIDTH = 24

# Which series: several operators may be scraped, of which one leads, so "max by" before anything is added up.
FLEET = 'namespace=~"$namespace"'
ONE = 'namespace="$namespace", worker="$worker"'
QUEUES = f'{ONE}, queue=~"$queue"'


@dataclass(frozen=True)
class Query:
    """A PromQL expression, and what its series are called."""

    expr: str
    legend: str = ""


def main() -> None:
    """Write both dashboards, or check them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is not current")
    check = parser.parse_args().check
    for name, dashboard in (("fleet", fleet()), ("worker", worker())):
        path = FOLDER / f"django-tasks-{name}.json"
        after = json.dumps(dashboard, indent=1) + "\n"
        if not check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(after)
        elif not path.exists() or path.read_text() != after:
            sys.exit(f"{path.name} is not current: run docs/generate_dashboards.py")


def fleet() -> dict[str, Any]:
    """All workers at a glance, and the operator itself."""
    per_worker = "max by (namespace, worker)"
    called = "{{namespace}}/{{worker}}"
    finished = f"django_db_worker_tasks_finished_total{{{FLEET}}}"
    failed = f'django_db_worker_tasks_finished_total{{status="FAILED", {FLEET}}}'
    operator = "* on (instance, job) group_left () (django_task_operator_leader == 1)"

    def of(metric: str, more: str = "") -> str:
        return f"{per_worker} ({metric}{{{more}{FLEET}}})"

    return dashboard(
        FLEET_UID,
        "Django tasks / Fleet",
        "All workers that django-task-operator manages, and the operator itself.",
        [variable("namespace", "label_values(django_task_worker_max_replicas, namespace)", several=True)],
        [
            row("Now"),
            stat("Workers", f"count({of('django_task_worker_max_replicas')})"),
            stat(
                "Workers not Ready",
                f"sum(1 - {of('django_task_worker_condition', 'condition="Ready", ')})",
                worst=1,
            ),
            stat("Tasks waiting", f"sum({of('django_tasks_pending')})"),
            stat("Tasks running", f"sum({of('django_tasks_running')})"),
            stat("Orphaned tasks", f"sum({of('django_task_worker_orphaned_tasks')})", worst=1),
            stat("Stuck tasks", f"sum({of('django_task_worker_stuck_tasks')})", worst=1),
            stat("Pods ready", f"sum({of('django_task_worker_ready_replicas')})"),
            stat("Operators that lead", "sum(django_task_operator_leader)", best=1),
            table(
                "Workers",
                {
                    "Waiting": of("django_tasks_pending"),
                    "Oldest (s)": of("django_tasks_oldest_pending_seconds"),
                    "Running": of("django_tasks_running"),
                    "Pods wanted": of("django_task_worker_desired_replicas"),
                    "Pods ready": of("django_task_worker_ready_replicas"),
                    "Most pods": of("django_task_worker_max_replicas"),
                    "Ready": of("django_task_worker_condition", 'condition="Ready", '),
                },
            ),
            row("Tasks"),
            graph("Waiting", Query(of("django_tasks_pending"), called), unit="short"),
            graph("Oldest waiting", Query(of("django_tasks_oldest_pending_seconds"), called), unit="s"),
            graph("Running", Query(of("django_tasks_running"), called), unit="short"),
            graph("Pods ready", Query(of("django_task_worker_ready_replicas"), called), unit="short"),
            graph(
                "Tasks finished per second",
                Query(f"sum by (namespace, worker) (rate({finished}[$__rate_interval]))", called),
                unit="ops",
                why="From the metrics of the workers' pods.",
            ),
            graph(
                "Failed share of the finished tasks",
                Query(
                    f"sum by (namespace, worker) (rate({failed}[$__rate_interval]))"
                    f" / sum by (namespace, worker) (rate({finished}[$__rate_interval]))",
                    called,
                ),
                unit="percentunit",
                why="From the metrics of the workers' pods.",
            ),
            row("Operator"),
            graph(
                "Turns per second",
                Query(
                    "sum by (outcome) (rate(django_task_operator_turns_total[$__rate_interval]))",
                    "{{outcome}}",
                ),
                unit="ops",
                why="A turn looks at one worker, decides, and applies. Those that failed were not foreseen.",
            ),
            graph(
                "Time of a turn",
                *quantiles("django_task_operator_turn_seconds_bucket", by="le"),
                unit="s",
            ),
            graph(
                "Decisions per second",
                Query(
                    "sum by (reason)"
                    f" (rate(django_task_worker_decisions_total{{{FLEET}}}[$__rate_interval]))",
                    "{{reason}}",
                ),
                unit="ops",
                why="The reasons of the condition ScalingActive; most decisions change nothing.",
            ),
            graph(
                "Time to count a database's tasks (p99)",
                Query(
                    "histogram_quantile(0.99, sum by (namespace, database, le)"
                    f" (rate(django_task_operator_sample_seconds_bucket{{{FLEET}}}[$__rate_interval])))",
                    "{{namespace}}/{{database}}",
                ),
                unit="s",
                why="A database is called by the name of the Secret with its URL.",
            ),
            graph(
                "Databases that could not be counted, per second",
                Query(
                    "sum by (namespace, database, reason)"
                    f" (rate(django_task_operator_sample_errors_total{{{FLEET}}}[$__rate_interval]))",
                    "{{namespace}}/{{database}} {{reason}}",
                ),
                unit="ops",
            ),
            graph(
                "Connected databases",
                Query("max(django_task_operator_connected_databases)", "connected"),
                unit="short",
            ),
            graph(
                "Requests to the API server per second",
                Query(
                    "sum by (code) (rate(django_task_operator_api_requests_total[$__rate_interval]))",
                    "{{code}}",
                ),
                unit="reqps",
            ),
            graph(
                "Memory of the leader",
                Query(f"process_resident_memory_bytes {operator}", "{{pod}}"),
                unit="bytes",
            ),
            graph(
                "Processors of the leader",
                Query(f"rate(process_cpu_seconds_total[$__rate_interval]) {operator}", "{{pod}}"),
                unit="short",
            ),
        ],
    )


def worker() -> dict[str, Any]:
    """Return the dashboard of one worker: its queues, its replicas, its pods."""

    def of(metric: str, more: str = "") -> str:
        return f"max({metric}{{{more}{ONE}}})"

    def by_queue(metric: str) -> Query:
        return Query(f"max by (queue) ({metric}{{{QUEUES}}})", "{{queue}}")

    def rate(metric: str, by: str = "", more: str = "") -> str:
        return f"sum{f' by ({by})' if by else ''} (rate({metric}{{{more}{ONE}}}[$__rate_interval]))"

    finished = "django_db_worker_tasks_finished_total"
    return dashboard(
        WORKER_UID,
        "Django tasks / Worker",
        "One DjangoTaskWorker: its queues, its replicas, and what its pods do.",
        [
            variable("namespace", "label_values(django_task_worker_max_replicas, namespace)"),
            variable(
                "worker", 'label_values(django_task_worker_max_replicas{namespace="$namespace"}, worker)'
            ),
            variable("queue", f"label_values(django_task_queue_pending_tasks{{{ONE}}}, queue)", several=True),
        ],
        [
            row("Now"),
            stat("Tasks waiting", of("django_tasks_pending")),
            stat("Oldest waiting", of("django_tasks_oldest_pending_seconds"), unit="s"),
            stat("Tasks running", of("django_tasks_running")),
            stat("Orphaned tasks", of("django_task_worker_orphaned_tasks"), worst=1),
            stat("Stuck tasks", of("django_task_worker_stuck_tasks"), worst=1),
            stat("Pods wanted", of("django_task_worker_desired_replicas")),
            stat("Pods ready", of("django_task_worker_ready_replicas")),
            stat("Ready", of("django_task_worker_condition", 'condition="Ready", '), best=1),
            row("Queues"),
            graph("Waiting", by_queue("django_task_queue_pending_tasks"), unit="short", stacked=True),
            graph("Oldest waiting", by_queue("django_task_queue_oldest_pending_seconds"), unit="s"),
            graph("Running", by_queue("django_task_queue_running_tasks"), unit="short", stacked=True),
            row("Replicas"),
            graph(
                "Replicas",
                Query(of("django_task_worker_max_replicas"), "maxReplicas"),
                Query(of("django_task_worker_desired_replicas"), "wanted"),
                Query(of("django_task_worker_ready_replicas"), "ready"),
                Query(of("django_task_worker_min_replicas"), "minReplicas"),
                unit="short",
            ),
            graph(
                "Decisions per second",
                Query(rate("django_task_worker_decisions_total", "reason"), "{{reason}}"),
                unit="ops",
                why="The reasons of the condition ScalingActive; most decisions change nothing.",
            ),
            graph(
                "Conditions",
                Query(f"max by (condition) (django_task_worker_condition{{{ONE}}})", "{{condition}}"),
                unit="short",
                why="1 is True. Stalled is the one that should be 0.",
            ),
            row("Tasks in the pods"),
            graph(
                "Tasks per second",
                Query(rate("django_db_worker_tasks_started_total"), "started"),
                Query(rate(finished, "status"), "{{status}}"),
                unit="ops",
            ),
            graph(
                "Finished per second, by task",
                Query(rate("django_db_worker_finished_by_task_total", "task"), "{{task}}"),
                unit="ops",
            ),
            graph(
                "Failed per second, by task",
                Query(
                    rate("django_db_worker_finished_by_task_total", "task", 'status="FAILED", '), "{{task}}"
                ),
                unit="ops",
            ),
            graph(
                "Time that tasks run",
                *quantiles("django_db_worker_task_duration_seconds_bucket", by="le", where=ONE),
                unit="s",
            ),
            graph(
                "Time that tasks have waited when they start",
                *quantiles("django_db_worker_task_queue_wait_seconds_bucket", by="le", where=ONE),
                unit="s",
            ),
            row("Pods"),
            graph(
                "Busy slots",
                Query(f"sum by (pod) (django_db_worker_slots_active{{{ONE}}})", "{{pod}}"),
                Query(f"sum(django_db_worker_slots{{{ONE}}})", "slots of all pods"),
                unit="short",
                why="A slot runs one task at a time. A pod has processes times threads of them.",
            ),
            graph(
                "Claims per second",
                Query(rate("django_db_worker_claims_total", "outcome"), "{{outcome}}"),
                unit="ops",
            ),
            graph(
                "Trouble per second",
                Query(rate("django_db_worker_reconnects_total"), "connections replaced"),
                Query(rate("django_db_worker_process_restarts_total"), "processes replaced"),
                Query(f"sum(django_db_worker_slots_disconnected{{{ONE}}})", "slots without a database"),
                unit="short",
            ),
        ],
    )


def quantiles(metric: str, *, by: str, where: str = "") -> list[Query]:
    """Return the queries of three quantiles of a histogram."""
    selected = f"{metric}{{{where}}}" if where else metric
    return [
        Query(f"histogram_quantile({q}, sum by ({by}) (rate({selected}[$__rate_interval])))", f"p{q * 100:g}")
        for q in (0.5, 0.95, 0.99)
    ]


def dashboard(
    uid: str, title: str, description: str, variables: list[dict[str, Any]], panels: list[dict[str, Any]]
) -> dict[str, Any]:
    """Put a dashboard together; the panels flow from left to right, in rows."""
    return {
        "uid": uid,
        "title": title,
        "description": description,
        "tags": TAGS,
        "editable": True,
        "graphTooltip": 1,
        "schemaVersion": SCHEMA_VERSION,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "links": [
            {
                "title": "Django tasks",
                "type": "dashboards",
                "tags": TAGS,
                "asDropdown": False,
                "targetBlank": False,
                "includeVars": True,
                "keepTime": True,
                "icon": "external link",
                "tooltip": "",
            }
        ],
        "templating": {
            "list": [
                {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"},
                *variables,
            ]
        },
        "panels": placed(panels),
    }


def placed(panels: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give each panel its number and its place."""
    x = y = tallest = 0
    done = []
    for number, panel in enumerate(panels, start=1):
        width, height = panel["gridPos"]["w"], panel["gridPos"]["h"]
        if x + width > WIDTH:
            x, y, tallest = 0, y + tallest, 0
        done.append({"id": number, **panel, "gridPos": {"h": height, "w": width, "x": x, "y": y}})
        x, tallest = x + width, max(tallest, height)
    return done


def variable(name: str, query: str, *, several: bool = False) -> dict[str, Any]:
    """Return a variable whose values come from a label."""
    found = {
        "name": name,
        "label": name.capitalize(),
        "type": "query",
        "datasource": DATASOURCE,
        "query": query,
        "refresh": 2,
        "sort": 1,
        "multi": several,
        "includeAll": several,
    }
    return {**found, "current": {"text": "All", "value": "$__all"}} if several else found


def row(title: str) -> dict[str, Any]:
    """Return a heading."""
    return {
        "type": "row",
        "title": title,
        "collapsed": False,
        "gridPos": {"h": 1, "w": WIDTH, "x": 0, "y": 0},
        "panels": [],
    }


def stat(
    title: str, expr: str, *, unit: str = "short", worst: float | None = None, best: float | None = None
) -> dict[str, Any]:
    """Return a number: red from ``worst`` on, or green from ``best`` on."""
    colors = [("text", None)]
    if worst is not None:
        colors = [("green", None), ("red", worst)]
    if best is not None:
        colors = [("red", None), ("green", best)]
    return {
        "type": "stat",
        "title": title,
        "datasource": DATASOURCE,
        "gridPos": {"h": 4, "w": 3, "x": 0, "y": 0},
        "fieldConfig": {
            "defaults": {
                "unit": unit,
                "color": {"mode": "thresholds"},
                "thresholds": {
                    "mode": "absolute",
                    "steps": [{"color": color, "value": value} for color, value in colors],
                },
            },
            "overrides": [],
        },
        "options": {
            "graphMode": "none",
            "colorMode": "value",
            "justifyMode": "auto",
            "textMode": "auto",
            "orientation": "auto",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        },
        "targets": [target("A", Query(expr, title))],
    }


def graph(title: str, *queries: Query, unit: str, why: str = "", stacked: bool = False) -> dict[str, Any]:
    """Return lines over time."""
    custom: dict[str, Any] = {"lineWidth": 1, "fillOpacity": 10, "showPoints": "never"}
    if stacked:
        custom |= {"fillOpacity": 40, "stacking": {"mode": "normal", "group": "A"}}
    panel = {
        "type": "timeseries",
        "title": title,
        "datasource": DATASOURCE,
        "gridPos": {"h": 8, "w": 8, "x": 0, "y": 0},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0, "custom": custom}, "overrides": []},
        "options": {
            "legend": {
                "displayMode": "list",
                "placement": "bottom",
                "showLegend": True,
                "calcs": [],
            },
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "targets": [target(chr(ord("A") + number), query) for number, query in enumerate(queries)],
    }
    return {**panel, "description": why} if why else panel


def table(title: str, columns: dict[str, str]) -> dict[str, Any]:
    """Return a table with a line for each worker, which leads to its dashboard."""
    names = {f"Value #{chr(ord('A') + number)}": name for number, name in enumerate(columns)}
    link = {
        "title": "Open this worker",
        "url": f"/d/{WORKER_UID}?var-namespace=${{__data.fields.namespace}}"
        "&var-worker=${__data.fields.worker}&var-datasource=${datasource}&${__url_time_range}",
    }
    return {
        "type": "table",
        "title": title,
        "datasource": DATASOURCE,
        "gridPos": {"h": 9, "w": WIDTH, "x": 0, "y": 0},
        "fieldConfig": {
            "defaults": {},
            "overrides": [
                {
                    "matcher": {"id": "byName", "options": "worker"},
                    "properties": [{"id": "links", "value": [link]}],
                }
            ],
        },
        "options": {"showHeader": True, "cellHeight": "sm"},
        "transformations": [
            {"id": "merge", "options": {}},
            {
                "id": "organize",
                "options": {"excludeByName": {"Time": True}, "indexByName": {}, "renameByName": names},
            },
        ],
        "targets": [
            {
                **target(chr(ord("A") + number), Query(expr)),
                "format": "table",
                "instant": True,
                "range": False,
            }
            for number, expr in enumerate(columns.values())
        ],
    }


def target(ref: str, query: Query) -> dict[str, Any]:
    """Return a query of a panel."""
    return {
        "refId": ref,
        "datasource": DATASOURCE,
        "expr": query.expr,
        "legendFormat": query.legend,
        "range": True,
        "instant": False,
    }


if __name__ == "__main__":
    main()
