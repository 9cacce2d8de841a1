"""The drawing in docs/architecture.md matches the imports, and every room is named there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "operator" / "django_task_operator"
PAGE = (ROOT / "docs" / "architecture.md").read_text()
ROOMS = sorted(
    path.stem
    for path in PACKAGE.iterdir()
    if (path.suffix == ".py" and path.stem != "__init__") or (path / "__init__.py").exists()
)


def test_the_drawing_is_what_the_imports_say() -> None:
    drawn = set(re.findall(r"^ +(\w+)(?:\[[^]]*\])? --> (\w+)", PAGE, flags=re.MULTILINE))
    assert drawn == without_detours(imports_between_rooms())


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_is_named(room: str) -> None:
    assert f"| `{room}" in PAGE


@pytest.mark.parametrize("folder", sorted(path.parent for path in PACKAGE.rglob("__init__.py")))
def test_every_folder_says_what_is_inside_what_comes_in_and_what_goes_out(folder: Path) -> None:
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
    assert text
    if folder != PACKAGE:
        assert len(re.findall(r"[.:](?:\s|$)", text)) >= 3


def test_every_folder_of_tests_is_run() -> None:
    folders = {path.relative_to(ROOT / "tests").parts[0] for path in (ROOT / "tests").rglob("test_*.py")}
    named = set(re.findall(r"tests/(\w+)", (ROOT / "tests" / "run").read_text()))
    assert folders <= named


def imports_between_rooms() -> set[tuple[str, str]]:
    graph = grimp.build_graph(PACKAGE.name, exclude_type_checking_imports=True)
    pairs = (
        (module, imported)
        for module in graph.modules
        for imported in graph.find_modules_directly_imported_by(module)
    )
    rooms = ((room(module), room(imported)) for module, imported in pairs)
    return {(one, other) for one, other in rooms if one and other and one != other}


def room(module: str) -> str | None:
    _, *parts = module.split(".")
    return parts[0] if parts else None


def without_detours(arrows: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Leave out arrows that others imply, which keeps the drawing simple."""

    def reached(start: str) -> set[str]:
        near = {other for one, other in arrows if one == start}
        return near.union(*(reached(other) for other in near))

    return {
        (one, other)
        for one, other in arrows
        if not any(other in reached(near) for start, near in arrows if start == one and near != other)
    }
