"""A database URL as a value that cannot leak: parsed once, never shown.

It is parsed like ``dj-database-url`` and ``django-environ`` do, because the pods get the same URL. What they
do not support, such as libpq's several hosts, is parsed like libpq does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, Self
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from django_task_operator.tasktable.engines import Engine, Place, engine_of_scheme
from django_task_operator.tasktable.errors import InvalidURL

if TYPE_CHECKING:
    from collections.abc import Mapping

    from django_task_operator.tasktable.tokens import TokenSource

HIDDEN = "***"

_SCHEME = re.compile(r"([A-Za-z][\w+.-]*):")
_CONNINFO = re.compile(r"\s*(host|hostaddr|port|dbname|user|password|service)\s*=")
_ASSIGNMENT = re.compile(r"(export\s+)?[A-Z][A-Z0-9_]*\s*=")
_LOCALHOST = re.compile(r"localhost\.?|.*\.localhost\.?", re.IGNORECASE)


@dataclass(frozen=True, slots=True, repr=False)
class DatabaseURL:
    """Where a task table is.

    URLs are equal if their text and authorities are, so they can be dictionary keys. Neither ``repr`` nor
    ``str`` shows any part of them.
    """

    text: str
    engine: Engine = field(compare=False)
    host: str = field(compare=False)
    port: str = field(compare=False)
    name: str = field(compare=False)
    user: str = field(compare=False)
    password: str = field(compare=False)
    options: Mapping[str, str] = field(compare=False)
    root_cert: str = ""
    # What prints the password. Another one is another URL: whoever may not have the token does not share the
    # connection of those who may.
    token: TokenSource | None = None

    @classmethod
    def parse(cls, text: str, root_cert: str = "") -> Self:
        """Read a URL; ``root_cert`` has the certificates, as PEM, of those who vouch for the server.

        Raises:
            InvalidURL: it is not a URL, or lacks a host or a database name.
            UnsupportedDatabase: it names a database that cannot be sampled.
        """
        # As urlsplit does in the pods: a Secret created from a file ends with a newline.
        text = re.sub(r"[\r\n\t]", "", text).lstrip()
        engine = _engine(text)
        if text.endswith(" "):
            raise InvalidURL(problem="it ends in a space, which becomes a part of the database's name")
        parts = _split(text)
        if isinstance(parts, str):
            raise InvalidURL(problem=parts)
        place = engine.read(_place(parts))
        if place.host.startswith("/") or place.name.startswith("/"):
            raise InvalidURL(problem="it names a Unix socket, which the operator's pod does not have")
        if not place.host:
            raise InvalidURL(problem="it names no host")
        if not place.name:
            raise InvalidURL(problem="it names no database")
        return cls(
            text=text,
            engine=engine,
            host=place.host,
            port=place.port,
            name=place.name,
            user=place.user,
            password=place.password,
            options=place.options,
            root_cert=root_cert,
        )

    def with_token(self, token: TokenSource) -> Self:
        """Return the same URL, whose password is a token."""
        return replace(self, token=token)

    @property
    def is_loopback(self) -> bool:
        """Whether the host is the client's own machine or pod."""
        if _LOCALHOST.fullmatch(self.host):
            return True
        try:
            address = ip_address(self.host)
        except ValueError:
            return False
        return address.is_loopback or address.is_unspecified

    def __repr__(self) -> str:
        return f"{type(self).__name__}({HIDDEN})"


def _engine(text: str) -> Engine:
    """Find the engine of the URL's scheme.

    Raises:
        InvalidURL: the scheme is unknown.
        UnsupportedDatabase: it names a database that cannot be sampled.
    """
    if not text.strip():
        raise InvalidURL(problem="it is empty")
    match = _SCHEME.match(text)
    scheme = match[1].lower() if match else ""
    engine = engine_of_scheme(scheme)
    if engine is not None and text[len(scheme) :].startswith("://"):
        return engine
    first, _, driver = scheme.partition("+")
    if driver and engine_of_scheme(first) is not None:
        raise InvalidURL(problem=f"it is a URL for SQLAlchemy: write {first}:// instead of {first}+DRIVER://")
    if scheme == "jdbc":
        problem = "it is a URL for Java: leave jdbc: out, and write USER:PASSWORD@ before the host"
    elif text[0] in "'\"`":
        problem = "it is in quotation marks: the URL has to be alone"
    elif _CONNINFO.match(text):
        problem = "it is a connection string of keywords and values: write it as a URL"
    elif _ASSIGNMENT.match(text):
        problem = "it begins with a name and an equals sign: the URL has to be alone"
    else:
        problem = "it does not start with postgres:// or mysql://"
    raise InvalidURL(problem=problem)


