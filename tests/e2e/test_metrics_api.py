"""external.metrics.k8s.io as an HPA uses it: through the API server, with the real HPA controller."""

from __future__ import annotations

import base64
import json
import socket
import ssl
import subprocess
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from cryptography import x509
from tests.conftest import ROOT, tool
from tests.e2e.harness import Api, Unavailable, always, eventually
from tests.e2e.postgres import chores
from tests.e2e.release import NAME, NAMESPACE, Release, in_node, is_kind
from tests.waiting import PATIENTLY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import Kubectl
    from tests.e2e.harness import TaskWorker
    from tests.e2e.postgres import Database

pytestmark = pytest.mark.alone

type MakeWorker = Callable[..., TaskWorker]

GROUP = "/apis/external.metrics.k8s.io/v1beta1"
API_SERVICE = "v1beta1.external.metrics.k8s.io"
API_SERVICES = "/apis/apiregistration.k8s.io/v1/apiservices"
SERVICE = f"{NAME}-metrics-api"
HOST = f"{SERVICE}.{NAMESPACE}.svc"
PENDING, DEMAND = "django_tasks_pending", "django_tasks_demand"
# Tasks that nobody claims, because no node has room for the pods.
NOWHERE = {"podTemplate": {"spec": {"nodeSelector": {"example.org/none": "here"}}}}
MANY = {"maxReplicas": 100, "tasksPerReplica": 10}


def path(namespace: str, metric: str = PENDING, selector: str = "") -> str:
    return f"{GROUP}/namespaces/{namespace}/{metric}" + (
        f"?labelSelector={quote(selector)}" if selector else ""
    )


def api_service(api: Api) -> dict[str, Any] | None:
    return api.get(f"{API_SERVICES}/{API_SERVICE}")


def is_ours_and_available(api: Api) -> bool:
    found = api_service(api)
    if found is None or found["spec"]["service"]["name"] != SERVICE:
        return False
    conditions = found.get("status", {}).get("conditions", ())
    return any(one["type"] == "Available" and one["status"] == "True" for one in conditions)


def empty(database: Database) -> None:
    """Empty the task table, as if every task had been run."""
    with database.server.connect(database.name) as connection:
        connection.execute("DELETE FROM django_tasks_database_dbtaskresult")


@pytest.fixture
def metrics(operator: Release, api: Api) -> Release:
    eventually(lambda: is_ours_and_available(api), "the APIService is available")
    return operator


class Figures:
    """The values for one namespace, as the API server returns them."""

    def __init__(self, api: Api, namespace: str) -> None:
        self._api = api
        self._namespace = namespace

    def __call__(self, selector: str = "", metric: str = PENDING) -> dict[str, str]:
        """Values by queue."""
        items = self._api.items(path(self._namespace, metric, selector))
        return {item["metricLabels"].get("queue", ""): item["value"] for item in items}

    def become(self, selector: str, expected: dict[str, str], metric: str = PENDING) -> None:
        eventually(lambda: self(selector, metric) == expected, f"{metric}{{{selector}}} is {expected}")


@pytest.fixture
def figures(metrics: Release, api: Api, namespace: str) -> Figures:
    return Figures(api, namespace)


def test_figures_by_worker_queue_and_database(
    figures: Figures, make_worker: MakeWorker, database: Database, here: Kubectl, namespace: str
) -> None:
    database.enqueue(chores.add, 1, 2, times=3, queue="a")
    database.enqueue(chores.add, 1, 2, times=25, queue="b")
    make_worker("named", queues=["a", "c"], scaling=MANY, **NOWHERE)
    make_worker("every", queues=["*"], scaling=MANY, **NOWHERE)
    figures.become("worker=named", {"a": "3", "c": "0"})
    figures.become("worker=every", {"a": "3", "b": "25"})
    assert figures("worker in (named,other),queue notin (c)", DEMAND) == {"a": "3"}
    assert figures("worker=every,queue=z", DEMAND) == {"z": "0"}
    assert figures("database=other") == {}
    assert float(figures("worker=every,queue=b", "django_tasks_oldest_pending_seconds")["b"][:-1]) > 0

    listed = json.loads(here("get", "--raw", path(namespace, DEMAND, "worker=named,queue=a")))
    assert listed["kind"] == "ExternalMetricValueList"
    assert listed["items"][0]["metricLabels"] == {"worker": "named", "queue": "a", "database": "database"}
    assert "postgres" not in json.dumps(listed)

    empty(database)
    figures.become("worker=named", {"a": "0", "c": "0"})
    figures.become("worker=every,queue=b", {"b": "0"})
    here("delete", "djtw/named")
    figures.become("worker=named", {})


