"""PostgreSQL, through psycopg."""

from __future__ import annotations

import ctypes
import importlib
import os
import re
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, Self, override

import psycopg
from psycopg import pq
from psycopg.waiting import Wait

from django_task_operator.spec import DatabaseEngine
from django_task_operator.tasktable.engines.base import APPLICATION_NAME, Engine, Limits, Place
from django_task_operator.tasktable.errors import (
    AuthenticationFailed,
    ConnectionLost,
    ConnectionRefused,
    ConnectionTimedOut,
    DatabaseError,
    DatabaseFailed,
    DatabaseMissing,
    DatabaseReadOnly,
    HostUnknown,
    PermissionDenied,
    SampleTimedOut,
    StatementConflict,
    TableMissing,
    TableOutdated,
    TLSFailed,
    TooManyConnections,
)

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping, Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper
    from psycopg.waiting import Ready

# The options that libpq accepts in a URL, without Django's own (a pool is useless for one connection;
# server_side_binding hides the values from the planner, which then cannot use a partial index) and
# without those that are set here.
_OPTIONS = frozenset(
    {
        "channel_binding",
        "gssencmode",
        "hostaddr",
        "krbsrvname",
        "load_balance_hosts",
        "require_auth",
        "ssl_max_protocol_version",
        "ssl_min_protocol_version",
        "sslmode",
        "sslnegotiation",
        "sslrootcert",
        "sslsni",
        "target_session_attrs",
    }
)

# What makes libpq read files of the process that connects.
_FILES = frozenset(
    {
        "passfile",
        "service",
        "servicefile",
        "sslcert",
        "sslcrl",
        "sslcrldir",
        "sslkey",
        "sslkeylogfile",
        "sslrootcert",
    }
)

# https://www.postgresql.org/docs/current/errcodes-appendix.html
_SQLSTATES: dict[str, type[DatabaseError]] = {
    "28000": AuthenticationFailed,
    "28P01": AuthenticationFailed,
    "3D000": DatabaseMissing,
    "42P01": TableMissing,
    "3F000": TableMissing,
    "42703": TableOutdated,
    "42501": PermissionDenied,
    "53300": TooManyConnections,
    "57014": SampleTimedOut,
    "55P03": SampleTimedOut,
    "25006": DatabaseReadOnly,
    "25P04": SampleTimedOut,
    "40001": StatementConflict,
    "40P01": StatementConflict,
    "57P04": DatabaseMissing,
    "53400": TooManyConnections,
    "08000": ConnectionLost,
    "08001": ConnectionLost,
    "08003": ConnectionLost,
    "08004": AuthenticationFailed,
    "08006": ConnectionLost,
    "25P03": ConnectionLost,
    "57P01": ConnectionLost,
    "57P02": ConnectionLost,
    "57P03": ConnectionLost,
    "57P05": ConnectionLost,
}

# libpq's own messages have no SQLSTATE, and are in English, because the operator's process has no locale.
# Poolers' messages are in English, too, and have one SQLSTATE for everything.
_SAYS_NOTHING = {None, "08P01", "XX000"}
_CONNECTING: dict[str, type[DatabaseError]] = {
    r"could not translate host name|failed to resolve host|Name or service not known": HostUnknown,
    r"Connection refused": ConnectionRefused,
    r"timeout expired|connection timeout|timed out|No route to host|unreachable": ConnectionTimedOut,
    r"too many (clients|connections)|remaining connection slots|no more connections": TooManyConnections,
    r"database \".*\" does not exist|no such database": DatabaseMissing,
    r"no pg_hba\.conf entry|pg_hba\.conf rejects|permission denied for database": AuthenticationFailed,
    r"authentication failed|authentication method|no password supplied": AuthenticationFailed,
    r"role \".*\" (does not exist|is not)": AuthenticationFailed,
    r"does not support SSL|certificate|SSL error|sslmode|tlsv1 alert": TLSFailed,
    r"query_wait_timeout|cannot connect to server|server login has been failing": ConnectionLost,
    r"starting up|shutting down|recovery mode|not yet accepting connections": ConnectionLost,
    r"(closed|terminating|lost).* connection|connection .*(closed|lost)": ConnectionLost,
    r"Connection reset|EOF detected|Broken pipe": ConnectionLost,
}


