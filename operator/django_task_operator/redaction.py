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

    def learn(self, url: str) -> None:
        """Remember a URL, even one that cannot be parsed, because the pods have it, too."""
        if url.strip() and url not in self._urls:
            self._urls.append(url)

    def __call__(self, text: str) -> str:
        """Return ``text`` without any form of a credential of a known URL."""
        patterns = [_patterns(url) for url in self._urls]
        for unique, _, _ in patterns:
            text = unique.sub(HIDDEN, text)
        text = without_credentials(text)
        for _, plain, names in patterns:
            if plain:
                text = "".join(_without(plain, line) for line in text.splitlines(keepends=True))
            if names:
                text = names.sub(HIDDEN, text)
        return text


def _without(plain: re.Pattern[str], line: str) -> str:
    ending = line[len(line.rstrip("\r\n")) :]
    return WITHHELD + ending if plain.search(line) else line


type _Patterns = tuple[re.Pattern[str], re.Pattern[str] | None, re.Pattern[str] | None]


@lru_cache(maxsize=1024)
def _patterns(url: str) -> _Patterns:
    """Return what is replaced anywhere, what causes a line to be left out, and what is replaced as a word."""
    secrets, names = _parts(url)
    written = {form for secret in secrets for form in _forms(secret)}
    # Messages are single lines, with single spaces.
    forms = (written | {" ".join(form.split()) for form in written}) - {""}
    forms = {form for form in forms if not form.isspace()}
    unique = {form for form in forms if _is_unique(form)}
    plain = forms - unique
    anywhere = "|".join(map(re.escape, sorted(unique, key=len, reverse=True))) or r"(?!)"
    return re.compile(anywhere, re.IGNORECASE), _words(plain), _words(names)


def _is_unique(form: str) -> bool:
    return len(form) >= (UNIQUE_LENGTH if form.isalpha() else UNIQUE_MIXED_LENGTH)


def _words(texts: Iterable[str]) -> re.Pattern[str] | None:
    """Match any of ``texts``, but not as part of a longer word."""
    words = [
        ("(?<![^\\W_])" if text[0].isalnum() else "")
        + re.escape(text)
        + ("(?![^\\W_])" if text[-1].isalnum() else "")
        for text in sorted(texts, key=len, reverse=True)
    ]
    return re.compile("|".join(words)) if words else None


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
