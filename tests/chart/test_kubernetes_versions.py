"""What the chart renders and what the operator creates, checked against every supported Kubernetes version.

As kubeconform does, but without its schemas, which no package registry has: unknown fields, missing ones and
wrong types are found, and APIs that a version does not serve. Rules beyond types are the API server's own;
tests on a cluster try them on one version.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from tests.chart.kubernetes import Version
from tests.chart.test_chart import VALUE_SETS, render
from tests.conftest import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

CHART = ROOT / "charts" / "django-task-operator"
PINNED = re.findall(
    r"^kubernetes==([\d.]+)", (ROOT / "requirements" / "kubernetes.txt").read_text(), re.MULTILINE
)
GOLDEN = ROOT / "tests" / "unit" / "resources" / "golden"
# Objects of other projects, whose definitions are not Kubernetes'.
SPEC: dict[str, Any] = {"selector": {}, "template": {}}
OTHERS = ("djangotasks.dev/", "monitoring.coreos.com/", "cert-manager.io/")


@pytest.fixture(scope="session")
def models() -> Path:
    done = subprocess.run(
        [ROOT / "cluster" / "kubernetes-models"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


@pytest.fixture(params=PINNED, ids=[f"1.{each.partition('.')[0]}" for each in PINNED])
def version(request: pytest.FixtureRequest, models: Path) -> Version:
    return Version(models / f"kubernetes-{request.param}-py2.py3-none-any.whl")


@pytest.fixture(scope="session")
def rendered() -> dict[str, list[dict[str, Any]]]:
    return {name: render(values) for name, values in VALUE_SETS.items()}


def created() -> Iterator[tuple[str, dict[str, Any]]]:
    """What the operator creates, by file."""
    for path in sorted(GOLDEN.glob("*/*.yaml")):
        if path.name != "worker.yaml":
            for manifest in yaml.safe_load_all(path.read_text()):
                yield f"{path.parent.name}/{path.name}", manifest


def test_the_oldest_version_is_the_oldest_that_the_chart_accepts() -> None:
    (least,) = re.findall(r'^kubeVersion: ">=1.(\d+)\.', (CHART / "Chart.yaml").read_text(), re.MULTILINE)
    minors = [int(each.partition(".")[0]) for each in PINNED]

    assert minors == list(range(int(least), minors[-1] + 1)), "and none is left out"


def test_the_charts_objects_are_understood(
    version: Version, rendered: dict[str, list[dict[str, Any]]]
) -> None:
    problems = {
        f"{values}: {manifest['kind']} {manifest['metadata']['name']}: {problem}"
        for values, manifests in rendered.items()
        for manifest in manifests
        if not manifest["apiVersion"].startswith(OTHERS)
        for problem in version.problems(manifest)
    }
    assert problems == set()


def test_the_operators_objects_are_understood(version: Version) -> None:
    problems = {
        f"{file}: {problem}" for file, manifest in created() for problem in version.problems(manifest)
    }
    assert problems == set()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"apiVersion": "apps/v1beta1"}, "apps/v1beta1 Deployment is not served"),
        ({"kind": "Deploiment"}, "apps/v1 Deploiment is not served"),
        ({"kind": "Scale"}, "apps/v1 Scale is not served"),
        ({"spec": {"template": {}}}, "Deployment.spec.selector is missing"),
        ({"spec": []}, "Deployment.spec is no object"),
        ({"spec": {"selector": {}, "template": {}, "replica": 1}}, "Deployment.spec.replica is unknown"),
        (
            {"spec": {"selector": {}, "template": {}, "replicas": "1"}},
            "Deployment.spec.replicas is no int: '1'",
        ),
        (
            {"spec": {"selector": {}, "template": {}, "replicas": True}},
            "Deployment.spec.replicas is no int: True",
        ),
        ({"metadata": {"labels": {"a": 1}}}, "Deployment.metadata.labels[a] is no str: 1"),
        ({"metadata": {"labels": []}}, "Deployment.metadata.labels is no object"),
        (
            {"spec": {"selector": {}, "template": {"spec": {"containers": [{"image": "a"}]}}}},
            "Deployment.spec.template.spec.containers[0].name is missing",
        ),
        (
            {"spec": {"selector": {}, "template": {"spec": {"containers": {}}}}},
            "Deployment.spec.template.spec.containers is no list",
        ),
    ],
)
def test_what_is_wrong_is_found(version: Version, change: dict[str, Any], problem: str) -> None:
    good = {"apiVersion": "apps/v1", "kind": "Deployment", "spec": SPEC}

    assert list(version.problems(good)) == []
    assert list(version.problems(good | change)) == [problem]


def test_what_a_version_does_not_have_yet_is_found(models: Path) -> None:
    """For example, resources of a pod as a whole."""
    oldest, newest = (
        Version(models / f"kubernetes-{each}-py2.py3-none-any.whl") for each in (PINNED[0], PINNED[-1])
    )
    pod = {"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [], "resources": {}}}

    assert list(oldest.problems(pod)) == ["Pod.spec.resources is unknown"]
    assert list(newest.problems(pod)) == []
