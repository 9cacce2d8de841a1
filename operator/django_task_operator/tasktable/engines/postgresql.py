"""PostgreSQL, through psycopg."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, override

import psycopg

from django_task_operator.tasktable.engines.base import APPLICATION_NAME, Engine, Limits
from django_task_operator.tasktable.errors import (
    AuthenticationFailed,
    ConnectionLost,
    ConnectionRefused,
    ConnectionTimedOut,
    DatabaseError,
    DatabaseFailed,
    DatabaseMissing,
    HostUnknown,
    PermissionDenied,
    SampleTimedOut,
    TableMissing,
    TableOutdated,
    TLSFailed,
    TooManyConnections,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper

# What libpq takes from a URL. Left out are Django's own (a pool is useless for one connection;
# server_side_binding hides the values from the planner, which then cannot use a partial index) and
# what is set here.
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
        "sslcert",
        "sslcrl",
        "sslkey",
        "sslmode",
        "sslnegotiation",
        "sslrootcert",
        "sslsni",
        "target_session_attrs",
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
    "57P01": ConnectionLost,
    "57P02": ConnectionLost,
    "57P03": ConnectionLost,
    "57P05": ConnectionLost,
}

# libpq gives no SQLSTATE for a connection that was never made, only its own text and the server's.
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
    r"starting up|shutting down|recovery mode|not yet accepting connections": ConnectionLost,
    r"(closed|terminating|lost).* connection|connection .*(closed|lost)": ConnectionLost,
    r"Connection reset|EOF detected|Broken pipe": ConnectionLost,
}


class PostgreSQL(Engine):
    """PostgreSQL, and what speaks its protocol and has its SQL: PostGIS, Timescale, poolers before it."""

    vendor = "postgresql"
    backend = "django.db.backends.postgresql"
    schemes = frozenset({"postgres", "postgresql", "pgsql", "postgis", "timescale", "timescalegis"})
    clock = "STATEMENT_TIMESTAMP()"
    instants_have_zones = True
    equal_names_are_one = True

    @override
    def options(
        self, given: Mapping[str, str], limits: Limits, session_settings: Sequence[str]
    ) -> dict[str, Any]:
        """Options of libpq, ``assume_role`` of Django, and the settings as libpq's ``options``."""
        options: dict[str, Any] = {name: given[name] for name in sorted(_OPTIONS & given.keys())}
        if "assume_role" in given:
            options["assume_role"] = given["assume_role"]
        session = [given["options"]] if "options" in given else []
        if "currentSchema" in given:
            session = [f"-c search_path={given['currentSchema']}"]
        session += [f"-c {setting}" for setting in session_settings]
        if session:
            options["options"] = " ".join(session)
        return options | {
            "application_name": APPLICATION_NAME,
            "connect_timeout": max(1, round(limits.connect_seconds)),
            # A connection whose other end vanished without a word ends too.
            "keepalives": 1,
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 2,
            "tcp_user_timeout": int(limits.silence_seconds * 1000),
        }

    @override
    def session_settings(self, limits: Limits) -> list[str]:
        """The time-out, and no compiling: a hundred small arms take longer to compile than to run."""
        return [f"statement_timeout={int(limits.statement_seconds * 1000)}", "jit=off"]

    @override
    def session_statements(self, connection: BaseDatabaseWrapper, limits: Limits) -> list[str]:
        """None: the connection's options say it all."""
        return []

    @override
    def is_poolers_refusal(self, error: Exception) -> bool:
        """By PgBouncer's words, or Amazon RDS Proxy's."""
        return re.search(r"unsupported startup parameter|command-line options", str(error)) is not None

    @override
    def explain(self, error: Exception) -> tuple[type[DatabaseError], str] | None:
        """By the SQLSTATE, and by libpq's words where there is none."""
        if not isinstance(error, psycopg.Error):
            return None
        if error.sqlstate is not None:
            return _SQLSTATES.get(error.sqlstate, DatabaseFailed), f"SQLSTATE {error.sqlstate}"
        text = str(error)
        for pattern, kind in _CONNECTING.items():
            if re.search(pattern, text, re.IGNORECASE):
                return kind, ""
        return DatabaseFailed, type(error).__name__

    @override
    def unusable_indexes(self, connection: BaseDatabaseWrapper, table: str) -> frozenset[str]:
        """Those that CREATE INDEX CONCURRENTLY has begun and not finished."""
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