# https://www.postgresql.org/docs/current/libpq-control.html#LIBPQ-PQSETERRORVERBOSITY
_PQERRORS_DEFAULT, _PQERRORS_VERBOSE = 1, 2
# "FATAL:  28P01: password authentication failed": the severity and the text are in the server's language.
_REFUSAL = re.compile(r":  ([0-9A-Z]{5}): ")


class _Connection(psycopg.Connection[Any]):
    """Adds the SQLSTATE to a refused connection, which psycopg 3.3 only has for established connections.

    libpq does not expose it, but includes it in the message if it is set to verbose.
    """

    @classmethod
    def _connect_gen(cls, conninfo: str = "") -> Generator[tuple[int, Wait], Ready | int, Self]:
        # As psycopg.generators.connect does it.
        pgconn = pq.PGconn.connect_start(conninfo.encode())
        _set_verbosity(pgconn, _PQERRORS_VERBOSE)
        status = pq.PollingStatus.FAILED
        while pgconn.status != pq.ConnStatus.BAD:
            status = pq.PollingStatus(pgconn.connect_poll())
            if status not in {pq.PollingStatus.READING, pq.PollingStatus.WRITING}:
                break
            wait = Wait.R if status == pq.PollingStatus.READING else Wait.W
            while not (yield pgconn.socket, wait):
                pass
        if status != pq.PollingStatus.OK:
            text = pgconn.get_error_message("utf-8")
            pgconn.finish()
            raise _refusal_class(text)(f"connection failed: {text}")
        _set_verbosity(pgconn, _PQERRORS_DEFAULT)
        pgconn.nonblocking = 1
        return cls(pgconn)


def _refusal_class(text: str) -> type[psycopg.Error]:
    codes = _REFUSAL.findall(text)
    if not codes:
        return psycopg.OperationalError
    try:
        return psycopg.errors.lookup(codes[-1])
    except KeyError:
        return type("Refusal", (psycopg.OperationalError,), {"sqlstate": codes[-1]})


def _set_verbosity(pgconn: Any, verbosity: int) -> None:
    # psycopg does not wrap this function, and documents pgconn_ptr for those.
    function = _libpq().PQsetErrorVerbosity
    function.argtypes, function.restype = [ctypes.c_void_p, ctypes.c_int], ctypes.c_int
    function(pgconn.pgconn_ptr, verbosity)


@cache
def _libpq() -> ctypes.CDLL:
    """Return the libpq that psycopg's module is linked with: symbols of loaded libraries are found, too."""
    return ctypes.CDLL(importlib.import_module(pq.PGconn.__module__).__file__)


class _Psycopg:
    """The module psycopg as Django's wrapper sees it, except for how it connects."""

    def __init__(self, root_cert: str) -> None:
        self._root_cert = root_cert

    def connect(self, **params: Any) -> _Connection:
        with _as_file(self._root_cert) as path:
            # libpq has read it when the connection is made.
            return _Connection.connect(**params | ({"sslrootcert": path} if path else {}))

    def __getattr__(self, name: str) -> Any:
        return getattr(psycopg, name)