def test_discovery_and_refusals(metrics: Release, kubectl: Kubectl, namespace: str) -> None:
    discovered = json.loads(kubectl("get", "--raw", GROUP))
    assert {resource["name"] for resource in discovered["resources"]} >= {PENDING, DEMAND}
    assert PENDING in kubectl("api-resources", "--api-group=external.metrics.k8s.io")
    assert "True" in kubectl("get", "apiservice", API_SERVICE)
    specification = json.loads(kubectl("get", "--raw", "/openapi/v3" + GROUP))
    assert any("ExternalMetricValueList" in name for name in specification["components"]["schemas"])

    assert "NotFound" in kubectl.refused("get", "--raw", path(namespace, "django_tasks_unheard_of"))
    assert "BadRequest" in kubectl.refused("get", "--raw", path(namespace, PENDING, "a b"))
    assert "MethodNotAllowed" in kubectl.refused("create", "--raw", path(namespace), "-f", "-", manifest={})
    # The API server's own proxy does not say who asks: it comes as nobody.
    through = f"/api/v1/namespaces/{NAMESPACE}/services/https:{SERVICE}:443/proxy"
    assert "Unauthorized" in kubectl.refused("get", "--raw", through + path(namespace))
    assert kubectl("get", "--raw", f"{through}/readyz") == "ok"


