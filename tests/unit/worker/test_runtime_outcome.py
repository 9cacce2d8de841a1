"""What is stored for an exception or a result, of any kind."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from django_db_worker.outcome import (
    LARGE,
    TRACEBACK_HEAD,
    TRACEBACK_TAIL,
    check_size,
    formatted,
    least,
    plain,
)
from hypothesis import given
from hypothesis import strategies as st


def caught(error: BaseException) -> BaseException:
    try:
        raise error  # noqa: TRY301
    except BaseException as raised:  # noqa: BLE001
        return raised


def test_an_exception_is_written_as_python_does() -> None:
    text = formatted(caught(ValueError("no good: ж")))
    assert text.startswith("Traceback (most recent call last):\n")
    assert "in caught\n" in text
    assert text.endswith("ValueError: no good: ж\n")


@given(st.text(alphabet=st.characters(exclude_categories=()), max_size=50))
def test_every_text_can_be_encoded_and_has_no_nul(text: str) -> None:
    written = formatted(ValueError(text))
    assert "\x00" not in written
    written.encode()


def test_a_long_one_keeps_its_beginning_and_its_end() -> None:
    text = formatted(caught(ValueError("the beginning" + "x" * 10_000_000 + "the end")))
    assert text.startswith("Traceback")
    assert "the beginningxxx" in text
    assert text.endswith("the end\n")
    assert "characters left out]" in text
    assert len(text) < TRACEBACK_HEAD + TRACEBACK_TAIL + 100


class Hostile(Exception):
    """An exception that raises when formatting reads an attribute."""

    def __getattribute__(self, name: str) -> object:
        raise SystemExit(name)

    def __str__(self) -> str:
        raise SystemExit


def test_one_that_cannot_be_formatted_still_says_what_and_where() -> None:
    text = formatted(caught(Hostile()))
    assert "in caught\n" in text
    assert "Hostile" in text


def test_a_failure_in_ascii_and_the_least_of_it() -> None:
    row = SimpleNamespace(exception_class_path="shop.Ж", traceback="x" * 10_000 + "\U0001f600, the end")
    plain(row)
    assert row.exception_class_path == "shop.\\u0416"
    assert row.traceback.endswith("x\\U0001f600, the end")
    least(row)
    assert row.traceback.endswith("x\\U0001f600, the end")
    assert len(row.traceback) == 200


@pytest.mark.parametrize(
    ("text", "limit", "fits"),
    [
        ('"short"', 0, True),
        ("x" * LARGE, LARGE * 2, True),
        ("x" * LARGE, LARGE, False),
        ('"' * LARGE, LARGE * 3, True),
        ('"' * LARGE, LARGE * 2, False),
        ("x" * LARGE, None, True),
        (None, 0, True),
    ],
)
def test_the_largest_result(text: str | None, limit: int | None, *, fits: bool) -> None:
    row = SimpleNamespace(encoded_value=text)
    most = (limit, "max_allowed_packet") if limit is not None else None
    if fits:
        check_size(row, lambda: most)
    else:
        with pytest.raises(ValueError, match=rf"{len(text or ''):,} bytes.*{limit:,} \(max_allowed_packet\)"):
            check_size(row, lambda: most)
