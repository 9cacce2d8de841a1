"""What `helm test` runs: its pod, and the script in it against a server with the operator's metrics."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from tests.chart.test_chart import CHART, VALUE_SETS, helm, one, render

from django_task_operator.contract import Metric

if TYPE_CHECKING:
    from collections.abc import Iterator

LONG_S = "60"


def pod(values: dict[str, Any] | None = None) -> dict[str, Any]:
    (found,) = render(values, "test", release="ours", namespace="ops")
    return found


def run(url: str, limit_s: str) -> subprocess.CompletedProcess[str]:
    """What the pod runs, with this URL and limit instead of its own."""
    (container,) = pod()["spec"]["containers"]
    python, flag, script, *_ = container["command"]
    assert (python, flag) == ("python", "-c")
    command = [sys.executable, flag, script, url, limit_s]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def metrics(leader: int) -> bytes:
    registry = CollectorRegistry()
    Gauge(Metric.LEADER, "1 while this operator is the leader", registry=registry).set(leader)
    return generate_latest(registry)


@contextmanager
def serving(*leader: int) -> Iterator[str]:
    """The URL of an operator that is the leader or not, request for request; the last one is repeated."""
    left = list(leader)

    class Operator(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = metrics(left.pop(0) if len(left) > 1 else left[0])
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Operator) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/metrics"
        finally:
            server.shutdown()
            thread.join()


def test_passes_when_the_leader_answers() -> None:
    with serving(1) as url:
        done = run(url, LONG_S)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{url}: the operator leads and answers\n"


def test_waits_for_a_leader() -> None:
    with serving(0, 0, 1) as url:
        done = run(url, LONG_S)

    assert done.returncode == 0, done.stderr


def test_fails_when_what_answers_does_not_lead() -> None:
    with serving(0) as url:
        done = run(url, "0")

    assert done.returncode == 1
    assert done.stderr.startswith(f"{url}: what answers does not lead: see ")


def test_fails_when_nothing_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    done = run(f"http://127.0.0.1:{port}/metrics", "0")

    assert done.returncode == 1
    assert "nothing answers" in done.stderr
    assert "Traceback" not in done.stderr


def test_fails_when_something_else_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"220 mail.example.org\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        done = run(f"http://127.0.0.1:{server.getsockname()[1]}/metrics", "0")
        thread.join()

    assert done.returncode == 1
    assert "nothing answers" in done.stderr
    assert "Traceback" not in done.stderr


def test_asks_the_service_of_the_leader() -> None:
    (service,) = render({}, "service", release="ours", namespace="ops")
    (container,) = pod()["spec"]["containers"]
    (port,) = service["spec"]["ports"]

    assert container["command"][3:] == [
        f"http://{service['metadata']['name']}.ops.svc:{port['port']}/metrics",
        "120",
    ]
    assert service["spec"]["selector"]["djangotasks.dev/leader"]
    assert helm("template", "a", "charts/django-task-operator", values={}).returncode == 0


@pytest.mark.parametrize("values", [{}, VALUE_SETS["everything"]], ids=["defaults", "everything"])
def test_its_pod_is_like_the_operators_but_counts_as_none(values: dict[str, Any]) -> None:
    deployment = one(render(values, "deployment", release="ours"), "Deployment")["spec"]
    like = deployment["template"]["spec"]
    (test,), operator = pod(values)["spec"]["containers"], like["containers"][0]
    spec, labels = pod(values)["spec"], pod(values)["metadata"]["labels"]

    same = ("securityContext", "imagePullSecrets", "nodeSelector", "tolerations")
    assert {key: spec.get(key) for key in same} == {key: like.get(key) for key in same}
    same = ("image", "imagePullPolicy", "resources", "securityContext")
    assert {key: test[key] for key in same} == {key: operator[key] for key in same}
    assert spec["automountServiceAccountToken"] is False
    assert not deployment["selector"]["matchLabels"].items() <= labels.items()


def test_it_is_a_test_and_nothing_that_is_installed() -> None:
    values = {"commonLabels": {"team": "platform"}, "commonAnnotations": {"example.org/owner": "ada"}}
    metadata = pod(values)["metadata"]

    assert (
        metadata["annotations"].items()
        >= {
            "helm.sh/hook": "test",
            "example.org/owner": "ada",
        }.items()
    )
    assert metadata["labels"]["team"] == "platform"
    assert not any(manifest["kind"] == "Pod" for manifest in render(values))


def test_without_the_service_there_is_no_test() -> None:
    done = helm("template", "a", str(CHART), values={"metrics": {"service": False}})

    assert done.returncode == 0
    assert "kind: Pod\n" not in done.stdout
