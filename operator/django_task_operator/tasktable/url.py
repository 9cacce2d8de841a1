"""A database URL as a value that cannot leak: parsed once, never shown."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

import dj_database_url

from django_task_operator.tasktable.errors import InvalidURL, UnsupportedDatabase

if TYPE_CHECKING:
    from collections.abc import Mapping

HIDDEN = "***"


class Engine(enum.Enum):
    """The two kinds of server, by Django's name of the backend."""

    POSTGRESQL = "django.db.backends.postgresql"
    MYSQL = "django.db.backends.mysql"


# GeoDjango and Timescale are PostgreSQL or MySQL to somebody who only counts rows.
_ENGINES = {
    "postgres": Engine.POSTGRESQL,
    "postgresql": Engine.POSTGRESQL,
    "pgsql": Engine.POSTGRESQL,
    "postgis": Engine.POSTGRESQL,
    "timescale": Engine.POSTGRESQL,
    "timescalegis": Engine.POSTGRESQL,
    "mysql": Engine.MYSQL,
    "mysql2": Engine.MYSQL,
    "mysqlgis": Engine.MYSQL,
    "mysql-connector": Engine.MYSQL,
}
_REFUSED = {
    "sqlite": ("SQLite", "it is a file, and pods cannot share a file"),
    "spatialite": ("SpatiaLite", "it is a file, and pods cannot share a file"),
    "oracle": ("Oracle", "the operator has no driver for it"),
    "oraclegis": ("Oracle", "the operator has no driver for it"),
    "mssql": ("SQL Server", "the operator has no driver for it"),
    "mssqlms": ("SQL Server", "the operator has no driver for it"),
    "redshift": ("Redshift", "it is no store for a queue of tasks"),
    "cockroach": ("CockroachDB", "the operator's query is not tried on it"),
}


@dataclass(frozen=True, slots=True, repr=False)
class DatabaseURL:
    """Where a task table is.

    Equal by the URL's text, so it can key a dictionary. Neither ``repr`` nor ``str`` shows any of it.
    """

    text: str
    engine: Engine = field(compare=False)
    host: str = field(compare=False)
    port: int | None = field(compare=False)
    name: str = field(compare=False)
    user: str = field(compare=False)
    password: str = field(compare=False)
    options: Mapping[str, object] = field(compare=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a URL as ``dj-database-url`` does.

        Raises:
            InvalidURL: it is no URL, or lacks a host or a database name.
            UnsupportedDatabase: it names a database that cannot be sampled.
        """
        text = text.strip()  # a Secret made from a file ends in a newline
        scheme, _, rest = text.partition(":")
        if refused := _REFUSED.get(scheme):
            database, why = refused
            raise UnsupportedDatabase(database=database, why=why)
        engine = _ENGINES.get(scheme)
        if not text or not rest.startswith("//") or engine is None:
            problem = "it is empty" if not text else "it does not start with postgres:// or mysql://"
            raise InvalidURL(problem=problem)
        config = _read(text)
        if config is None:
            raise InvalidURL(problem="it is not a well-formed URL")
        options = config.get("OPTIONS", {})
        host = config["HOST"] or str(options.get("host", ""))
        if host.startswith("/") or "unix_socket" in options:
            raise InvalidURL(problem="it names a Unix socket, which the operator's pod does not have")
        if not host:
            raise InvalidURL(problem="it names no host")
        if not config["NAME"]:
            raise InvalidURL(problem="it names no database")
        return cls(
            text=text,
            engine=engine,
            host=host,
            port=int(config["PORT"]) if config["PORT"] else None,
            name=config["NAME"],
            user=config["USER"],
            password=config["PASSWORD"],
            options=options,
        )

    def redact(self, text: str) -> str:
        """``text`` with the URL and the password replaced, as it stands in the URL and decoded."""
        secrets = {self.text, self.password, urlsplit(self.text).password or ""} - {""}
        for secret in sorted(secrets, key=len, reverse=True):
            text = text.replace(secret, HIDDEN)
        return text

    def __repr__(self) -> str:
        return f"{type(self).__name__}({HIDDEN})"


def _read(text: str) -> dj_database_url.DBConfig | None:
    try:
        return dj_database_url.parse(text)
    except ValueError:
        # The reason quotes parts of the URL; returning leaves it behind.
        return None