def _split(text: str) -> SplitResult | str:
    """Return the parts of a URL, or why it cannot be parsed, without quoting any of it.

    urllib's exceptions quote parts of the URL, so this returns an error instead of raising one from them.
    """
    authority, rest = re.fullmatch(r"[^:]*://([^/?#]*)(.*)", text, re.DOTALL).groups()  # type: ignore[union-attr]
    if problem := _unencoded(authority, rest):
        return problem
    try:
        parts = urlsplit(text)
    except ValueError:
        return "it has a character that has to be percent-encoded"
    return parts


def _unencoded(authority: str, rest: str) -> str | None:
    """Return which unencoded character of a password ends its part of the URL too early, if one does."""
    path = re.split(r"[?#]", rest, maxsplit=1)[0]
    userinfo, at, hosts = authority.rpartition("@")
    if "@" in path and (at or ":" in authority):
        return _write("/", "%2F")
    if rest.startswith("?") and "@" in rest.partition("=")[0]:
        return _write("?", "%3F")
    if "#" in rest:
        return _write("#", "%23")
    for bracket, code in (("[", "%5B"), ("]", "%5D")):
        if bracket in userinfo:
            return _write(bracket, code)
    if "\ufffd" in unquote(userinfo) and "\ufffd" not in userinfo and "%EF%BF%BD" not in userinfo.upper():
        return _write("%", "%25")
    return _host_problem(hosts)


def _write(character: str, code: str) -> str:
    return (
        f"a {character} in the user, the password or the database's name is not percent-encoded: "
        f"write {code} for it"
    )


def _host_problem(hosts: str) -> str | None:
    for host in hosts.split(","):
        name, _, port = host.rpartition(":") if ":" in host else (host, "", "")
        if host.startswith("["):
            inside, closing, port = host[1:].partition("]")
            if not closing or (port and not port.startswith(":")) or not is_ipv6(inside):
                return "what is in brackets is no IPv6 address; a bracket in a password is written %5B or %5D"
            port = port[1:]
        elif "[" in host or "]" in host:
            return "there is a bracket in the host; one in a password is written %5B or %5D"
        elif ":" in name:
            return "an IPv6 address has to be in brackets, as in [fd00::7]:5432"
        if port and not (port.isascii() and port.isdigit() and int(port) <= 65535):  # noqa: PLR2004  TCP's
            return (
                "its port is no number between 0 and 65535; if that is a part of the password, "
                "write %2F for /, %3F for ? and %23 for # in it"
            )
    return None


def is_ipv6(text: str) -> bool:
    """Whether a text is an IPv6 address, with a zone or without: what urlsplit accepts in brackets."""
    try:
        return ip_address(text).version == 6  # noqa: PLR2004
    except ValueError:
        return False


def _place(parts: SplitResult) -> Place:
    userinfo, _, hosts = parts.netloc.rpartition("@")
    user, _, password = userinfo.partition(":")
    names, ports = [], []
    for each in hosts.split(","):
        bracketed = re.fullmatch(r"\[(.*)\](?::(\d*))?", each)
        name, _, port = each.partition(":")
        names.append(bracketed[1] if bracketed else unquote(name))
        ports.append((bracketed[2] or "") if bracketed else port)
    return Place(
        host=",".join(names),
        # libpq requires one port for all hosts, or one for each.
        port=",".join(ports) if len(set(ports)) > 1 else ports[0],
        name=unquote(parts.path[1:]),
        user=unquote(user),
        password=unquote(password),
        options={name: values[-1] for name, values in parse_qs(parts.query).items()},
    )
