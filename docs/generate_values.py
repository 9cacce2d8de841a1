#!/usr/bin/env python3
"""Writes the table of values in the chart's README from the comments in values.yaml, or checks it."""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

CHART = Path(__file__).parent.parent / "charts" / "django-task-operator"
VALUES = CHART / "values.yaml"
README = CHART / "README.md"
TABLE = re.compile(r"^\| value \| default \| meaning \|\n(\|.*\n)+", re.MULTILINE)
# A comment's last line, for a default that says little as it is.
IN_WORDS = re.compile(r"(?:^|\s)Default: (.+)$")
# Values that are documented as one, although their defaults have parts.
WHOLE = ("resources",)


def main() -> None:
    """Write the README, or check it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the file is not current")
    check = parser.parse_args().check
    before = README.read_text()
    rows = "".join(f"{row}\n" for row in table(VALUES.read_text()))
    after = TABLE.sub(lambda _: rows, before)
    if not check:
        README.write_text(after)
    elif before != after:
        sys.exit("the table in the chart's README is not current: run docs/generate_values.py")


def table(text: str) -> Iterator[str]:
    """Yield the lines of the table of the values in this text.

    Raises:
        SystemExit: a value has no comment above it; the message names it.
    """
    yield "| value | default | meaning |"
    yield "|---|---|---|"
    lines = text.splitlines()
    for name, key, value in leaves(yaml.compose(text)):
        comment = above(lines, key.start_mark.line)
        if not comment:
            sys.exit(f"{name}: say in a comment above it, in values.yaml, what it is for")
        words = IN_WORDS.search(comment)
        default = words[1] if words else f"`{written(value)}`"
        yield f"| `{name}` | {default} | {IN_WORDS.sub('', comment).replace('|', '\\|')} |"


def leaves(node: yaml.Node | None, path: str = "") -> Iterator[tuple[str, yaml.ScalarNode, yaml.Node]]:
    """Yield the path of each value, its key and its default."""
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        name = f"{path}{key.value}"
        if isinstance(value, yaml.MappingNode) and value.value and name not in WHOLE:
            yield from leaves(value, f"{name}.")
        else:
            yield name, key, value


def above(lines: list[str], number: int) -> str:
    """Return the comment that ends above this line, as one line."""
    found: list[str] = []
    while number and (match := re.fullmatch(r"\s*# ?(.*)", lines[number - 1])):
        found.insert(0, match[1].strip())
        number -= 1
    return " ".join(found)


def written(node: yaml.Node) -> str:
    """Return a default as one writes it."""
    value = yaml.safe_load(yaml.serialize(node))
    return value if isinstance(value, str) and value else json.dumps(value)


if __name__ == "__main__":
    main()
