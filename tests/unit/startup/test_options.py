from __future__ import annotations

import socket
from datetime import timedelta
from typing import Any

import pytest

from django_task_operator.metrics_api.serving import Settings
from django_task_operator.resources import RuntimeSource
from django_task_operator.spec import Key
from django_task_operator.startup.options import Options
from django_task_operator.tasktable import Networks

POD = {"POD_NAME": "operator-1", "POD_NAMESPACE": "ops"}
METRICS_API = Settings(
    namespace="ops",
    service="metrics",
    port=8443,
    owner="",
    secret="",
    directory="",
    validity=timedelta(days=90),
)


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ("", {}),
        ("--watch-namespace shop --watch-namespace blog", {"watch_namespaces": ("shop", "blog")}),
        ("--port 9000", {"port": 9000}),
        ("--runtime-image worker:1", {"runtime": RuntimeSource("worker:1")}),
        (
            "--runtime-image worker:1 --runtime-revision abc",
            {"runtime": RuntimeSource("worker:1", "abc")},
        ),
        ("--pod-security restricted", {}),
        (
            "--runtime-image worker:1 --pod-security platform",
            {"runtime": RuntimeSource("worker:1", run_as_user=None)},
        ),
        ("--restrict-pod-templates", {"restrict_pod_templates": True}),
        (
            "--allow-database-network 10.0.0.0/8 --refuse-database-network 10.1.0.0/16",
            {"database_networks": Networks.parse(["10.0.0.0/8"], ["10.1.0.0/16"])},
        ),
        ("--kubeconfig /tmp/config", {"kubeconfig": "/tmp/config"}),
        ("--lease operator", {"lease": Key(namespace="ops", name="operator")}),
        ("--hash-key-secret kept", {"hash_key": Key(namespace="ops", name="kept")}),
        ("--log-level debug --log-format text", {"log_level": "debug", "log_format": "text"}),
        ("--metrics-api-service metrics", {"metrics_api": METRICS_API}),
        (
            (
                "--metrics-api-service=metrics --metrics-api-port=443 --metrics-api-owner=role"
                " --metrics-api-secret=kept --metrics-api-certificate-directory=/certs"
                " --metrics-api-certificate-hours=1.5"
            ),
            {
                "metrics_api": Settings(
                    namespace="ops",
                    service="metrics",
                    port=443,
                    owner="role",
                    secret="kept",
                    directory="/certs",
                    validity=timedelta(minutes=90),
                )
            },
        ),
    ],
)
def test_each_option(arguments: str, options: dict[str, Any]) -> None:
    assert Options.parse(arguments.split(), POD) == Options(**{"instance": "operator-1", **options})


def test_a_network_that_is_refused_is_refused_with_the_api_servers_address() -> None:
    pod = {**POD, "KUBERNETES_SERVICE_HOST": "10.96.0.1"}
    options = Options.parse(["--refuse-database-network=127.0.0.0/8"], pod)
    assert options.database_networks == Networks.parse([], ["127.0.0.0/8", "10.96.0.1"])
    # Whoever lets the operator connect to everything gets that.
    assert Options.parse([], pod).database_networks == Networks()


def test_outside_of_a_pod() -> None:
    options = Options.parse(["--metrics-api-service", "metrics"], {})

    assert options.instance == socket.gethostname()
    assert options.metrics_api
    assert options.metrics_api.namespace == "default"


@pytest.mark.parametrize(
    ("arguments", "environment", "said"),
    [
        ("--lease operator", {}, "--lease: set POD_NAME and POD_NAMESPACE"),
        ("--lease operator", {"POD_NAME": "operator-1"}, "--lease: set POD_NAME and POD_NAMESPACE"),
        ("--port http", POD, "argument --port: invalid int value: 'http'"),
        ("--log-format xml", POD, "argument --log-format: invalid choice: 'xml'"),
        ("--nothing", POD, "unrecognized arguments: --nothing"),
    ],
)
def test_what_cannot_be(
    arguments: str, environment: dict[str, str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        Options.parse(arguments.split(), environment)

    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_every_option_says_what_it_is_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        Options.parse(["--help"], POD)

    assert ended.value.code == 0
    assert "the port that serves /healthz, /readyz and /metrics" in capsys.readouterr().out
