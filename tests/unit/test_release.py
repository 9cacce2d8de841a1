"""What may be released, and what a release says of itself. tests/release makes one."""

from __future__ import annotations

import pytest
from release.papers import provenance, sums
from release.sources import Source, absolute_links
from release.wish import PLATFORMS, Refused, Wish, notes, refuse_unready
from tests.conftest import ROOT

PYPROJECT = '[project]\nversion = "0.2.0"\n'
CHANGELOG = """\
# Changelog

## [Unreleased]

## [0.2.0] - 2026-11-28

### Added

- A release.

## [0.1.0] - 2026-10-01

- The first.
"""


def test_make_passes_what_is_wished() -> None:
    variables = {
        "VERSION": "0.2.0",
        "REGISTRY": "registry.example/team/",
        "DRAFT": "1",
        "PLATFORMS": "linux/arm64, linux/amd64",
        "SOURCE_URL": "https://git.example/team/operator/",
    }

    assert Wish.of(variables) == Wish(
        version="0.2.0",
        registry="registry.example/team",
        draft=True,
        platforms=("linux/arm64", "linux/amd64"),
        any_platforms=False,
        source_url="https://git.example/team/operator",
    )
    assert Wish.of({"VERSION": "0.2.0", "DRAFT": "0"}) == Wish(version="0.2.0", platforms=PLATFORMS)


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({}, "which version?"),
        ({"VERSION": "v0.2.0"}, "VERSION=v0.2.0: write three numbers"),
        ({"VERSION": "0.2"}, "VERSION=0.2: write three numbers"),
        ({"VERSION": "0.2.0", "REGISTRY": "oci://registry.example"}, "leave out oci://"),
        ({"VERSION": "0.2.0", "PLATFORMS": "arm64"}, "PLATFORMS: arm64 is none: write them as linux/amd64"),
    ],
)
def test_a_wish_that_cannot_be(variables: dict[str, str], words: str) -> None:
    with pytest.raises(Refused) as refused:
        Wish.of(variables)
    assert words in str(refused.value)


def test_what_is_described_may_be_released() -> None:
    refuse_unready(Wish("0.2.0"), PYPROJECT, CHANGELOG, [])


@pytest.mark.parametrize(
    ("version", "changelog", "changed", "words"),
    [
        ("0.3.0", CHANGELOG, [], "VERSION=0.3.0, but project.version in pyproject.toml is 0.2.0"),
        (
            "0.2.0",
            "## [Unreleased]\n\n- New.\n",
            [],
            "does not say what is new in 0.2.0 (it has no version yet)",
        ),
        ("0.2.0", CHANGELOG.replace("0.2.0", "0.1.9"), [], "(its newest version is 0.1.9)"),
        ("0.2.0", CHANGELOG.replace("[0.2.0] - 2026", "[0.2.0] 2026"), [], "`## [0.2.0] - YYYY-MM-DD`"),
        ("0.2.0", "## [Unreleased]\n\n## [0.2.0] - 2026-11-28\n", [], "says nothing below"),
        (
            "0.2.0",
            CHANGELOG,
            ["Makefile", "a", "b", "c", "d", "e"],
            "not committed: Makefile, a, b, c, d and others",
        ),
    ],
)
def test_what_is_not_ready_is_refused(version: str, changelog: str, changed: list[str], words: str) -> None:
    with pytest.raises(Refused) as refused:
        refuse_unready(Wish(version), PYPROJECT, changelog, changed)
    assert words in str(refused.value)


def test_a_draft_needs_its_version_only() -> None:
    refuse_unready(Wish("0.2.0", draft=True), PYPROJECT, "", ["Makefile"])
    with pytest.raises(Refused, match=r"pyproject\.toml is 0\.2\.0"):
        refuse_unready(Wish("0.3.0", draft=True), PYPROJECT, CHANGELOG, [])


def test_notes_are_the_changelogs() -> None:
    assert notes(Wish("0.2.0"), CHANGELOG) == "### Added\n\n- A release."
    assert notes(Wish("0.1.0"), CHANGELOG) == "- The first."
    unreleased = CHANGELOG.replace("[Unreleased]\n", "[Unreleased]\n\n- Next.\n")
    assert notes(Wish("0.2.0"), unreleased) == "### Added\n\n- A release."
    assert notes(Wish("0.2.0", draft=True), unreleased) == "- Next."


def test_a_release_of_now_is_refused_or_has_notes() -> None:
    """That the repository's own files are read as they are written."""
    project, changelog = (ROOT / "pyproject.toml").read_text(), (ROOT / "CHANGELOG.md").read_text()
    version = project.split('version = "')[1].split('"')[0]

    refuse_unready(Wish(version, draft=True), project, changelog, [])
    assert "### Added" in notes(Wish(version, draft=True), changelog)


@pytest.mark.parametrize(
    ("link", "absolute"),
    [
        ("[a](docs/a.md)", "[a](https://git.example/blob/v1/charts/x/docs/a.md)"),
        ("[a](../../docs/a.md#b)", "[a](https://git.example/blob/v1/docs/a.md#b)"),
        ("![a](a.png)", "![a](https://git.example/raw/v1/charts/x/a.png)"),
        ("[a](#b)", "[a](#b)"),
        ("[a](https://example.com/b)", "[a](https://example.com/b)"),
        ("[a](mailto:b@example.com)", "[a](mailto:b@example.com)"),
    ],
)
def test_links_lead_somewhere_from_outside(link: str, absolute: str) -> None:
    assert absolute_links(f"See {link}.", "https://git.example/blob/v1", "charts/x") == f"See {absolute}."


def test_provenance_names_who_built_it() -> None:
    source = Source(ROOT, "0" * 40, 0, ())
    workflow = {
        "GITHUB_SERVER_URL": "https://github.com",
        "GITHUB_WORKFLOW_REF": "team/operator/.github/workflows/release.yaml@refs/tags/v0.2.0",
    }

    def builder(variables: dict[str, str]) -> str:
        statement = provenance(Wish("0.2.0"), source, [], {"a": "0" * 64}, variables)
        name: str = statement["predicate"]["runDetails"]["builder"]["id"]
        return name

    assert builder({}) == "https://djangotasks.dev/release/local"
    assert builder(workflow).startswith("https://github.com/team/operator/.github/workflows/release.yaml@")


def test_sums_are_in_order() -> None:
    assert sums({"b": "1", "a": "2"}) == "2  a\n1  b\n"
