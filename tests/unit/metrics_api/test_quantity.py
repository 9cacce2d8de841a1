"""Quantities, in the form in which Kubernetes' resource.Quantity writes them."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_task_operator.metrics_api.quantity import quantity

SUFFIXES = {"m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (42, "42"),
        (1.5, "1500m"),
        (0.0004, "0"),
        (0.0006, "1m"),
        (999, "999"),
        (1000, "1k"),
        (1500, "1500"),
        (12.0, "12"),
        (2_000_000, "2M"),
        (1_000_001, "1000001"),
    ],
)
def test_canonical_form(number: float, text: str) -> None:
    assert quantity(number) == text


@given(st.integers(min_value=0, max_value=10**15))
def test_it_says_the_same_number_with_the_largest_suffix(number: int) -> None:
    text = quantity(number)
    digits = text.rstrip("".join(SUFFIXES))
    suffix = text[len(digits) :]
    assert Decimal(digits).scaleb(SUFFIXES[suffix]) == number
    assert not digits.endswith("000") or suffix == "E"
