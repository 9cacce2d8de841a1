"""A real Prometheus scrapes an operator and a worker, in the way that the chart has it done.

Both do real work on one PostgreSQL. Only the API server is a fake, so this needs no cluster. What counts the
requests to it is the client, which therefore sends a few to another server.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import re
import threading
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import yaml
from aiohttp import web
from kubernetes.aio.client.exceptions import ApiException
from tests import prometheus
from tests.chart.test_alerts import ALERTS, RULES_FILE
from tests.chart.test_chart import one, render
from tests.chart.test_dashboards import DASHBOARDS, QUERIES
from tests.conftest import ROOT
from tests.databases import USER, free_port, running_postgres
from tests.unit.fakes import FakeKube, Permit, worker_manifest
from tests.waiting import PATIENCE_S, eventually
from tests.worker.harness import Project, get

from django_task_operator.cluster.kube import Kube
from django_task_operator.startup import probes
from django_task_operator.startup.options import Options
from django_task_operator.startup.wiring import Outside, assemble
from django_task_operator.tasktable import Databases, Networks, TaskTable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.prometheus import Prometheus

NAMESPACE, WORKER, POD = "shop", "emails", "emails-5d9f-podax"
# Port 9 is that of "discard": nobody listens.
LOST_URL = "postgresql://ada:hunter2@127.0.0.1:9/shop"
# On every series that Prometheus scrapes, beside the labels of the page.
OF_TARGETS = {"instance", "job", "pod", "namespace"}
# Rates look back for a minute, so that a busy machine may take its time.
EVERY = "1s"


class Operator:
    """The whole operator, in a thread."""

    def __init__(self, url: str) -> None:
        self.kube = FakeKube()
        self.port = free_port()
        self._put_secret("shop-db", url)
        self._put_secret("lost-db", LOST_URL)
        every: dict[str, Any] = {
            # Named, so that it has series even without tasks.
            "queues": ["default"],
            "scaling": {"maxReplicas": 3, "pollIntervalSeconds": 0.5},
            "orphans": {"graceSeconds": 0},
        }
        lost: dict[str, Any] = {"database": {"urlSecretRef": {"name": "lost-db"}}}
        self.kube.create("worker", worker_manifest(WORKER, NAMESPACE, uid="uid-1", **every))
        self.kube.create("worker", worker_manifest("lost", NAMESPACE, uid="uid-2", **lost))
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(),))

    def _put_secret(self, name: str, url: str) -> None:
        data = {"DATABASE_URL": base64.b64encode(url.encode()).decode()}
        self.kube.create("secrets", {"metadata": {"name": name, "namespace": NAMESPACE}, "data": data})

    async def _run(self) -> None:
        operator = assemble(
            Options(instance="operator-1", watch_namespaces=(NAMESPACE,)),
            Outside(
                kube=self.kube,  # type: ignore[arg-type]
                permit=Permit(),
                elector=None,
                databases=Databases(open_table=functools.partial(TaskTable, networks=Networks())),
                watch_workers=self.kube.watch_workers,
            ),
        )
        server = await probes.serve(
            self.port, alive=lambda: operator.is_alive, ready=lambda: operator.is_ready
        )
        try:
            await operator.run(self._stopping)
        finally:
            await server.cleanup()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        self._thread.start()
        try:
            self.has_a_pod()
            yield
        finally:
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(PATIENCE_S)
            self._loop.close()

    def has_a_pod(self) -> None:
        """Do what a cluster does once there is a Deployment that wants pods."""

        def wants() -> bool:
            found = self.kube.read("deployments", NAMESPACE, WORKER)
            return found is not None and found["spec"]["replicas"] > 0

        def run() -> None:
            self.kube.run_deployment(NAMESPACE, WORKER)
            (name,) = self.kube.run_pods(NAMESPACE, WORKER, 1)
            assert name == POD

        eventually(wants, "the Deployment wants a pod")
        self._loop.call_soon_threadsafe(run)


async def some_requests(folder: Path) -> None:
    """Let the operator's client make requests that are answered, and one that is refused."""

    async def answer(request: web.Request) -> web.Response:
        refused = "secrets" in request.path
        return web.json_response({"items": [], "message": "no"}, status=403 if refused else 200)

    app, port = web.Application(), free_port()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(
        yaml.safe_dump(
            {
                "current-context": "a",
                "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
                "clusters": [{"name": "a", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
                "users": [{"name": "a", "user": {}}],
            }
        )
    )
    kube = await Kube.connect(str(kubeconfig))
    try:
        await kube.list_workers(None)
        with pytest.raises(ApiException):
            await kube.get_secret(NAMESPACE, "shop-db")
    finally:
        await kube.close()
        await runner.cleanup()


def scraped(monitor: dict[str, Any], endpoint: dict[str, Any], port: int, **labels: str) -> dict[str, Any]:
    """What the Prometheus Operator makes of a monitor of the chart, for a target that we know already."""
    named = {"sourceLabels": "source_labels", "targetLabel": "target_label"}
    return {
        "job_name": monitor["metadata"]["name"],
        "metrics_path": endpoint["path"],
        "honor_labels": endpoint.get("honorLabels", False),
        "relabel_configs": [
            {named[name]: value for name, value in rule.items()} for rule in endpoint.get("relabelings", ())
        ],
        "static_configs": [{"targets": [f"127.0.0.1:{port}"], "labels": labels}],
    }


def configuration(operator_port: int, worker_port: int) -> dict[str, Any]:
    manifests = render({name: {"enabled": True} for name in ("serviceMonitor", "podMonitor")})
    operator, workers = one(manifests, "ServiceMonitor"), one(manifests, "PodMonitor")
    (endpoint,) = operator["spec"]["endpoints"]
    (pods,) = workers["spec"]["podMetricsEndpoints"]
    pod = {"namespace": NAMESPACE, "pod": POD, "__meta_kubernetes_pod_label_djangotasks_dev_worker": WORKER}
    return {
        "global": {"scrape_interval": EVERY, "scrape_timeout": EVERY, "evaluation_interval": EVERY},
        "rule_files": [str(RULES_FILE)],
        "scrape_configs": [
            scraped(operator, endpoint, operator_port, namespace="ops", pod="operator-1"),
            scraped(workers, pods, worker_port, **pod),
        ],
    }


def lose_a_task(url: str) -> None:
    """Let a task be RUNNING in a pod that is gone."""
    with psycopg.connect(url, autocommit=True) as connection:
        done = connection.execute(
            "UPDATE django_tasks_database_dbtaskresult SET status = 'RUNNING', finished_at = NULL,"
            """ worker_ids = '["emails-5d9f-gone0/1.1"]' WHERE id ="""
            " (SELECT id FROM django_tasks_database_dbtaskresult WHERE status = 'SUCCESSFUL' LIMIT 1)"
        )
        assert done.rowcount == 1


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus, after tasks have succeeded, failed and been lost while it watched."""
    folder, port = tmp_path_factory.mktemp("prometheus"), free_port()
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(running_postgres())
        project = Project(server.url())
        stack.callback(project.close)
        project.migrate()
        worker = project.worker("--queue-name=*", "--interval=0.1", f"--health-port={port}", DB_WORKER_ID=POD)
        stack.callback(worker.kill)
        project.enqueue("nap", 0.01)
        gate = folder / "gate"
        stack.callback(gate.touch)
        project.enqueue("hold", str(gate))
        operator = Operator(server.url())
        stack.enter_context(operator.running())
        eventually(lambda: get(port, "/readyz")[0] == 200, "the worker is ready")
        asyncio.run(some_requests(folder))
        found = stack.enter_context(prometheus.running(folder, configuration(operator.port, port)))
        # Rates need a value from before, and are that of the time since.
        eventually(lambda: len(found.query("up == 1")) == 2, "both are scraped", every_s=0.2)
        gate.touch()
        lose_a_task(server.url())
        project.enqueue("nap", 0.01, times=10)
        project.enqueue("fail", "x", times=3)
        project.all_finished(14)
        yield found


def documented() -> dict[str, tuple[str, set[str]]]:
    """Each metric of docs/metrics.md: its type and labels."""
    rows = re.findall(
        r"^\| `(\w+)` \| (\w+) \| ([^|]*)\|", (ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE
    )
    return {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}


def test_both_are_scraped(seen: Prometheus) -> None:
    def healthy() -> bool:
        targets = seen.api("targets")["activeTargets"]
        return len(targets) == 2 and all(target["health"] == "up" for target in targets)

    eventually(healthy, "both are up", every_s=0.2)
    # Of both pages: the labels by which the alerts join them. A scrape that is too slow leaves no value
    # until the next one.
    slots = "sum by (namespace, worker) (django_db_worker_slots)"
    (series,) = eventually(lambda: seen.query(slots), "the worker's page is there", every_s=0.2)
    assert series["metric"] == {"namespace": NAMESPACE, "worker": WORKER}
    pending = eventually(lambda: seen.query("django_tasks_pending"), "the operator's page is", every_s=0.2)
    assert {each["metric"]["worker"] for each in pending} == {WORKER, "lost"}


@pytest.mark.parametrize("name", documented())
def test_a_metric_is_as_documented(seen: Prometheus, name: str) -> None:
    kind, labels = documented()[name]
    queried = f"{name}_bucket" if kind == "histogram" else name

    series = eventually(lambda: seen.query(queried), f"{name} has a value", every_s=0.2)

    theirs = {label for each in series for label in each["metric"]} - {"__name__", "le"}
    assert theirs - OF_TARGETS - {"worker"} == labels - OF_TARGETS - {"worker"}
    assert labels <= theirs
    # In the text format, a counter's type belongs to its whole name.
    (described,) = {each["type"] for each in seen.api("targets/metadata", metric=name)}
    assert described == kind


def test_nothing_is_scraped_that_is_not_documented(seen: Prometheus) -> None:
    known = {
        f"{name}{suffix}"
        for name, (kind, _) in documented().items()
        for suffix in (("_bucket", "_sum", "_count") if kind == "histogram" else ("",))
    }

    def ours() -> set[str]:
        names = seen.api("label/__name__/values")
        return {name for name in names if not name.startswith(("scrape_", "up", "ALERTS"))}

    eventually(lambda: known <= ours(), "each has a value", every_s=0.2)
    assert ours() - known == set()


def test_no_label_tells_where_a_database_is(seen: Prometheus) -> None:
    values = {value for name in seen.api("labels") for value in seen.api(f"label/{name}/values")}

    values -= {each["metric"]["instance"] for each in seen.query("up")}
    assert {"shop-db", "lost-db"} <= values
    told = values & {"ada", USER} | {
        value for value in values for part in ("127.0.0.1", "hunter2", "://") if part in value
    }
    assert told == set()


@pytest.mark.parametrize("alert", ALERTS)
def test_prometheus_evaluates_every_alert(seen: Prometheus, alert: str) -> None:
    def health() -> str:
        (group,) = seen.api("rules")["groups"]
        (rule,) = [each for each in group["rules"] if each["name"] == alert]
        return "" if rule["health"] == "unknown" else f"{rule['health']} {rule.get('lastError', '')}".strip()

    assert eventually(health, f"{alert} has been evaluated", every_s=0.2) == "ok"


def test_a_database_that_is_lost_raises_its_alert(seen: Prometheus) -> None:
    raised = 'ALERTS{alertname="DjangoTaskDatabaseUnreachable"}'

    (alert,) = eventually(lambda: seen.query(raised), "the alert is pending", every_s=0.2)

    assert (alert["metric"]["namespace"], alert["metric"]["worker"]) == (NAMESPACE, "lost")


def values_of(seen: Prometheus, query: str) -> list[str]:
    """The values that Grafana offers for a variable."""
    (series, label) = re.fullmatch(r"label_values\((.*), (\w+)\)", query).groups()  # type: ignore[union-attr]
    values: list[str] = seen.api(f"label/{label}/values", **{"match[]": series})
    return values


def filled_in(seen: Prometheus, dashboard: str, expr: str) -> str:
    """An expression as Grafana sends it, for the worker with tasks or for all of a fleet."""
    chosen = {"__rate_interval": "1m"}

    def fill(text: str) -> str:
        return re.sub(r"\$(\w+)", lambda found: chosen[found[1]], text)

    for variable in DASHBOARDS[dashboard]["templating"]["list"]:
        if variable["type"] != "query":
            continue
        values = values_of(seen, fill(variable["query"]))
        if variable["multi"]:
            assert values, variable
            chosen[variable["name"]] = f"({'|'.join(values)})"
        else:
            chosen[variable["name"]] = next(value for value in values if value in {NAMESPACE, WORKER})
    return fill(expr)


@pytest.mark.parametrize(("dashboard", "title", "expr"), QUERIES)
def test_every_query_of_a_dashboard_returns_data(
    seen: Prometheus, dashboard: str, title: str, expr: str
) -> None:
    query = filled_in(seen, dashboard, expr)

    assert eventually(lambda: seen.query(query), f"{title} has data: {query}", every_s=0.2)
