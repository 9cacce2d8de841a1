"""A real API server accepts every manifest of the documentation."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from tests.conftest import ROOT

from django_task_operator.spec import Worker

if TYPE_CHECKING:
    from tests.conftest import Kubectl

PAGE = (ROOT / "docs" / "platforms.md").read_text()
SECTIONS = {
    section.partition("\n")[0]: list(
        yaml.safe_load_all("\n---\n".join(re.findall(r"```yaml\n(.*?)```", section, re.DOTALL)))
    )
    for section in PAGE.split("\n## ")[1:]
    if "```yaml" in section
}


# Of what is not in every cluster, the API server knows nothing.
KNOWN = {"apps/v1", "autoscaling/v2", "batch/v1", "djangotasks.dev/v1alpha1", "v1"}
OTHER_PAGES = {
    str(page.relative_to(ROOT)): manifests
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    if page.name != "platforms.md"
    and (
        manifests := [
            manifest
            for block in re.findall(r"^ *```yaml\n(.*?)^ *```$", page.read_text(), re.DOTALL | re.MULTILINE)
            for manifest in yaml.safe_load_all(block)
            if manifest.get("apiVersion") in KNOWN
        ]
    )
}


def test_the_api_server_takes_what_the_page_gives_to_argo_cd(kubectl: Kubectl, namespace: str) -> None:
    path = ROOT / "examples" / "argocd" / "argocd-cm.yaml"
    assert f"examples/argocd/{path.name}" in PAGE
    manifest = yaml.safe_load(path.read_text())
    manifest["metadata"]["namespace"] = namespace
    kubectl.within(namespace)("create", "--dry-run=server", "--validate=strict", "-f-", manifest=manifest)


def test_the_command_for_argo_cd_leaves_what_else_is_configured(kubectl: Kubectl, namespace: str) -> None:
    """As in a cluster whose Argo CD is configured already; namespaces apart, the command is the page's."""
    (command,) = re.findall(r"^kubectl (patch configmap argocd-cm .+)$", PAGE, re.MULTILINE)
    patch, at, path = command.replace("--namespace argocd ", "").partition("--patch-file ")
    assert at
    here = kubectl.within(namespace)
    here("create", "configmap", "argocd-cm", "--from-literal=url=https://cd.example.org")
    manifest = yaml.safe_load((ROOT / path).read_text())
    del manifest["metadata"]["namespace"]
    here(*patch.split(), "--patch-file=/dev/stdin", manifest=manifest)
    merged = json.loads(here("get", "configmap", "argocd-cm", "-ojson"))["data"]
    assert merged == {"url": "https://cd.example.org", **manifest["data"]}


def test_the_page_has_manifests() -> None:
    assert {"Cloud SQL", "Amazon RDS", "CloudNativePG", "Istio, Linkerd", "Argo CD"} <= SECTIONS.keys()
    assert PAGE.count("```yaml") == sum(PAGE.count(f"\n## {name}\n") for name in SECTIONS)


@pytest.mark.parametrize("manifests", SECTIONS.values(), ids=SECTIONS)
def test_the_api_server_takes_it(
    kubectl: Kubectl, crd: dict[str, Any], namespace: str, manifests: list[dict[str, Any]]
) -> None:
    here = kubectl.within(namespace)
    for manifest in manifests:
        here("create", "--dry-run=server", "--validate=strict", "-f-", manifest=manifest)
        if manifest["kind"] == "DjangoTaskWorker":
            metadata = {"namespace": namespace, "uid": "1", "generation": 1}
            Worker.parse({**manifest, "metadata": {**manifest["metadata"], **metadata}})


def test_other_pages_have_manifests() -> None:
    assert {"README.md", "docs/getting-started.md", "docs/from-keda.md"} <= OTHER_PAGES.keys()


@pytest.mark.usefixtures("crd")
@pytest.mark.parametrize("manifests", OTHER_PAGES.values(), ids=OTHER_PAGES)
def test_the_api_server_takes_those_of_other_pages(
    kubectl: Kubectl, namespace: str, manifests: list[dict[str, Any]]
) -> None:
    here = kubectl.within(namespace)
    for manifest in manifests:
        # Each test has a namespace of its own, whatever the page says.
        metadata = {**manifest["metadata"], "namespace": namespace}
        here(
            "create",
            "--dry-run=server",
            "--validate=strict",
            "-f-",
            manifest={**manifest, "metadata": metadata},
        )
