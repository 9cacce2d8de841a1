"""What differs between the drivers: their exceptions, and settings of a session."""

from __future__ import annotations

import re
import socket
import ssl
from typing import TYPE_CHECKING, Any

import psycopg
import pymysql
from django.db import Error as DjangoDatabaseError
from pymysql.constants import CR

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
    from django.db.backends.base.base import BaseDatabaseWrapper

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

# https://mariadb.com/docs/server/reference/error-codes and MySQL's
_ERRNOS: dict[int, type[DatabaseError]] = {
    1040: TooManyConnections,
    1203: TooManyConnections,
    1226: TooManyConnections,
    1044: AuthenticationFailed,  # access denied for user to database: also what a missing one says
    1045: AuthenticationFailed,
    1130: AuthenticationFailed,
    1129: AuthenticationFailed,
    1251: AuthenticationFailed,
    1524: AuthenticationFailed,
    1698: AuthenticationFailed,
    1820: AuthenticationFailed,
    1862: AuthenticationFailed,
    2059: AuthenticationFailed,
    4151: AuthenticationFailed,
    1049: DatabaseMissing,
    1146: TableMissing,
    1054: TableOutdated,
    1142: PermissionDenied,
    1143: PermissionDenied,
    1205: SampleTimedOut,
    1317: SampleTimedOut,
    1969: SampleTimedOut,
    3024: SampleTimedOut,
    2026: TLSFailed,
    1053: ConnectionLost,
    1077: ConnectionLost,
    1079: ConnectionLost,
    1927: ConnectionLost,
    2006: ConnectionLost,
    2013: ConnectionLost,
    2055: ConnectionLost,
}


def classified(error: Exception, *, connected: bool, statement_timeout: float) -> DatabaseError:
    """What an exception of a driver, or of Django around it, means for the person who has to act.

    Args:
        error: the exception.
        connected: whether the connection had been made: silence means another thing before and after.
        statement_timeout: seconds, to be named.
    """
    cause = error
    if isinstance(error, DjangoDatabaseError) and isinstance(error.__cause__, Exception):
        cause = error.__cause__
    kind, code = _kind(cause)
    if kind is SampleTimedOut:
        if not connected:
            return ConnectionTimedOut()
        return SampleTimedOut(seconds=statement_timeout)
    if kind is DatabaseFailed:
        return DatabaseFailed(code=code)
    return kind()


def _kind(error: Exception) -> tuple[type[DatabaseError], str]:
    if isinstance(error, psycopg.Error):
        return _postgresql(error)
    if isinstance(error, pymysql.Error):
        return _mysql(error)
    if isinstance(error, socket.gaierror):
        return HostUnknown, ""
    if isinstance(error, ssl.SSLError | FileNotFoundError):
        return TLSFailed, ""
    return DatabaseFailed, type(error).__name__


def _postgresql(error: psycopg.Error) -> tuple[type[DatabaseError], str]:
    if error.sqlstate is not None:
        return _SQLSTATES.get(error.sqlstate, DatabaseFailed), f"SQLSTATE {error.sqlstate}"
    text = str(error)
    for pattern, kind in _CONNECTING.items():
        if re.search(pattern, text, re.IGNORECASE):
            return kind, ""
    return DatabaseFailed, type(error).__name__


def _mysql(error: pymysql.Error) -> tuple[type[DatabaseError], str]:
    errno = error.args[0] if error.args and isinstance(error.args[0], int) else 0
    if errno == CR.CR_CONN_HOST_ERROR:
        return _unreachable(getattr(error, "original_exception", None)), ""
    if errno == CR.CR_SERVER_LOST and "timed out" in str(error):
        return SampleTimedOut, ""
    if isinstance(error, pymysql.InterfaceError):
        # What is left of a connection that broke before.
        return ConnectionLost, ""
    return _ERRNOS.get(errno, DatabaseFailed), f"error {errno}"


def _unreachable(reason: BaseException | None) -> type[DatabaseError]:
    match reason:
        case socket.gaierror():
            return HostUnknown
        case ConnectionRefusedError():
            return ConnectionRefused
        case ssl.SSLError():
            return TLSFailed
        case _:
            return ConnectionTimedOut


def is_a_poolers_refusal(error: Exception) -> bool:
    """Whether a pooler will not have settings of a session: PgBouncer's words, or Amazon RDS Proxy's."""
    return re.search(r"unsupported startup parameter|command-line options", str(error)) is not None


def session_statements(connection: BaseDatabaseWrapper, statement_timeout: float) -> list[str]:
    """What a new session is told where the connection's own options cannot say it."""
    if connection.vendor != "mysql":
        return []
    server: Any = connection
    lock = max(1, round(statement_timeout))
    if server.mysql_is_mariadb:
        limit = f"max_statement_time = {statement_timeout:g}"
    else:
        limit = f"max_execution_time = {int(statement_timeout * 1000)}"
    return [f"SET SESSION {limit}, SESSION lock_wait_timeout = {lock}"]
