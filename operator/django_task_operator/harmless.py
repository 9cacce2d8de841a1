"""Makes text that others wrote safe to show: in conditions, events, log lines and metrics.

Names of queues, paths of tasks and the words of exceptions come from tenants' databases and pods. They may
clear the terminal of an administrator, reverse what it shows, start a line of their own in a log, or run as a
script in a dashboard that forgets to escape. Ordinary text, in any language, is not altered.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

# How many characters of a name are shown. Upstream's queues have at most 32.
LONGEST_NAME = 200
# How many characters of a message are shown, and of a field of a log line.
LONGEST_TEXT = 4096
# How many names are listed before "and 17 more".
MOST_NAMES = 5

_CUT = "…"
# Control and format characters (which hold the zero-width and the bidirectional ones), surrogates.
_CATEGORIES = frozenset({"Cc", "Cf", "Cs"})
# Invisible, although they are letters and marks: Default_Ignorable_Code_Point in Unicode's
# DerivedCoreProperties.txt, without the variation selectors, which emojis have.
_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0")
_NEW_LINES = re.compile(r"[\t\n\v\f\r\x85\u2028\u2029]+")
# What HTML reads as the start of a tag (the standard's "tag open state"); "2 < 3" and "2 -> 3" are none.
# Python's tracebacks have <module> and so on, without attributes: HTML knows no such elements.
_TAG = re.compile(r"<(?=[A-Za-z/!?])(?!(?:module|lambda|locals|listcomp|genexpr|string|stdin)>)")


def harmless(text: str, longest: int = LONGEST_TEXT) -> str:
    r"""Return ``text`` in one line of at most ``longest`` characters, with escapes for what could harm.

    Control, bidirectional, zero-width and other invisible characters, and the ``<`` of HTML's tags, are
    written as in Python's string literals (``\x1b``, ``\u202e``, ``\x3c``). Line breaks and tabs become
    spaces. What is too long is cut, and ends with ``…``.
    """
    # So that megabytes cost no more than what is shown of them.
    said = _TAG.sub(r"\\x3c", _NEW_LINES.sub(" ", text[: longest + 1]))
    if not said.isprintable() or not said.isascii():
        said = "".join(_escaped(char) if _is_hidden(char) else char for char in said)
    too_long = len(text) > longest or len(said) > longest
    return said[: longest - 1] + _CUT if too_long else said


def harmless_name(text: str) -> str:
    """Return a name that others chose: the same, but shorter."""
    return harmless(text, LONGEST_NAME)


def harmless_names(texts: Sequence[str]) -> str:
    """Return a list of names for people, which is not long however many there are."""
    shown = ", ".join(harmless_name(text) for text in texts[:MOST_NAMES])
    more = len(texts) - MOST_NAMES
    return f"{shown} and {more} more" if more > 0 else shown


def _is_hidden(char: str) -> bool:
    return unicodedata.category(char) in _CATEGORIES or char in _INVISIBLE


def _escaped(char: str) -> str:
    code = ord(char)
    if code <= 0xFF:  # noqa: PLR2004  as Python's own escapes
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"  # noqa: PLR2004
