"""Fixtures for tests that need a cluster: kubectl, the CRD, and a namespace for each test."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
import uuid
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import settings
from tests.waiting import PATIENCE_S, PATIENTLY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parent.parent
CRDS = ROOT / "crds"

# How hard the properties are tried: the same examples each time, so that a failure is the change's. Here,
# because a test takes the profile of the moment in which its module is imported, from wherever that is.
settings.register_profile("repeatable", max_examples=60, deadline=None, derandomize=True, database=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--kubeconfig",
        type=Path,
        default=ROOT / "build" / "kubeconfig",
        help="the cluster that the tests use (default: the one that `make cluster` makes)",
    )


def pytest_configure() -> None:
    # If a run is ended, even in the background, where Ctrl+C is ignored, fixtures still end their servers.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "kubeconfig" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.cluster)


class Once:
    """Does something once in a whole test run, however many processes it has; the other processes wait."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder

    def __call__(self, what: str, do: Callable[[], object]) -> None:
        with (self._folder / f"{what}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            done = self._folder / what
            if not done.exists():
                do()
                done.touch()


@pytest.fixture(scope="session")
def once(testrun_uid: str) -> Once:
    return Once(Path(tempfile.gettempdir()) / f"django-task-operator-{testrun_uid}")


def tool(name: str) -> str:
    """The path of a command-line tool, preferring the one in build/bin."""
    found = shutil.which(name, path=f"{ROOT / 'build' / 'bin'}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        pytest.fail(f"there is no {name}: `make test` gets it", pytrace=False)
    return found


@dataclass(frozen=True)
class Kubectl:
    """kubectl for one cluster and, if given, one namespace."""

    kubeconfig: Path
    namespace: str | None = None

    def within(self, namespace: str) -> Kubectl:
        return replace(self, namespace=namespace)

    def run(self, *args: str, manifest: object = None) -> subprocess.CompletedProcess[str]:
        """Run it and return the result, even of a failure. For a manifest on standard input, add `-f -`."""
        where = [f"--namespace={self.namespace}"] if self.namespace else []
        return subprocess.run(
            [tool("kubectl"), f"--kubeconfig={self.kubeconfig}", *where, *args],
            input=None if manifest is None else yaml.safe_dump(manifest),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    def __call__(self, *args: str, manifest: object = None) -> str:
        """Return what kubectl prints; the test fails if kubectl fails."""
        done = self.run(*args, manifest=manifest)
        assert done.returncode == 0, f"kubectl {' '.join(args)}: {done.stderr}"
        return done.stdout

    def refused(self, *args: str, manifest: object = None) -> str:
        """Return kubectl's error message; the test fails if there is none."""
        done = self.run(*args, manifest=manifest)
        assert done.returncode != 0, f"kubectl {' '.join(args)} was accepted: {done.stdout}"
        return done.stderr


@pytest.fixture(scope="session")
def kubeconfig(pytestconfig: pytest.Config) -> Path:
    path: Path = pytestconfig.getoption("--kubeconfig")
    if not path.exists():
        pytest.fail(f"there is no {path}: run `make cluster` first", pytrace=False)
    return path


@pytest.fixture(scope="session")
def kubectl(kubeconfig: Path) -> Kubectl:
    return Kubectl(kubeconfig)


@pytest.fixture(scope="session")
def crd(kubectl: Kubectl, once: Once) -> dict[str, Any]:
    """The CRD from crds/, applied and served."""
    (path,) = CRDS.glob("*.yaml")
    once("crd", lambda: kubectl("apply", "--server-side", "--force-conflicts", f"--filename={path}"))
    document: dict[str, Any] = yaml.safe_load(path.read_text())
    kubectl("wait", "--for=condition=Established", PATIENTLY, f"crd/{document['metadata']['name']}")
    return document


@pytest.fixture
def namespace(kubectl: Kubectl) -> Iterator[str]:
    """A namespace that exists for one test."""
    with new_namespace(kubectl) as name:
        yield name


@contextmanager
def new_namespace(kubectl: Kubectl) -> Iterator[str]:
    """A namespace with a unique name."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    kubectl("create", "namespace", name)
    try:
        yield name
    finally:
        kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")
