"""The life of a release on a real cluster: installed, upgraded, removed, and what then remains."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from tests.conftest import ROOT, tool
from tests.waiting import PATIENCE_S, PATIENTLY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import Kubectl

pytestmark = pytest.mark.alone

CHART = ROOT / "charts" / "django-task-operator"
CRD = "crd/djangotaskworkers.djangotasks.dev"
# Of the kinds that ``names`` looks for, in the release's namespace and in none.
OBJECTS = 17
WORKER = {
    "apiVersion": "djangotasks.dev/v1alpha1",
    "kind": "DjangoTaskWorker",
    "metadata": {"name": "emails"},
    "spec": {"image": "shop:1", "database": {"urlSecretRef": {"name": "shop-db"}}},
}

type Helm = Callable[..., str]


def metadata(kubectl: Kubectl) -> dict[str, dict[str, str]]:
    """The CRD's labels and annotations, which say to which release it belongs."""
    stored = json.loads(kubectl("get", CRD, "-ojson"))["metadata"]
    return {kind: stored.get(kind, {}) for kind in ("labels", "annotations")}


@pytest.fixture
def helm(kubeconfig: Path, kubectl: Kubectl, namespace: str, crd: dict[str, Any]) -> Iterator[Helm]:
    """Helm in the test's namespace. Afterwards the CRD is given back to the release that had it."""
    before = metadata(kubectl)

    def run(*args: str) -> str:
        command = [tool("helm"), f"--kubeconfig={kubeconfig}", f"--namespace={namespace}", *args]
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=True).stdout

    yield run
    changed = {kind: dict.fromkeys(now, None) | before[kind] for kind, now in metadata(kubectl).items()}
    kubectl("patch", CRD, "--type=merge", "--patch", json.dumps({"metadata": changed}))


@pytest.fixture
def release(helm: Helm, namespace: str) -> Iterator[str]:
    """The name of an installed release that watches only the test's namespace."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    watch = f"--set=watchNamespaces={{{namespace}}}"
    # Its pod need not run here: the image is one that there is not.
    helm("install", name, str(CHART), watch, "--set=image.tag=none", "--take-ownership")
    yield name
    helm("uninstall", name, "--ignore-not-found")


def names(kubectl: Kubectl, release: str) -> set[str]:
    kinds = "deployments,serviceaccounts,services,roles,rolebindings,clusterroles,clusterrolebindings,crds"
    found = kubectl("get", kinds, "-oname", f"--selector=app.kubernetes.io/instance={release}")
    return set(found.split())


def test_notes_show_a_worker_that_works(kubectl: Kubectl, helm: Helm, release: str, namespace: str) -> None:
    notes = helm("get", "notes", release)
    pasted = notes.split("<<'END'\n")[1].split("\n  END")[0]
    lines = "\n".join(line.removeprefix("  ") for line in pasted.splitlines())
    done = subprocess.run(
        [
            tool("kubectl"),
            f"--kubeconfig={kubectl.kubeconfig}",
            "apply",
            f"--namespace={namespace}",
            "-f",
            "-",
        ],
        input=lines,
        capture_output=True,
        text=True,
        check=False,
    )

    assert f"--namespace {namespace}" in notes
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "secret/shop-db created",
        "djangotaskworker.djangotasks.dev/shop created",
    ]


def test_upgrade_restores_the_definition_and_keeps_it_when_it_leaves(
    kubectl: Kubectl, helm: Helm, release: str
) -> None:
    uid = kubectl("get", CRD, "-ojsonpath={.metadata.uid}")
    path = "/spec/versions/0/additionalPrinterColumns/0/description"
    drift = json.dumps([{"op": "replace", "path": path, "value": "old"}])
    shown = "-ojsonpath={.spec.versions[0].additionalPrinterColumns[0].description}"
    kubectl("patch", CRD, "--type=json", "--patch", drift)
    assert kubectl("get", CRD, shown) == "old"

    helm("upgrade", release, str(CHART), "--reuse-values")
    assert kubectl("get", CRD, shown) == "The queues that the pods serve."

    helm("upgrade", release, str(CHART), "--reuse-values", "--set=crds.install=false")
    assert kubectl("get", CRD, "-ojsonpath={.metadata.uid}") == uid


def test_uninstall_leaves_the_workers_and_nothing_else(
    kubectl: Kubectl, helm: Helm, release: str, namespace: str
) -> None:
    here = kubectl.within(namespace)
    here("create", "-f", "-", manifest=WORKER)
    assert len(names(here, release)) == OBJECTS

    helm("uninstall", release, "--wait", PATIENTLY)

    assert names(here, release) == {
        "customresourcedefinition.apiextensions.k8s.io/" + CRD.removeprefix("crd/")
    }
    assert here("get", "djtw", "-oname") == "djangotaskworker.djangotasks.dev/emails\n"
    # With no operator there is nobody whom the deletion could wait for.
    here("delete", "djtw/emails", PATIENTLY)


def test_installs_again_over_what_was_left(
    kubectl: Kubectl, helm: Helm, release: str, namespace: str
) -> None:
    helm("uninstall", release)
    helm("install", release, str(CHART), f"--set=watchNamespaces={{{namespace}}}", "--set=image.tag=none")

    assert len(names(kubectl.within(namespace), release)) == OBJECTS
