"""Every line of "What happens to my task when …" has a test."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
LINES = [line for line in PAGE.read_text().splitlines() if re.match(r"\|(?! when |---)", line)]


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.split("|")[1].strip()[:60])
def test_a_line_is_a_test(line: str) -> None:
    column = line.rstrip(" |").rpartition(" | ")[2]
    links = re.findall(r"\[\w+\]\((\S+)#(test_\w+)\)", column)
    assert links, "the last column links tests"
    for path, name in links:
        module = ast.parse((PAGE.parent / path).read_text())

        assert name in {
            each.name for each in module.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
        }


def test_there_are_lines() -> None:
    assert len(LINES) > 20
