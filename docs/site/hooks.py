"""Makes one site of the repository's pages, for MkDocs: pages outside docs/, links, and drawings.

Pages are written for GitHub, where a relative link leads to any file of the repository. Here a link to a
page leads to that page of the site, wherever it lies, and one to any other file to a page that shows it.
"""

from __future__ import annotations

import ast
import hashlib
import posixpath
import re
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mermaidx
from mkdocs.structure.files import File, Files
from pymdownx.slugs import slugify

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
DOCS = "docs/"

# Pages of the repository outside docs/, and what they are called on the site.
ELSEWHERE = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security-policy.md",
    "benchmarks/README.md": "benchmarks/index.md",
    "charts/django-task-operator/README.md": "chart.md",
    "cluster/README.md": "local-cluster.md",
    "examples/README.md": "examples.md",
    "worker-image/README.md": "worker-image.md",
    **{
        f"benchmarks/results/{path.name}": f"benchmarks/{path.name}"
        for path in sorted((ROOT / "benchmarks" / "results").glob("*.md"))
    },
}
# A link's or picture's target, with its anchor; not of another site, and not within the same page.
TARGET = re.compile(r"(?<=\]\()(?![a-z]+:|#|<)([^)\s#]+)(#[^)\s]*)?(?=\))")
FENCED = re.compile(r"(^ *```.*?^ *```$)", re.DOTALL | re.MULTILINE)
LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".tpl": "yaml", ".sh": "bash"}


def on_config(config: MkDocsConfig, /) -> MkDocsConfig:
    """Set what only code can say."""
    # Anchors as GitHub makes them, so that a link works in both places.
    config.mdx_configs["toc"]["slugify"] = slugify(case="lower")
    fences = [{"name": "mermaid", "class": "drawing", "format": drawing}]
    config.mdx_configs["pymdownx.superfences"] = {"custom_fences": fences}
    return config


def drawing(source: str, language: str, css_class: str, *_: Any, **__: Any) -> str:  # noqa: ARG001
    """Draw a block of Mermaid when the site is built, so that readers need no script for it."""
    svg = mermaidx.render(source).svg()
    # Each has styles of its own, for its name.
    name = f"drawing-{hashlib.sha256(source.encode()).hexdigest()[:8]}"
    return f'<div class="{css_class}">{svg.replace("my-svg", name)}</div>'


def on_files(files: Files, /, *, config: MkDocsConfig) -> Files:
    """Add the pages outside docs/, and those that show the files that pages link to."""
    for source, uri in ELSEWHERE.items():
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / source)))
    for path in sorted(shown(files)):
        files.append(File.generated(config, source_page(path), content=show(path)))
    return files


def on_page_markdown(markdown: str, /, *, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Turn the links of a page into links within the site."""
    uri = page.file.src_uri
    if uri.startswith("source/"):
        return markdown
    source = in_repository(uri)

    def translated(link: re.Match[str]) -> str:
        target = resolved(source, link[1])
        return posixpath.relpath(uri_of(target), posixpath.dirname(uri) or ".") + (link[2] or "")

    return "".join(
        part if part.lstrip().startswith("```") else TARGET.sub(translated, part)
        for part in FENCED.split(markdown)
    )


def in_repository(uri: str) -> str:
    """Return where a page of the site lies in the repository."""
    return next((source for source, name in ELSEWHERE.items() if name == uri), DOCS + uri)


def uri_of(path: str) -> str:
    """Return what a file of the repository is called on the site."""
    if path in ELSEWHERE:
        return ELSEWHERE[path]
    return path.removeprefix(DOCS) if path.startswith(DOCS) else source_page(path)


def resolved(source: str, target: str) -> str:
    """Return which file of the repository a page's link leads to."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), target))


def shown(files: Files) -> set[str]:
    """Return the files that pages link to and that are no pages themselves, of those that there are."""
    found = set()
    for file in files.documentation_pages():
        source = in_repository(file.src_uri)
        text = FENCED.sub("", (ROOT / source).read_text())
        found |= {resolved(source, link[0]) for link in TARGET.findall(text)}
    return {
        path
        for path in found
        if path not in ELSEWHERE and not path.startswith((DOCS, "..")) and (ROOT / path).exists()
    }


def source_page(path: str) -> str:
    """Return the name of the page that shows a file or folder."""
    return f"source/{path}.md"


def show(path: str) -> str:
    """Return the page that shows a file, or the files of a folder."""
    whole = ROOT / path
    listed = [whole] if whole.is_file() else sorted(file for file in whole.iterdir() if file.is_file())
    # The search finds explanations, not tests.
    parts = [f"---\nsearch: {{exclude: true}}\n---\n\n# `{path}`\n"]
    for file in listed:
        if file != whole:
            parts.append(f"## `{file.name}`\n")
        parts += blocks(file.read_text(), file.suffix)
    return "\n".join(parts)


def blocks(text: str, suffix: str) -> Iterator[str]:
    """Yield a file as blocks, with a heading for each test, so that links can lead there."""
    lines = text.splitlines()
    tests = dict(beginnings(text)) if suffix == ".py" else {}
    starts = [0, *tests, len(lines)]
    for start, end in pairwise(starts):
        if start in tests:
            yield f"### `{tests[start]}` {{#{tests[start]}}}\n"
        code = "\n".join(lines[start:end]).rstrip()
        if code:
            yield f"````` {LANGUAGES.get(suffix, 'text')}\n{code}\n`````\n"


def beginnings(text: str) -> Iterator[tuple[int, str]]:
    """Yield the index of the line with which each test begins, and its name."""
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            yield min(part.lineno for part in (node, *node.decorator_list)) - 1, node.name
