"""What an upgrade from the previous version does to workers that nobody changes: nothing to their pods."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from django_task_operator.resources import RuntimeSource, build_deployment, migration_hash
from django_task_operator.spec import Worker

ROOT = Path(__file__).parents[3]
# The package of the previous version, made by tests/previous/archive.
PREVIOUS = ROOT / "tests" / "previous" / "operator.zip"
GOLDEN = Path(__file__).parent / "golden"
IMAGE = "registry.example/django-task-worker:0.1.0"

# What the changelog has to say, under "Unreleased", if it is not true this time.
ANNOUNCED = "The upgrade replaces the pods of all workers"

BUILD = f"""
import json, sys
from django_task_operator import crd
from django_task_operator.resources import RuntimeSource, build_deployment, migration_hash
from django_task_operator.spec import Worker
assert ".zip" in crd.__file__, crd.__file__
def known(value, schema):
    if isinstance(value, dict) and "properties" in schema:
        fields = schema["properties"]
        return {{name: known(each, fields[name]) for name, each in value.items() if name in fields}}
    return value
built = {{}}
for name, manifest in json.load(sys.stdin).items():
    manifest["spec"] = known(manifest["spec"], crd.SPEC)
    worker = Worker.parse(manifest)
    template = build_deployment(worker, 1, RuntimeSource({IMAGE!r}))["spec"]["template"]
    built[name] = [manifest, template, migration_hash(worker.spec)]
json.dump(built, sys.stdout)
"""


@pytest.fixture(scope="module")
def previous() -> dict[str, tuple[dict[str, Any], dict[str, Any], str]]:
    """What the previous version made of each golden worker, without the fields that it did not know."""
    workers = {case.name: yaml.safe_load((case / "worker.yaml").read_text()) for case in GOLDEN.iterdir()}
    done = subprocess.run(
        [sys.executable, "-P", "-c", BUILD],
        input=json.dumps(workers),
        env={"PYTHONPATH": str(PREVIOUS)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {name: tuple(built) for name, built in json.loads(done.stdout).items()}


def test_no_pod_template_changes_unless_the_changelog_says_so(
    previous: dict[str, tuple[dict[str, Any], dict[str, Any], str]],
) -> None:
    """A new template replaces all pods of every worker at once, when the operator is upgraded."""
    changed = {
        name
        for name, (manifest, template, _) in previous.items()
        if build_deployment(Worker.parse(manifest), 1, RuntimeSource(IMAGE))["spec"]["template"] != template
    }
    (unreleased,) = re.findall(
        r"^## \[Unreleased\]$(.*?)(?=^## |\Z)",
        (ROOT / "CHANGELOG.md").read_text(),
        flags=re.MULTILINE | re.DOTALL,
    )

    assert bool(changed) == (ANNOUNCED in unreleased), (
        f"the pod templates of {sorted(changed)} are not what they were: if that is worth a restart of all"
        f' tasks, write "{ANNOUNCED}" in CHANGELOG.md, and why'
    )


def test_no_migration_runs_anew(previous: dict[str, tuple[dict[str, Any], dict[str, Any], str]]) -> None:
    for manifest, _, migrated in previous.values():
        assert migration_hash(Worker.parse(manifest).spec) == migrated


def test_every_worker_of_the_previous_version_is_understood(
    previous: dict[str, tuple[dict[str, Any], dict[str, Any], str]],
) -> None:
    assert previous.keys() == {case.name for case in GOLDEN.iterdir()}
    kept = sum(len(manifest["spec"]) for manifest, _, _ in previous.values())
    assert kept > len(previous) * 3, "most fields are known"
