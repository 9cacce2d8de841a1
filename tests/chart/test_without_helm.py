"""The page's commands on a real API server: an operator comes without Helm, is given to Helm, and leaves."""

from __future__ import annotations

import json
import os
import re
import subprocess
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from tests.chart.test_release import CRD, metadata
from tests.conftest import ROOT, tool
from tests.waiting import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import Kubectl

pytestmark = pytest.mark.alone

NAME = "django-task-operator"
FILE = f"install/{NAME}.yaml"
COMMANDS = "\n".join(
    re.findall(r"```sh\n(.*?)```", (ROOT / "docs/installing-without-helm.md").read_text(), re.DOTALL)
)
KINDS = "deployments,serviceaccounts,services,roles,rolebindings,clusterroles,clusterrolebindings,namespaces"


class Page:
    """Runs the page's commands for an operator of another name, because the cluster may have one already."""

    def __init__(self, kubectl: Kubectl, folder: Path) -> None:
        self.kubectl = kubectl
        self.name = f"test-{uuid.uuid4().hex[:8]}"
        self._folder = folder
        (folder / "charts").symlink_to(ROOT / "charts")
        (folder / "install").mkdir()
        (folder / FILE).write_text((ROOT / FILE).read_text().replace(NAME, self.name))

    def run(self, pattern: str, *extra: str) -> str:
        """Run the one command that matches."""
        (command,) = re.findall(pattern, COMMANDS, re.MULTILINE)
        for path, kept in ((FILE, "FILE"), (f"charts/{NAME}", "CHART")):
            command = command.replace(path, kept)
        command = command.replace(NAME, self.name).replace("FILE", FILE).replace("CHART", f"charts/{NAME}")
        path = os.pathsep.join([str(ROOT / "build" / "bin"), os.environ["PATH"]])
        environment = {**os.environ, "PATH": path, "KUBECONFIG": str(self.kubectl.kubeconfig)}
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", " ".join([command, *extra])],
            cwd=self._folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def apply(self) -> str:
        """The file, as the page applies what it has made of it; a Helm of other tests may have the CRD."""
        (self._folder / "operator.yaml").write_text((self._folder / FILE).read_text())
        once = r"\A(?s:.*?)^(kubectl apply --server-side -f operator\.yaml)$"
        return self.run(once, "--force-conflicts")

    def objects(self) -> set[str]:
        selector = f"--selector=app.kubernetes.io/instance={self.name}"
        return set(self.kubectl("get", KINDS, "--all-namespaces", "-oname", selector).split())

    def managers(self) -> set[str | None]:
        """Who manages the objects, by their label; Helm does not take the namespace."""
        which = ("--all-namespaces", f"--selector=app.kubernetes.io/instance={self.name}")
        found = json.loads(self.kubectl("get", KINDS.removesuffix(",namespaces"), "-ojson", *which))["items"]
        return {one["metadata"]["labels"].get("app.kubernetes.io/managed-by") for one in found}


@pytest.fixture
def page(kubectl: Kubectl, crd: dict[str, Any], tmp_path: Path) -> Iterator[Page]:
    """Afterwards all is gone but the CRD, which is given back to whom it belonged."""
    before = metadata(kubectl)
    page = Page(kubectl, tmp_path)
    yield page
    selector = f"--selector=app.kubernetes.io/instance={page.name}"
    kubectl("delete", "clusterroles,clusterrolebindings,namespaces", selector, "--wait=false")
    kubectl("delete", "rolebindings", "--namespace=kube-system", selector, "--wait=false")
    changed = {kind: dict.fromkeys(now, None) | before[kind] for kind, now in metadata(kubectl).items()}
    kubectl("patch", CRD, "--type=merge", "--patch", json.dumps({"metadata": changed}))


def test_it_comes_and_leaves_but_for_the_definition(page: Page) -> None:
    uid = page.kubectl("get", CRD, "-ojsonpath={.metadata.uid}")
    page.apply()
    assert f"deployment.apps/{page.name}" in page.objects()
    assert page.managers() == {None}
    before = page.objects()

    # A second time it changes nothing.
    generation = (
        "get",
        f"deployment/{page.name}",
        f"--namespace={page.name}",
        "-ojsonpath={.metadata.generation}",
    )
    first = page.kubectl(*generation)
    page.apply()
    assert page.kubectl(*generation) == first
    assert page.objects() == before

    page.run(r"^kubectl delete -f install\S+ --selector \S+$", "--wait=false")
    # What is in the namespace goes with it, which takes a while.
    assert not {one for one in page.objects() if one.startswith(("deployment", "cluster", "service"))}
    assert page.kubectl("get", CRD, "-ojsonpath={.metadata.uid}") == uid


def test_helm_takes_it_over(page: Page) -> None:
    page.apply()
    before = page.objects()
    uid = page.kubectl(
        "get", f"deployment/{page.name}", f"--namespace={page.name}", "-ojsonpath={.metadata.uid}"
    )

    page.run(r"^helm install .* --take-ownership$", f"--set=nameOverride={page.name}")

    assert page.objects() == before
    assert page.managers() == {"Helm"}
    assert uid == page.kubectl(
        *("get", f"deployment/{page.name}", f"--namespace={page.name}", "-ojsonpath={.metadata.uid}")
    )
    helm = [tool("helm"), f"--kubeconfig={page.kubectl.kubeconfig}", f"--namespace={page.name}"]
    subprocess.run([*helm, "uninstall", page.name], check=True, capture_output=True, timeout=PATIENCE_S)
    assert page.objects() == {f"namespace/{page.name}"}
