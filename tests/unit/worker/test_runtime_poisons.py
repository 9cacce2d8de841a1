"""What docs/worker.md promises of tasks that misbehave is what the tests of poison try."""

from __future__ import annotations

import re
from pathlib import Path

from tests.worker.poisons import CONSTRAINTS, MODEL_RECEIVERS, POISONS, RECEIVERS

PAGE = Path(__file__).parents[3] / "docs" / "worker.md"


def test_each_line_of_the_page_is_tried_and_each_poison_has_a_line() -> None:
    section = PAGE.read_text().partition("## What a task may do to its worker\n")[2].partition("\n## ")[0]
    lines = re.findall(r"^\| ([^|]+) \|", section, re.MULTILINE)
    assert lines == ["a task that", *POISONS, MODEL_RECEIVERS, CONSTRAINTS, RECEIVERS]
    assert all(POISONS.values())
