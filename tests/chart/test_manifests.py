"""The file for kubectl apply, and its Kustomize base: current, complete, and as their page says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from tests.conftest import ROOT, tool

from django_task_operator.startup.options import Options

if TYPE_CHECKING:
    from tests.conftest import Kubectl

INSTALL = ROOT / "install"
FILE = INSTALL / "django-task-operator.yaml"
PAGE = (ROOT / "docs" / "installing-without-helm.md").read_text()
NAME = "django-task-operator"
POD = {"POD_NAME": "operator-0", "POD_NAMESPACE": NAME}

type Manifest = dict[str, Any]


def run(*command: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)


def parsed(text: str) -> list[Manifest]:
    return list(yaml.safe_load_all(text))


def objects() -> list[Manifest]:
    return parsed(FILE.read_text())


def kustomized(folder: Path) -> list[Manifest]:
    done = run(tool("kubectl"), "kustomize", str(folder))
    assert done.returncode == 0, done.stderr
    return parsed(done.stdout)


def by_name(manifests: list[Manifest]) -> dict[tuple[str, str, str], Manifest]:
    found = {(m["kind"], m["metadata"].get("namespace", ""), m["metadata"]["name"]): m for m in manifests}
    assert len(found) == len(manifests)
    return found


def operator(manifests: list[Manifest]) -> Manifest:
    (container,) = by_name(manifests)["Deployment", NAME, NAME]["spec"]["template"]["spec"]["containers"]
    return dict(container)


def test_it_is_current() -> None:
    """Not the case after a change to the chart or the definition: `make manifests`."""
    path = f"{Path(tool('helm')).parent}{os.pathsep}{os.environ['PATH']}"
    done = run(sys.executable, str(INSTALL / "generate.py"), "--check", env={**os.environ, "PATH": path})

    assert done.returncode == 0, done.stderr


def test_it_is_the_chart_with_its_defaults_and_a_namespace() -> None:
    command = (tool("helm"), "template", NAME, str(ROOT / "charts" / NAME), f"--namespace={NAME}")
    done = run(*command, "--skip-tests")
    assert done.returncode == 0, done.stderr

    charts, ours = by_name([m for m in parsed(done.stdout) if m]), by_name(objects())
    assert ours.keys() - charts.keys() == {("Namespace", "", NAME)}
    del ours["Namespace", "", NAME]
    assert {key: body(m) for key, m in ours.items()} == {key: body(m) for key, m in charts.items()}


def body(manifest: Manifest) -> Manifest:
    """All but its metadata, and for the Deployment that of its pods: some labels name Helm."""
    rest = {key: value for key, value in manifest.items() if key != "metadata"}
    if manifest["kind"] == "Deployment":
        rest["spec"] = {**rest["spec"], "template": rest["spec"]["template"]["spec"]}
    return rest


def test_nothing_of_it_names_helm() -> None:
    for manifest in objects():
        assert "helm" not in str(manifest["metadata"]).lower()
    assert "helm.sh" not in FILE.read_text()
    assert "managed-by: Helm" not in FILE.read_text()


def test_the_namespace_is_the_first_and_every_object_says_where_it_is() -> None:
    cluster_wide = {"Namespace", "CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding"}
    manifests = objects()

    assert (manifests[0]["kind"], manifests[0]["metadata"]["name"]) == ("Namespace", NAME)
    where = Counter(m["metadata"].get("namespace") for m in manifests if m["kind"] not in cluster_wide)
    assert where.keys() == {NAME, "kube-system"}
    assert where["kube-system"] == 1


def test_the_operator_knows_its_arguments() -> None:
    options = Options.parse(operator(objects())["args"], POD)

    assert options.runtime.image.startswith("django-task-worker:")
    assert options.watch_namespaces == ()


def test_the_selector_of_the_page_keeps_the_definition_alone() -> None:
    (selector,) = re.findall(r"kubectl delete \S+ \S+ --selector (\S+)=(\S+)", PAGE)
    key, value = selector

    kept = [m["kind"] for m in objects() if m["metadata"]["labels"][key] != value]
    assert kept == ["CustomResourceDefinition"]


def test_the_command_of_the_page_puts_a_registry_before_both_images() -> None:
    (command,) = re.findall(r"^sed -E .*? > operator.yaml$", PAGE, re.MULTILINE)
    done = run("bash", "-c", command.removesuffix(" > operator.yaml"), cwd=ROOT)
    assert done.returncode == 0, done.stderr

    container, before = operator(parsed(done.stdout)), operator(objects())
    assert container["image"] == f"registry.example/{before['image']}"
    runtime = Options.parse(before["args"], POD).runtime.image
    assert Options.parse(container["args"], POD).runtime.image == f"registry.example/{runtime}"


def test_the_base_is_the_file() -> None:
    assert by_name(kustomized(INSTALL)) == by_name(objects())


def test_the_overlay_of_the_page(tmp_path: Path) -> None:
    (overlay,) = re.findall(r"```yaml\n(# kustomization\.yaml\n.*?)```", PAGE, re.DOTALL)
    assert "  - ../install\n" in overlay
    (tmp_path / "install").symlink_to(INSTALL)
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "kustomization.yaml").write_text(overlay)

    manifests = kustomized(tmp_path / "ours")
    before = operator(objects())

    assert operator(manifests)["image"] == f"registry.example/{before['image']}"
    runtime = Options.parse(before["args"], POD).runtime.image
    assert Options.parse(operator(manifests)["args"], POD).runtime.image == f"registry.example/{runtime}"
    assert by_name(manifests)["Deployment", NAME, NAME]["spec"]["replicas"] == 2


def test_api_server_takes_it(kubectl: Kubectl, namespace: str) -> None:
    """In the test's namespace, which is there already: a namespace that is only tried holds nothing."""
    manifests = objects()
    manifests[0]["metadata"]["name"] = namespace
    for manifest in manifests:
        if manifest["metadata"].get("namespace") == NAME:
            manifest["metadata"]["namespace"] = namespace

    listed = {"apiVersion": "v1", "kind": "List", "items": manifests}
    kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", manifest=listed)
