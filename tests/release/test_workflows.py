"""GitHub's workflows: checked by actionlint, and they do what `make` does here."""

from __future__ import annotations

import re
import subprocess
import tomllib
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from release.wish import PLATFORMS, Wish
from tests.conftest import ROOT, tool
from tests.waiting import PATIENCE_S

if TYPE_CHECKING:
    from pathlib import Path

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yaml"))
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
# What GitHub's runner of a tag has.
RUNNER = {
    "GITHUB_REF_NAME": f"v{VERSION}",
    "GITHUB_REPOSITORY_OWNER": "Team",
    "GITHUB_REPOSITORY": "Team/operator",
    "GITHUB_SERVER_URL": "https://github.com",
}


def workflow(name: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.load((ROOT / ".github" / "workflows" / name).read_text(), yaml.BaseLoader)
    return document


def scripts(name: str) -> list[str]:
    steps = (step for job in workflow(name)["jobs"].values() for step in job.get("steps", []))
    return [step["run"] for step in steps if "run" in step]


def actionlint(*files: Path) -> subprocess.CompletedProcess[str]:
    shellcheck = f"-shellcheck={ROOT / 'build' / 'venv' / 'bin' / 'shellcheck'}"
    command = [tool("actionlint"), "-no-color", shellcheck, *(str(file) for file in files)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


def test_there_are_no_mistakes_in_them() -> None:
    done = actionlint(*WORKFLOWS)

    assert len(WORKFLOWS) == 2
    assert done.returncode == 0, done.stdout


def test_a_mistake_would_be_found(tmp_path: Path) -> None:
    """Also one in a script, which shellcheck finds."""
    steps = "      - run: echo $GITHUB_REF_NAME\n      - run: echo ${{ github.reff }}\n"
    broken = tmp_path / "broken.yaml"
    broken.write_text(f"on: push\njobs:\n  a:\n    runs-on: ubuntu-24.04\n    steps:\n{steps}")
    done = actionlint(broken)

    assert done.returncode == 1
    assert "SC2086" in done.stdout
    assert 'property "reff" is not defined' in done.stdout


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_they_use_targets_that_there_are(path: Path) -> None:
    lines = (line for script in scripts(path.name) for line in script.splitlines())
    called = [word for line in lines if line.startswith("make ") for word in line.split()[1:]]
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    assert called
    assert {word for word in called if re.fullmatch(r"[a-z-]+", word)} <= targets


def test_a_tag_makes_a_release_of_its_version() -> None:
    """The step is run as it is written, by the shell, with a `make` that shows what it is asked for."""
    (tags,) = workflow("release.yaml")["on"]["push"]["tags"]
    # GitHub's `+` is not one of fnmatch's.
    assert fnmatchcase(f"v{VERSION}", tags.replace("+", ""))
    assert not fnmatchcase("latest", tags.replace("+", ""))
    (script,) = [one for one in scripts("release.yaml") if one.startswith("make release")]

    show = 'make() { printf "%s\\n" "$@"; }\n'
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", show + script]
    done = subprocess.run(command, env=RUNNER, capture_output=True, text=True, check=True, timeout=PATIENCE_S)
    target, *variables = done.stdout.splitlines()

    assert target == "release"
    assert Wish.of(dict(variable.split("=", 1) for variable in variables)) == Wish(
        version=VERSION,
        registry="ghcr.io/team",
        platforms=PLATFORMS,
        any_platforms=False,
        source_url="https://github.com/Team/operator",
    )


def test_nothing_is_released_that_was_not_tested() -> None:
    jobs = workflow("release.yaml")["jobs"]

    assert jobs["release"]["needs"] == "test"
    assert jobs["test"]["uses"] == "./.github/workflows/ci.yaml"
    assert "workflow_call" in workflow("ci.yaml")["on"]
    assert "make test" in scripts("ci.yaml")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_they_may_only_read_unless_a_job_says_more(path: Path) -> None:
    assert workflow(path.name)["permissions"] == {"contents": "read"}
