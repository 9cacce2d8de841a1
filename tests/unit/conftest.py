"""What unit tests of several rooms put back."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def unchanged_logging() -> Iterator[None]:
    """Put back what ``logs.configure`` changes."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name in ("kopf", "kopf.objects"):
        logging.getLogger(name).setLevel(logging.NOTSET)
