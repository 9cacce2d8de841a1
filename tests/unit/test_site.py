"""The documentation site is built without a warning, asks no other server for anything, and loses nothing."""

from __future__ import annotations

import html
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).parents[2]
# What a browser fetches by itself, as opposed to links that a reader may follow.
FETCHED = re.compile(
    r"<(?:script|img|iframe|source|link)\b[^>]*?\b(?:src|href)=\"?([^\s\">]+)", re.IGNORECASE
)
ARTICLE = re.compile(r"<article.*?</article>", re.DOTALL)


def load(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


hooks = load("site_hooks", ROOT / "docs" / "site" / "hooks.py")
PAGES: dict[str, Path] = {
    **{path.name: path for path in sorted((ROOT / "docs").glob("*.md"))},
    **{uri: ROOT / source for source, uri in hooks.ELSEWHERE.items()},
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site, as `make docs` builds it."""
    target = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(target)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return target


def built(site: Path, uri: str) -> str:
    folder = uri.removesuffix(".md")
    path = site / "index.html" if folder == "index" else site / folder.removesuffix("/index") / "index.html"
    return path.read_text()


def prose(page: Path) -> str:
    return re.sub(r"^ *```.*?^ *```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def test_the_make_target_is_what_is_tested() -> None:
    assert "-m mkdocs build --strict" in (ROOT / "Makefile").read_text()


@pytest.mark.parametrize("uri", PAGES)
def test_a_page_fetches_nothing_from_other_servers(site: Path, uri: str) -> None:
    text = built(site, uri)

    fetched = FETCHED.findall(text)

    assert any("stylesheets" in target for target in fetched)
    assert not [target for target in fetched if target.startswith(("http:", "https:", "//"))]


def test_style_sheets_fetch_nothing_from_other_servers(site: Path) -> None:
    sheets = list(site.rglob("*.css"))
    assert sheets
    for sheet in sheets:
        found = re.findall(r"(?:url\(|@import\s*)[\"']?([^\"')]+)", sheet.read_text())
        assert not [target for target in found if target.startswith(("http:", "https:", "//"))]


@pytest.mark.parametrize("uri", PAGES)
def test_lists_and_tables_are_those_of_github(site: Path, uri: str) -> None:
    """Where Python-Markdown reads less into a page than GitHub does, text would run together."""
    text = prose(PAGES[uri])
    (article,) = ARTICLE.findall(built(site, uri))

    items = re.findall(r"^ *(?:[-*]|\d+\.) ", text, re.MULTILINE)
    tables = re.findall(r"^\|(?:[ :]*-+[ :]*\|)+$", text, re.MULTILINE)

    assert article.count("<li>") == len(items)
    assert article.count("<table>") == len(tables)
    assert "```" not in article


def test_a_drawing_is_drawn_when_the_site_is_built(site: Path) -> None:
    page = built(site, "architecture.md")

    assert '<div class="drawing"><svg' in page
    assert "flowchart TD" not in page
    (drawing,) = re.findall(r'<svg id="drawing-.*?</svg>', page, re.DOTALL)
    assert all(f">{room}<" in drawing for room in ("__main__", "metrics_api", "redaction"))


@pytest.mark.parametrize(
    ("source", "target", "uri"),
    [
        ("docs/worker.md", "sizing.md", "sizing.md"),
        ("docs/worker.md", "../README.md", "index.md"),
        ("README.md", "docs/worker.md", "worker.md"),
        ("charts/django-task-operator/README.md", "../../docs/security.md", "security.md"),
        ("docs/reliability.md", "../tests/e2e/test_faults.py", "source/tests/e2e/test_faults.py.md"),
        ("README.md", "docs/images/demo.png", "images/demo.png"),
    ],
)
def test_a_link_between_files_is_one_within_the_site(source: str, target: str, uri: str) -> None:
    assert hooks.uri_of(hooks.resolved(source, target)) == uri


def test_a_link_to_a_test_leads_to_that_test(site: Path) -> None:
    page = built(site, "source/tests/e2e/test_orphans.py.md")

    assert 'id="test_a_task_whose_pod_is_gone_fails_and_says_why"' in page


def test_a_file_is_shown_as_it_is() -> None:
    path = "tests/e2e/test_orphans.py"
    shown = hooks.show(path)

    code = "".join(re.findall(r"^````` python\n(.*?)^`````$", shown, re.DOTALL | re.MULTILINE))

    assert [line for line in code.splitlines() if line] == [
        line for line in (ROOT / path).read_text().splitlines() if line
    ]


def test_every_page_is_in_the_navigation() -> None:
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text())

    def listed(entry: Any) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        return [
            uri for below in (entry if isinstance(entry, list) else entry.values()) for uri in listed(below)
        ]

    assert sorted(listed(config["nav"])) == sorted(PAGES)


def test_the_search_finds_pages_and_no_tests(site: Path) -> None:
    index = html.unescape((site / "search" / "search_index.json").read_text())

    assert "ScalingConflict" in index
    assert "source/tests" not in index
