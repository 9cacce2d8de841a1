"""The whole thing in a cluster: the operator from its chart and image, a PostgreSQL, and workers in pods."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.e2e.harness import Api, TaskWorker, Unavailable
from tests.e2e.postgres import Database, Server
from tests.e2e.release import NAMESPACE, Release, conditions, is_kind
from tests.waiting import PATIENTLY

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from tests.conftest import Kubectl, Once

PROJECT = Path(__file__).parent / "project"
# The pods run the project from a ConfigMap in the example's image, which has all that it imports.
FILES = [
    {"key": path.name, "path": path.name if path.name == "manage.py" else f"tests/e2e/project/{path.name}"}
    for path in PROJECT.glob("*.py")
]
SPEC: dict[str, Any] = {
    "image": "shop:dev",
    "workingDir": "/project",
    "intervalSeconds": 0.2,
    "env": [{"name": "DJANGO_SETTINGS_MODULE", "value": "tests.e2e.project.settings"}],
    "database": {"urlSecretRef": {"name": "database"}},
    "scaling": {
        "maxReplicas": 3,
        "tasksPerReplica": 1,
        "pollIntervalSeconds": 0.5,
        "scaleDownDelaySeconds": 1,
    },
    "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}},
    "terminationGracePeriodSeconds": 10,
    "podTemplate": {
        "spec": {
            "containers": [
                {"name": "worker", "volumeMounts": [{"name": "project", "mountPath": "/project"}]}
            ],
            "volumes": [{"name": "project", "configMap": {"name": "project", "items": FILES}}],
        }
    },
}


# The taint of the nodes in cluster/spare-nodes.yaml.
SPARE = "djangotasks.dev/spare"


def is_spare(node: dict[str, Any]) -> bool:
    """Whether a node is there for tests that drain and kill it."""
    return any(taint["key"] == SPARE for taint in node["spec"].get("taints", ()))


@pytest.fixture(scope="session")
def api(kubeconfig: Path) -> Api:
    return Api(kubeconfig)


@pytest.fixture(scope="session")
def installed(kubectl: Kubectl, api: Api, once: Once) -> Release:
    release = Release(kubectl.within(NAMESPACE), api)
    once("operator", release.install)
    return release


@pytest.fixture
def only_node(api: Api) -> str:
    """The node on which everything runs: the others, if there are any, are spare."""
    nodes = [item for item in api.items("/api/v1/nodes") if not is_spare(item)]
    node, *others = (str(item["metadata"]["name"]) for item in nodes)
    if others:
        pytest.skip("only a cluster of one node is nobody else's")
    return node


@pytest.fixture
def kind_node(only_node: str) -> str:
    """The only node, where that is a container here: what runs in it can be stopped and killed."""
    if not is_kind(only_node):
        pytest.skip("only a kind cluster lets us reach into its node")
    return only_node


@pytest.fixture
def operator(installed: Release) -> Iterator[Release]:
    """The operator, which runs again after the test whatever that did to it."""
    yield installed
    if not installed.pods:
        installed.install()
        installed.start()


@pytest.fixture(scope="session")
def server(kubectl: Kubectl, once: Once) -> Server:
    """The PostgreSQL of all tests. It stays: a second run finds it."""
    name = "e2e-postgres"

    def start() -> None:
        if kubectl.run("get", "namespace", name).returncode != 0:
            kubectl("create", "namespace", name)
        Server.start(kubectl.within(name)).make_template()

    once("postgres", start)
    return Server.start(kubectl.within(name))


@pytest.fixture
def namespace(kubectl: Kubectl, namespace: str) -> str:
    """The test's own namespace, with the project, under the strictest Pod Security Standard."""
    here = kubectl.within(namespace)
    here("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    here("create", "configmap", "project", *(f"--from-file={path}" for path in PROJECT.glob("*.py")))
    here("wait", "--for=create", "serviceaccount/default", PATIENTLY)
    return namespace


@pytest.fixture
def database(server: Server, here: Kubectl) -> Iterator[Database]:
    """A migrated database of the test's own, which the Secret `database` names."""
    with server.database() as database:
        put_secret(here, "database", DATABASE_URL=database.url)
        yield database
        # No test needs to wait until the database is gone.
        here("delete", "djtw", "--all", "--wait=false")


@pytest.fixture
def here(kubectl: Kubectl, namespace: str) -> Kubectl:
    """kubectl in the test's namespace."""
    return kubectl.within(namespace)


@pytest.fixture
def make_worker(operator: Release, here: Kubectl, api: Api, namespace: str) -> Callable[..., TaskWorker]:
    """Makes a DjangoTaskWorker; what is given is laid over ``SPEC``."""

    def make(name: str = "worker", **spec: Any) -> TaskWorker:
        here("create", "--filename=-", manifest=manifest(name, **spec))
        return TaskWorker(here, api, namespace, name)

    return make


def manifest(name: str, **spec: Any) -> dict[str, Any]:
    scaling = {**SPEC["scaling"], **spec.pop("scaling", {})}
    return {
        "apiVersion": "djangotasks.dev/v1alpha1",
        "kind": "DjangoTaskWorker",
        "metadata": {"name": name},
        "spec": {**SPEC, "scaling": scaling, **spec},
    }


def put_secret(kubectl: Kubectl, name: str, **values: str) -> None:
    """Make a Secret, or change it to hold exactly these values."""
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": values}
    if kubectl.run("replace", "--filename=-", manifest=secret).returncode != 0:
        kubectl("create", "--filename=-", manifest=secret)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Its cluster takes a while to recover: nobody should come after.
    items.sort(key=lambda item: "api_server" in getattr(item, "fixturenames", ()))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    values = getattr(item, "funcargs", {})
    if report.failed and call.when != "teardown" and {"namespace", "kubectl"} <= values.keys():
        kubectl, namespace = values["kubectl"], values["namespace"]
        report.sections += _explain(kubectl.within(namespace), namespace)
    return report


def _explain(here: Kubectl, namespace: str) -> Iterator[tuple[str, str]]:
    """What a person asks first when a test has failed."""
    try:
        workers = json.loads(here.run("get", "djtw", "--output=json").stdout or '{"items": []}')["items"]
    except (Unavailable, ValueError) as error:
        workers = []
        yield "cluster", repr(error)
    for worker in workers:
        yield f"conditions of {worker['metadata']['name']}", conditions(worker)
    yield "objects", here.run("get", "djtw,deployments,pods", "--output=wide").stdout
    yield "events", here.run("get", "events", "--sort-by=.metadata.creationTimestamp").stdout
    everything = here.within(NAMESPACE).run(
        "logs", f"--selector=app.kubernetes.io/name={NAMESPACE}", "--tail=2000"
    )
    lines = [
        line for line in everything.stdout.splitlines() if namespace in line or '"level": "error"' in line
    ]
    yield "operator's log of this namespace", "\n".join(lines[-60:])
    pods = here.run("logs", "--selector=app.kubernetes.io/component=task-worker", "--tail=20", "--prefix")
    yield "pods' logs", pods.stdout + pods.stderr