@contextmanager
def forwarded(kubectl: Kubectl) -> Iterator[int]:
    """A local port that is forwarded to the server, to bypass the API server's authorization."""
    command = [tool("kubectl"), f"--kubeconfig={kubectl.kubeconfig}", f"--namespace={NAMESPACE}"]
    command += ["port-forward", f"service/{SERVICE}", ":443", "--address=127.0.0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        line = process.stdout.readline()
        try:
            yield int(line.split(" -> ")[0].rpartition(":")[2])
        finally:
            process.terminate()


def ask(port: int, context: ssl.SSLContext, request: str) -> tuple[int, bytes]:
    """Send a request; return the status of the answer, and the server's certificate."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=20) as plain,
        context.wrap_socket(plain, server_hostname=HOST) as tls,
    ):
        tls.sendall(f"{request}\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())
        answer = tls.recv(65536)
        certificate = tls.getpeercert(binary_form=True)
    assert certificate
    return int(answer.split()[1]), certificate


def test_a_service_account_reads_its_own_namespace_alone(
    metrics: Release, kubectl: Kubectl, here: Kubectl, namespace: str, tmp_path: Path
) -> None:
    account = f"system:serviceaccount:{namespace}:default"
    here("create", "rolebinding", "figures", "--clusterrole=view", f"--serviceaccount={namespace}:default")
    readable = kubectl.within(namespace)
    eventually(
        lambda: readable.run("get", "--raw", path(namespace), f"--as={account}").returncode == 0,
        "the account reads its namespace's figures",
    )
    assert "Forbidden" in kubectl.refused("get", "--raw", path("default"), f"--as={account}")

    # The same asked of the operator itself, by whoever holds the front proxy's certificate.
    pod = metrics.pod
    assert pod
    node = pod["spec"]["nodeName"]
    if not is_kind(node):
        pytest.skip("the front proxy's key can only be had from a node of kind")
    pair = tmp_path / "front-proxy.pem"
    pki = "/etc/kubernetes/pki/front-proxy-client"
    pair.write_text(in_node(node, "cat", f"{pki}.key", f"{pki}.crt"))
    secret = json.loads(metrics.kubectl("get", "secret", SERVICE, "--output=json"))
    context = ssl.create_default_context(cadata=base64.b64decode(secret["data"]["ca.crt"]).decode())
    proxy = ssl.create_default_context(cadata=base64.b64decode(secret["data"]["ca.crt"]).decode())
    proxy.load_cert_chain(pair)
    hpa = "system:serviceaccount:kube-system:horizontal-pod-autoscaler"
    with forwarded(kubectl) as port:

        def code(who: str, where: str, context: ssl.SSLContext = proxy) -> int:
            return ask(port, context, f"GET {path(where)} HTTP/1.1\r\nX-Remote-User: {who}")[0]

        assert code(hpa, "default") == 200
        assert code(account, namespace) == 200
        assert code(account, "default") == 403
        assert code("nobody", namespace) == 403
        assert code(hpa, "default", context) == 401


def test_a_users_hpa_scales_by_it_and_holds_while_it_cannot_be_had(
    figures: Figures, make_worker: MakeWorker, database: Database, here: Kubectl, api: Api, namespace: str
) -> None:
    database.enqueue(chores.add, 1, 2, times=40)
    make_worker(scaling=MANY, **NOWHERE)
    here("create", "deployment", "target", "--image=shop:dev", "--replicas=1")
    nowhere = json.dumps({"spec": {"template": NOWHERE["podTemplate"]}})
    here("patch", "deployment", "target", "--patch", nowhere)
    hpa = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "target"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "target"},
            "minReplicas": 1,
            "maxReplicas": 10,
            "behavior": {
                "scaleUp": {"policies": [{"type": "Pods", "value": 10, "periodSeconds": 15}]},
                "scaleDown": {"stabilizationWindowSeconds": 0},
            },
            "metrics": [
                {
                    "type": "External",
                    "external": {
                        "metric": {"name": DEMAND, "selector": {"matchLabels": {"worker": "worker"}}},
                        "target": {"type": "AverageValue", "averageValue": "10"},
                    },
                }
            ],
        },
    }
    here("create", "-f", "-", manifest=hpa)
    where = f"/apis/autoscaling/v2/namespaces/{namespace}/horizontalpodautoscalers/target"

    def active() -> str:
        conditions = (api.get(where) or {}).get("status", {}).get("conditions", ())
        return next((one["reason"] for one in conditions if one["type"] == "ScalingActive"), "")

    def replicas() -> int:
        found = api.get(f"/apis/apps/v1/namespaces/{namespace}/deployments/target")
        assert found
        return int(found["spec"]["replicas"])

    eventually(lambda: replicas() == 4, "the HPA scales the target for 40 tasks")
    assert active() == "ValidMetricFound"

    # Without the rows the HPA would scale in at once; while nobody can count them it must not.
    with database.server.connect(database.name) as connection:
        database.server.execute("ALTER DATABASE {name} ALLOW_CONNECTIONS false", name=database.name)
        database.end_clients("django-task-operator")
        connection.execute("DELETE FROM django_tasks_database_dbtaskresult")
    eventually(lambda: active() == "FailedGetExternalMetric", "the HPA gets an error")
    always(lambda: replicas() == 4, "the replicas are held", seconds=5)


class Stream(threading.Thread):
    """Requests values without a pause, as many HPAs would, and records what goes wrong."""

    def __init__(self, api: Api, namespace: str) -> None:
        super().__init__(daemon=True)
        self._api = api
        self._path = path(namespace)
        self._ended = threading.Event()
        self.answers = 0
        self.failures: list[str] = []

    def run(self) -> None:
        while not self._ended.is_set():
            try:
                self._api.items(self._path)
                self.answers += 1
            except Unavailable as error:
                self.failures.append(str(error))
            time.sleep(0.02)

    def end(self) -> None:
        self._ended.set()
        self.join(timeout=30)


def test_the_certificate_rotates_under_a_stream_of_requests(
    metrics: Release, api: Api, kubectl: Kubectl, kubeconfig: Path, namespace: str
) -> None:
    chart = str(ROOT / "charts" / NAME)

    def upgrade(hours: str) -> None:
        value = f"--set-json=metricsApi.certificateHours={hours}"
        metrics.helm("upgrade", NAME, chart, "--reuse-values", value, "--wait", PATIENTLY)
        eventually(lambda: is_ours_and_available(api), "the APIService is available")

    def bundle() -> set[x509.Certificate]:
        found = api_service(api)
        assert found
        return set(x509.load_pem_x509_certificates(base64.b64decode(found["spec"]["caBundle"])))

    # A certificate of 72 seconds has a successor after 48.
    upgrade("0.02")
    before = eventually(bundle, "the API server is told whom to trust")
    stream = Stream(Api(kubeconfig), namespace)
    stream.start()
    try:
        both = eventually(lambda: bundle() if len(bundle()) == 2 else None, "both authorities are trusted")
        assert before < both
        (successor,) = both - before
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

        def presented() -> bool:
            with forwarded(kubectl) as port:
                _, certificate = ask(port, context, "GET /readyz HTTP/1.1")
            return x509.load_der_x509_certificate(certificate).issuer == successor.subject

        eventually(presented, "the new certificate is presented")
        answered = stream.answers
        eventually(lambda: stream.answers > answered + 20, "requests after that")
    finally:
        stream.end()
        upgrade("2160")
    assert stream.failures == []
    assert stream.answers > 200


def test_another_adapter_is_left_alone_and_followed_once_it_is_gone(
    metrics: Release, api: Api, kubectl: Kubectl
) -> None:
    # As the installation of another adapter does, which takes the name over.
    theirs = {"namespace": "keda", "name": "keda-operator-metrics-apiserver", "port": 443}
    change = json.dumps({"spec": {"service": theirs}})
    kubectl("patch", "apiservice", API_SERVICE, "--type=merge", "--patch", change)

    def is_let_go() -> dict[str, Any] | None:
        found = api_service(api)
        return found if found and not found["metadata"].get("ownerReferences") else None

    taken = eventually(is_let_go, "the release holds it no more")
    try:
        metrics.stop()
        metrics.start()
        told = '"state": "Foreign", "service": "keda/keda-operator-metrics-apiserver"'
        eventually(lambda: told in metrics.log(), "the operator knows that it is another's")

        def untouched() -> bool:
            found = api_service(api)
            assert found
            return (found["spec"], found["metadata"]["uid"]) == (taken["spec"], taken["metadata"]["uid"])

        always(untouched, "the other adapter's APIService is as it was", seconds=3)
        assert taken["spec"]["service"] == theirs
    finally:
        kubectl("delete", "apiservice", API_SERVICE)
    eventually(lambda: is_ours_and_available(api), "ours comes back")


def test_uninstall_leaves_no_apiservice(metrics: Release, api: Api, kubectl: Kubectl) -> None:
    metrics.uninstall()
    try:
        eventually(lambda: api_service(api) is None, "the APIService is gone")
        left = kubectl(
            *("get", "clusterroles,clusterrolebindings,roles,rolebindings,secrets,services"),
            *("--all-namespaces", "--output=name", f"--selector=app.kubernetes.io/name={NAME}"),
        )
        assert left == ""
    finally:
        metrics.install()
    eventually(lambda: is_ours_and_available(api), "the APIService is available again")
