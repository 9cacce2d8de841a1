"""pyproject.toml says the version; everything else that has one agrees."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]


def project(path: str) -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((ROOT / path).read_text())
    return table


VERSION = project("pyproject.toml")["project"]["version"]


def test_the_version_is_one_for_python_and_for_helm() -> None:
    # The part of PEP 440 that is also a semantic version, which Helm asks for, and a tag of an image.
    assert re.fullmatch(r"\d+\.\d+\.\d+", VERSION)


@pytest.mark.parametrize("key", ["version", "appVersion"])
def test_the_chart_has_it(key: str) -> None:
    chart = yaml.safe_load((ROOT / "charts/django-task-operator/Chart.yaml").read_text())

    assert chart[key] == VERSION


def test_the_worker_has_it_and_its_package_reads_it_from_there() -> None:
    source = (ROOT / "worker-image/django_db_worker/__init__.py").read_text()
    (value,) = [
        node.value
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__"
    ]
    package = project("worker-image/pyproject.toml")

    assert ast.literal_eval(value) == VERSION
    assert "version" not in package["project"]
    assert package["project"]["dynamic"] == ["version"]
    assert package["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "django_db_worker.__version__"}


def test_what_readers_make_and_install_has_it() -> None:
    readme = (ROOT / "README.md").read_text()

    assert re.findall(r"(?:--version |make release VERSION=)(\S+)", readme) == [VERSION, VERSION]


def test_the_changelog_knows_it() -> None:
    """What is in work is under Unreleased; a version that was released has a date."""
    changelog = (ROOT / "CHANGELOG.md").read_text()
    headings = re.findall(r"^## (.+)$", changelog, re.MULTILINE)

    assert headings[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d{2}-\d{2}", heading) for heading in headings[1:])
    # Until the first release, all that there is is unreleased.
    assert len(headings) == 1 or headings[1].startswith(f"[{VERSION}]")


@pytest.mark.parametrize("path", ["pyproject.toml", "worker-image/pyproject.toml"])
def test_the_packages_have_the_license(path: str) -> None:
    assert project(path)["project"]["license"] == "Apache-2.0"
    text = (ROOT / path).with_name("LICENSE").read_text()
    assert text.split()[:3] == ["Apache", "License", "Version"]
    assert "END OF TERMS AND CONDITIONS" in text
