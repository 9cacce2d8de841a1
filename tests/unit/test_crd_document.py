"""Tests of the CRD without a cluster: every field has a description, with the correct default."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
(PATH,) = (ROOT / "crds").glob("*.yaml")
SCHEMA = yaml.safe_load(PATH.read_text())["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def fields(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    for name, field in schema.get("properties", {}).items():
        yield f"{path}.{name}", field
        yield from fields(field, f"{path}.{name}")
    if "items" in schema:
        yield from fields(schema["items"], f"{path}[]")


FIELDS = dict(fields(SCHEMA))


def test_every_field_is_described() -> None:
    bare = [path for path, field in FIELDS.items() if not field.get("description", "").endswith(".")]

    assert bare == [".metadata"]


@pytest.mark.parametrize("path", [path for path, field in FIELDS.items() if field.get("default", {}) != {}])
def test_the_description_says_the_default(path: str) -> None:
    field = FIELDS[path]
    said = re.search(r" Default: (.+)\.$", field["description"])

    assert said is not None
    assert yaml.safe_load(said[1]) == field["default"]


def test_no_description_says_a_default_that_is_not_there() -> None:
    liars = [
        p
        for p, field in FIELDS.items()
        if "Default:" in field.get("description", "") and "default" not in field
    ]

    assert liars == []


def test_the_reference_is_current() -> None:
    command = [sys.executable, str(ROOT / "docs" / "generate_reference.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr


def test_the_file_for_kubectl_apply_has_this_definition() -> None:
    """`make manifests` writes it; tests/chart compares the rest of it."""
    installed = yaml.safe_load_all((ROOT / "install" / "django-task-operator.yaml").read_text())
    (definition,) = [m for m in installed if m["kind"] == "CustomResourceDefinition"]

    assert definition["spec"] == yaml.safe_load(PATH.read_text())["spec"]
