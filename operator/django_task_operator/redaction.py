"""Removes a worker's credentials from text that others wrote.

The operator's own messages never pass through here. They contain no credentials because none are ever put
into them: a driver's message is translated into the operator's own words (``tasktable/failures.py``), not
quoted. Messages of pods, the kubelet and the API server have to be quoted, because only they say what is
wrong. They are redacted before they become part of a condition or an event.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections import deque
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus, unquote, unquote_plus, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

HIDDEN = "***"
WITHHELD = "[a line that may hold the database's password is left out]"
# After a rotation, pods may still run with the previous URL; and the operator may have its own.
REMEMBERED_URLS = 6
# A secret this long, or this long and not letters only, does not occur in a text by chance.
UNIQUE_LENGTH = 16
UNIQUE_MIXED_LENGTH = 8
# Parts of a password that a parser took for a port or a path are hidden if they are at least this long.
PART_LENGTH = 4

_URL_WITH_CREDENTIALS = re.compile(r"(\w[\w+.-]*://)\S*@\S*")
_ASSIGNED = re.compile(
    r"\b(\w*(?:password|passwd|pwd)=)('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|[^\s&;,]+)", re.IGNORECASE
)
_QUERY_SECRET = re.compile(r"[?&;]\w*(?:pass|pwd|secret|token)\w*=([^&;\s]+)", re.IGNORECASE)
_QUERY_NAME = re.compile(r"[?&;](?:user|host|hostaddr)=([^&;\s]+)", re.IGNORECASE)
_HEX = re.compile(r"%[0-9A-F]{2}")
_DELIMITERS = re.compile(r"[/?#\[\]@:&=%\s]+")


class Foreign(str):
    """Text that someone else wrote, and that may quote a credential."""

    __slots__ = ()


class OfSpec(Foreign):
    """Text about what the spec says, such as the kubelet's about an image, and not about the database.

    A name in it that the spec has, too, is from there: ``shop`` in ``secret "shop-db" not found`` is hidden
    from nobody who reads the spec beside it, and a gap would only tell that the database's user is called so.
    """

    __slots__ = ()


def without_credentials(text: str) -> str:
    """Return ``text`` without anything that has the form of a credential."""
    return _ASSIGNED.sub(rf"\1{HIDDEN}", _URL_WITH_CREDENTIALS.sub(rf"\1{HIDDEN}", text))


class Redactor:
    """Removes the database URLs of one worker from text that others wrote.

    A password that cannot occur in a text by chance is replaced everywhere, in every form in which programs
    write it. A short or simple one, such as ``p`` or ``postgres``, is not replaced, because the gap in
    ``the o***erator`` would reveal it: a line that contains it as a word is left out instead. Hosts and
    users are replaced where they occur as words. An unknown URL, for example from a Secret that the
    operator cannot read, is recognized by its form.
    """

    def __init__(self) -> None:
        """Know no URL yet."""
        self._urls: deque[str] = deque(maxlen=REMEMBERED_URLS)
        self._spec = ""

    def learn_spec(self, spec: str) -> None:
        """Know the words of the worker's spec, for text that is about it."""
        self._spec = spec

    def learn(self, url: str) -> None:
        """Remember a URL, even one that cannot be parsed, because the pods have it, too."""
        if url.strip() and url not in self._urls:
            self._urls.append(url)

    def __call__(self, text: str) -> str:
        """Return ``text`` without any form of a credential of a known URL."""
        known = [_telltales(url) for url in self._urls]
        spec = self._spec if isinstance(text, OfSpec) else ""
        for each in known:
            text = _hide(text, _anywhere(text, each.unique))
        text = without_credentials(text)
        for each in known:
            text = "".join(_without(each.plain, line) for line in text.splitlines(keepends=True))
            names = (name for name in each.names if not any(_as_words(spec, [name])))
            text = _hide(text, _as_words(text, names))
        return text


@dataclass(frozen=True)
class _Telltales:
    """What in a text would tell a URL's credentials."""

    unique: frozenset[str]  # replaced anywhere; in one case of letters
    plain: frozenset[str]  # a line that has one as a word is left out
    names: frozenset[str]  # replaced as words


@lru_cache(maxsize=1024)
def _telltales(url: str) -> _Telltales:
    secrets, names = _parts(url)
    written = {form for secret in secrets for form in _forms(secret)}
    # Messages are single lines, with single spaces, and none at their ends.
    forms = written | {form.strip() for form in written} | {" ".join(form.split()) for form in written}
    forms = {form for form in forms if form and not form.isspace()}
    unique = {form for form in forms if _is_unique(form)}
    return _Telltales(frozenset(map(_folded, unique)), frozenset(forms - unique), frozenset(names))


