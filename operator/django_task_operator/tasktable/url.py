"""A database URL as a value that cannot leak: parsed once, never shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from django_task_operator.tasktable.engines import Engine, engine_of_scheme
from django_task_operator.tasktable.errors import InvalidURL

if TYPE_CHECKING:
    from collections.abc import Mapping

HIDDEN = "***"


@dataclass(frozen=True, slots=True, repr=False)
class DatabaseURL:
    """Where a task table is.

    Equal by the URL's text, so it can key a dictionary. Neither ``repr`` nor ``str`` shows any of it.
    """

    text: str
    engine: Engine = field(compare=False)
    host: str = field(compare=False)
    port: str = field(compare=False)
    name: str = field(compare=False)
    user: str = field(compare=False)
    password: str = field(compare=False)
    options: Mapping[str, str] = field(compare=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a URL as ``dj-database-url`` does.

        Raises:
            InvalidURL: it is no URL, or lacks a host or a database name.
            UnsupportedDatabase: it names a database that cannot be sampled.
        """
        text = text.strip()  # a Secret made from a file ends in a newline
        scheme, _, rest = text.partition(":")
        engine = engine_of_scheme(scheme)
        if not text or not rest.startswith("//") or engine is None:
            problem = "it is empty" if not text else "it does not start with postgres:// or mysql://"
            raise InvalidURL(problem=problem)
        parts = _split(text)
        if parts is None:
            raise InvalidURL(problem="it is not a well-formed URL")
        options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        host = unquote(parts.hostname or "") or options.get("host", "")
        name = unquote(parts.path[1:])
        if host.startswith("/") or "unix_socket" in options:
            raise InvalidURL(problem="it names a Unix socket, which the operator's pod does not have")
        if not host:
            raise InvalidURL(problem="it names no host")
        if not name:
            raise InvalidURL(problem="it names no database")
        return cls(
            text=text,
            engine=engine,
            host=host,
            port=str(parts.port or ""),
            name=name,
            user=unquote(parts.username or ""),
            password=unquote(parts.password or ""),
            options=options,
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({HIDDEN})"


def _split(text: str) -> SplitResult | None:
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        # The reason quotes parts of the URL; returning leaves it behind.
        return None
    return parts