@contextmanager
def _as_file(text: str) -> Iterator[str]:
    """Give the path of a file that has ``text``: in memory, without a name, so that none is left behind."""
    if not text:
        yield ""
        return
    with os.fdopen(os.memfd_create("root certificates"), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        yield f"/proc/self/fd/{file.fileno()}"


class PostgreSQL(Engine):
    """PostgreSQL, and servers with the same protocol and SQL: PostGIS, Timescale, and poolers."""

    name = DatabaseEngine.POSTGRESQL
    scheme = "postgresql"
    vendor = "postgresql"
    backend = "django.db.backends.postgresql"
    schemes = frozenset(
        {
            "pgsql",
            "postgis",
            "postgres",
            "postgresql",
            "psql",
            "timescale",
            "timescalegis",
        }
    )
    clock = "STATEMENT_TIMESTAMP()"
    instants_have_zones = True
    equal_names_are_one = True

    @override
    def read(self, place: Place) -> Place:
        """Complete the parts from the query, in which ``dbname`` takes precedence, as in Django."""
        given = place.options
        system = given.get("sslrootcert") == "system"
        place.refuse_files(_FILES - {"sslrootcert"} if system else _FILES)
        return Place(
            host=place.host or given.get("host", "") or given.get("hostaddr", ""),
            port=place.port or given.get("port", ""),
            name=given.get("dbname", "") or place.name,
            user=place.user or given.get("user", ""),
            password=place.password or given.get("password", ""),
            options=given,
        )

    @override
    def options(
        self, given: Mapping[str, str], limits: Limits, session_settings: Sequence[str], root_cert: str
    ) -> dict[str, Any]:
        """Return libpq's options, Django's ``assume_role``, and the settings as libpq's ``options``."""
        options: dict[str, Any] = {name: given[name] for name in sorted(_OPTIONS & given.keys())}
        if root_cert:
            options = {"sslmode": "verify-full", **options}
        if "assume_role" in given:
            options["assume_role"] = given["assume_role"]
        session = [given["options"]] if "options" in given else []
        schemas = [given[name] for name in ("currentSchema", "schema") if name in given]
        session += ["-c search_path=" + re.sub(r"([\\ ])", r"\\\1", schema) for schema in schemas]
        session += [f"-c {setting}" for setting in session_settings]
        if session:
            options["options"] = " ".join(session)
        return options | {
            "application_name": APPLICATION_NAME,
            "connect_timeout": max(1, round(limits.connect_seconds)),
            # So that a connection whose peer has vanished ends, too.
            "keepalives": 1,
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 2,
            "tcp_user_timeout": int(limits.silence_seconds * 1000),
        }

    @override
    def session_settings(self, limits: Limits) -> list[str]:
        """Return the timeout, and no JIT: a hundred small arms take longer to compile than to run."""
        return [f"statement_timeout={int(limits.statement_seconds * 1000)}", "jit=off"]

    @override
    def session_statements(self, connection: BaseDatabaseWrapper, limits: Limits) -> list[str]:
        """Return none: the connection's options are sufficient."""
        return []

    @override
    def prepare(self, connection: BaseDatabaseWrapper, root_cert: str) -> None:
        """Make refused connections have their SQLSTATE, and ``root_cert`` in the file that libpq wants."""
        vars(connection)["Database"] = _Psycopg(root_cert)

    @override
    def has_settings(self, connection: BaseDatabaseWrapper, limits: Limits) -> bool:
        """Ask: PgBouncer drops them if its ``ignore_startup_parameters`` contains ``options``."""
        with connection.cursor() as cursor:
            cursor.execute("SELECT setting FROM pg_settings WHERE name = 'statement_timeout'")
            return bool(cursor.fetchone() == (str(int(limits.statement_seconds * 1000)),))

    @override
    def is_poolers_refusal(self, error: Exception) -> bool:
        """Recognize PgBouncer's or Amazon RDS Proxy's message."""
        return re.search(r"unsupported startup parameter|command-line options", str(error)) is not None

    @override
    def explain(self, error: Exception) -> tuple[type[DatabaseError], str] | None:
        """Explain by the SQLSTATE, or by libpq's message if there is none."""
        if not isinstance(error, psycopg.Error):
            return None
        code = f"SQLSTATE {error.sqlstate}" if error.sqlstate else type(error).__name__
        if error.sqlstate in _SAYS_NOTHING:
            text = str(error)
            for pattern, kind in _CONNECTING.items():
                if re.search(pattern, text, re.IGNORECASE):
                    return kind, code
        return _SQLSTATES.get(error.sqlstate or "", DatabaseFailed), code

    @override
    def unusable_indexes(self, connection: BaseDatabaseWrapper, table: str) -> frozenset[str]:
        """Return those that CREATE INDEX CONCURRENTLY has started but not finished."""
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT relname FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid"
                " WHERE indrelid = %s::regclass AND NOT indisvalid",
                [table],
            )
            return frozenset(name for (name,) in cursor.fetchall())

    @override
    def socket_of(self, connection: Any) -> int | None:
        """As libpq has it."""
        return int(connection.pgconn.socket)