def _is_unique(form: str) -> bool:
    return len(form) >= (UNIQUE_LENGTH if form.isalpha() else UNIQUE_MIXED_LENGTH)


type _Spans = Iterator[tuple[int, int]]


def _anywhere(text: str, forms: Iterable[str]) -> _Spans:
    """Find ``forms``, which are folded, in either case of letters."""
    folded = _folded(text)
    return (span for form in forms for span in _found(folded, form))


def _as_words(text: str, words: Iterable[str]) -> _Spans:
    """Find ``words``, but not as part of a longer word."""
    return (
        (start, end)
        for word in words
        for start, end in _found(text, word)
        if not (text[start].isalnum() and text[max(start - 1, 0) : start].isalnum())
        and not (text[end - 1].isalnum() and text[end : end + 1].isalnum())
    )


def _found(text: str, part: str) -> _Spans:
    """Find all places of ``part``, which may overlap."""
    start = text.find(part)
    while start >= 0:
        yield start, start + len(part)
        start = text.find(part, start + 1)


def _folded(text: str) -> str:
    """Fold the case of each letter that this does not make longer: places stay what they are."""
    if text.isascii():
        return text.lower()
    return "".join(folded if len(folded := letter.casefold()) == 1 else letter for letter in text)


def _hide(text: str, spans: _Spans) -> str:
    """Replace all that lies in any of ``spans``."""
    shown: list[str] = []
    at = 0
    for start, end in sorted(spans):
        if end > at:
            # Where one begins within another, both are one gap.
            shown += [text[at:start], HIDDEN] if start >= at else []
            at = end
    return "".join(shown) + text[at:]


def _without(words: Iterable[str], line: str) -> str:
    ending = line[len(line.rstrip("\r\n")) :]
    return WITHHELD + ending if any(_as_words(line, words)) else line


def _parts(url: str) -> tuple[set[str], set[str]]:
    """Return the secrets in a URL, well-formed or not, and the names of its hosts and users."""
    stripped = url.strip()
    rest = stripped.partition("://")[2] or stripped
    credentials, _, place = rest.rpartition("@")
    user, _, password = credentials.partition(":")
    passwords = {password, *_QUERY_SECRET.findall(stripped)}
    names = {user, *_QUERY_NAME.findall(stripped), *_hosts(place)}
    try:
        split = urlsplit(stripped)
        passwords.add(split.password or "")
        names |= {split.username or "", *_hosts(split.netloc.rpartition("@")[2])}
    except ValueError:
        # Not well-formed: there are no parts other than those above.
        pass
    # If a character was not percent-encoded, parsers split the password there and quote the parts.
    parts = {part for each in passwords for part in _DELIMITERS.split(each) if len(part) >= PART_LENGTH}
    return (
        {url, stripped, *((rest, credentials) if credentials else ()), *passwords, *parts} - {""},
        {name for each in names for name in (each, unquote(each))} - {""},
    )


def _hosts(place: str) -> Iterator[str]:
    for host in re.split("[/?#]", place, maxsplit=1)[0].split(","):
        # An IPv6 address is in brackets.
        yield host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]


def _forms(secret: str) -> Iterator[str]:
    """Return the forms of a secret: encoded, decoded, quoted for JSON, Python, HTML and SQL, in base64."""
    for plain in {secret, unquote(secret), unquote_plus(secret)}:
        yield plain
        for encoded in (quote(plain), quote(plain, safe=""), quote_plus(plain)):
            yield encoded
            yield _HEX.sub(lambda code: code[0].lower(), encoded)
        for ascii_only in (True, False):
            escaped = json.dumps(plain, ensure_ascii=ascii_only)[1:-1]
            yield escaped
            yield json.dumps(escaped)[1:-1]
        yield repr(plain)[1:-1]
        yield ascii(plain)[1:-1]
        yield html.escape(plain)
        yield plain.replace("'", "''")
        yield plain.replace("\\", "\\\\").replace("'", "\\'")
        data = plain.encode(errors="surrogatepass")
        yield repr(data)[2:-1]
        yield from _base64(data)
        # A secret with several lines is shown line by line.
        yield from (line for line in plain.splitlines() if len(line) >= PART_LENGTH)


def _base64(data: bytes) -> Iterator[str]:
    """Return its encodings alone and within a longer text, for each offset of its first byte in a triple."""
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        alone = encode(data).decode()
        yield alone
        yield alone.rstrip("=")
        for before in range(3):
            # The first and the last characters depend on the neighbouring bytes.
            whole = encode(b"\0" * before + data).decode()
            inner = whole[(before * 8 + 5) // 6 : ((before + len(data)) * 8) // 6]
            if len(inner) >= UNIQUE_MIXED_LENGTH:
                yield inner
