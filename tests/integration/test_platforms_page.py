"""A real API server accepts every manifest of docs/platforms.md."""

from __future__ import annotations

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


def test_the_api_server_takes_what_the_page_gives_to_argo_cd(kubectl: Kubectl, namespace: str) -> None:
    path = ROOT / "examples" / "argocd" / "argocd-cm.yaml"
    assert f"examples/argocd/{path.name}" in PAGE
    manifest = yaml.safe_load(path.read_text())
    manifest["metadata"]["namespace"] = namespace
    kubectl.within(namespace)("create", "--dry-run=server", "--validate=strict", "-f-", manifest=manifest)


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
