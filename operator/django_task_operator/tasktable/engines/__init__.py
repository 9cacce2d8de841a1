"""Everything that depends on the kind of database server, with a file for each.

Inside are the interface of an engine (``base.py``) and one file for each engine, with everything specific to
its server and driver: the URL's schemes, the connection's options and timeouts, the meaning of the driver's
exceptions, and differences in SQL. In come the parts of a URL, a connection and the driver's exceptions; out
come options for Django, fragments of SQL and the errors of ``tasktable.errors``.

A new engine is a file here, a line in ``ENGINES`` and a value of ``spec.DatabaseEngine``. Databases without
an engine are refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from django_task_operator.tasktable.engines.base import Engine, Limits, Place
from django_task_operator.tasktable.engines.mysql import MySQL
from django_task_operator.tasktable.engines.postgresql import PostgreSQL
from django_task_operator.tasktable.errors import UnsupportedDatabase

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper

    from django_task_operator.spec import DatabaseEngine

__all__ = [
    "ENGINES",
    "Engine",
    "Limits",
    "Place",
    "engine_of_connection",
    "engine_of_name",
    "engine_of_scheme",
]

ENGINES: tuple[Engine, ...] = (PostgreSQL(), MySQL())

_REFUSED = {
    "sqlite": ("SQLite", "it is a file, and pods cannot share a file"),
    "spatialite": ("SpatiaLite", "it is a file, and pods cannot share a file"),
    "oracle": ("Oracle", "the operator has no driver for it"),
    "oraclegis": ("Oracle", "the operator has no driver for it"),
    "mssql": ("SQL Server", "the operator has no driver for it"),
    "mssqlms": ("SQL Server", "the operator has no driver for it"),
    "pyodbc": ("SQL Server", "the operator has no driver for it"),
    "cockroachdb": ("CockroachDB", "the operator's query is not tested on it"),
    "redshift": ("Redshift", "it is not suitable for a task queue"),
    "cockroach": ("CockroachDB", "the operator's query is not tested on it"),
}


def engine_of_scheme(scheme: str) -> Engine | None:
    """Find the engine of a URL's scheme; None if the scheme is unknown.

    Raises:
        UnsupportedDatabase: it names a database that the operator does not support.
    """
    if refused := _REFUSED.get(scheme):
        database, why = refused
        raise UnsupportedDatabase(database=database, why=why)
    return next((engine for engine in ENGINES if scheme in engine.schemes), None)


def engine_of_name(name: DatabaseEngine) -> Engine:
    """Find the engine that a worker's spec names."""
    return next(engine for engine in ENGINES if engine.name == name)


def engine_of_connection(connection: BaseDatabaseWrapper) -> Engine:
    """Find the engine of a connection, by Django's name for its vendor.

    Raises:
        UnsupportedDatabase: there is none.
    """
    for engine in ENGINES:
        if engine.vendor == connection.vendor:
            return engine
    known = ", ".join(engine.vendor for engine in ENGINES)
    raise UnsupportedDatabase(
        database=connection.vendor, why=f"the operator has no engine of that name, but {known}"
    )
