"""One style of log messages: the name of an event, with all details in fields."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

OPERATOR = Path(__file__).parents[2] / "operator" / "django_task_operator"
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}


def calls() -> Iterator[tuple[str, ast.Call]]:
    for path in sorted(OPERATOR.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == "log"
                and node.func.attr in LEVELS
            ):
                yield f"{path.relative_to(OPERATOR)}:{node.lineno}", node


CALLS = dict(calls())


def constants(node: ast.expr) -> Iterator[str]:
    """The possible values of a message, if they are known."""
    if isinstance(node, ast.IfExp):
        yield from constants(node.body)
        yield from constants(node.orelse)
    elif isinstance(node, ast.Constant):
        yield node.value  # type: ignore[misc]
    else:
        assert isinstance(node, ast.Name), "a message is no text that is put together"


def test_there_are_log_messages() -> None:
    assert len(CALLS) > 30


@pytest.mark.parametrize("place", CALLS)
def test_a_message_is_a_few_words_and_the_rest_are_fields(place: str) -> None:
    call = CALLS[place]

    (message,) = call.args
    for text in constants(message):
        assert re.fullmatch(r"[A-Za-z]+( [A-Za-z]+){0,4}", text), text
    assert {keyword.arg for keyword in call.keywords} <= {"extra", "exc_info"}
