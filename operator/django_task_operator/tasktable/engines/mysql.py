"""MySQL and MariaDB, through PyMySQL."""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING, Any, override

import pymysql
from pymysql.constants import CR

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
    InvalidURL,
    PermissionDenied,
    SampleTimedOut,
    StatementConflict,
    TableMissing,
    TableOutdated,
    TLSFailed,
    TooManyConnections,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper

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
    1213: StatementConflict,
    1290: DatabaseReadOnly,
    1792: DatabaseReadOnly,
    1836: DatabaseReadOnly,
    1227: PermissionDenied,
    1370: PermissionDenied,
    3118: AuthenticationFailed,
    3159: TLSFailed,
    1317: SampleTimedOut,
    1969: SampleTimedOut,
    3024: SampleTimedOut,
    2026: TLSFailed,
    1047: ConnectionLost,  # Galera: the node has left its cluster, or not yet joined it
    1152: ConnectionLost,
    1158: ConnectionLost,
    1159: ConnectionLost,
    1160: ConnectionLost,
    1161: ConnectionLost,
    1184: ConnectionLost,
    4031: ConnectionLost,
    1053: ConnectionLost,
    1077: ConnectionLost,
    1079: ConnectionLost,
    1927: ConnectionLost,
    2006: ConnectionLost,
    2013: ConnectionLost,
    2055: ConnectionLost,
}

# What makes mysqlclient or PyMySQL read files of the process that connects.
_FILES = frozenset(
    {
        "read_default_file",
        "server_public_key",
        "ssl_ca",
        "ssl_capath",
        "ssl_cert",
        "ssl_crl",
        "ssl_crlpath",
        "ssl_key",
    }
)


# If there are authorities, a URL that asks for TLS verifies the server against them, as libpq does.
_LESS_THAN_IDENTITY = frozenset({"REQUIRED", "VERIFY_CA"})


class MySQL(Engine):
    """MySQL and MariaDB."""

    name = DatabaseEngine.MYSQL
    scheme = "mysql"
    vendor = "mysql"
    backend = "django.db.backends.mysql"
    schemes = frozenset({"mariadb", "mysql", "mysql-connector", "mysql2", "mysqlgis"})
    # CURRENT_TIMESTAMP would be in the session's time zone.
    clock = "UTC_TIMESTAMP(6)"
    instants_have_zones = False
    equal_names_are_one = False

    @override
    def read(self, place: Place) -> Place:
        """Complete the parts; those in the query take precedence, as in Django."""
        given = place.options
        if "unix_socket" in given:
            raise InvalidURL(problem="it names a Unix socket, which the operator's pod does not have")
        place.refuse_files(_FILES)
        read = Place(
            host=given.get("host", "") or place.host,
            port=given.get("port", "") or place.port,
            name=given.get("database", "") or given.get("db", "") or place.name,
            user=given.get("user", "") or place.user,
            password=given.get("password", "") or given.get("passwd", "") or place.password,
            options=given,
        )
        if "," in read.host:
            raise InvalidURL(problem="it names several hosts, but MySQL's drivers accept only one")
        return read

    @override
    def options(
        self, given: Mapping[str, str], limits: Limits, session_settings: Sequence[str], root_cert: str
    ) -> dict[str, Any]:
        """Options of PyMySQL."""
        return {
            "connect_timeout": limits.connect_seconds,
            # The server's own limit (session_statements) comes first; this is for a server that is silent.
            "read_timeout": limits.silence_seconds,
            "write_timeout": limits.silence_seconds,
            "program_name": APPLICATION_NAME,
            **_tls({name.replace("-", "_"): value for name, value in given.items()}, root_cert),
        }

    @override
    def session_settings(self, limits: Limits) -> list[str]:
        """None: it has no SET LOCAL."""
        return []

    @override
    def session_statements(self, connection: BaseDatabaseWrapper, limits: Limits) -> list[str]:
        """Return the timeouts, for which the two servers have different names."""
        server: Any = connection
        lock = max(1, round(limits.statement_seconds))
        if server.mysql_is_mariadb:
            limit = f"max_statement_time = {limits.statement_seconds:g}"
        else:
            limit = f"max_execution_time = {int(limits.statement_seconds * 1000)}"
        return [f"SET SESSION {limit}, SESSION lock_wait_timeout = {lock}"]

    @override
    def has_settings(self, connection: BaseDatabaseWrapper, limits: Limits) -> bool:
        """Return True: there are none to lose."""
        return True

    @override
    def is_poolers_refusal(self, error: Exception) -> bool:
        """Return False: a connection has no settings."""
        return False

    @override
    def explain(self, error: Exception) -> tuple[type[DatabaseError], str] | None:
        """Explain by the error's number, or by PyMySQL's error before the server has answered."""
        if not isinstance(error, pymysql.Error):
            return None
        errno = error.args[0] if error.args and isinstance(error.args[0], int) else 0
        if errno == CR.CR_CONN_HOST_ERROR:
            return _unreachable(getattr(error, "original_exception", None)), ""
        if errno == CR.CR_SERVER_LOST and "timed out" in str(error):
            return SampleTimedOut, ""
        if isinstance(error, pymysql.InterfaceError):
            # What is left of a connection that broke before.
            return ConnectionLost, ""
        return _ERRNOS.get(errno, DatabaseFailed), f"error {errno}"

    @override
    def unusable_indexes(self, connection: BaseDatabaseWrapper, table: str) -> frozenset[str]:
        """Return none: an index exists only when it is finished."""
        return frozenset()

    @override
    def socket_of(self, connection: Any) -> int | None:
        """Return the file descriptor, to which PyMySQL offers no other way."""
        return int(connection._sock.fileno())  # noqa: SLF001


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


def _tls(given: Mapping[str, str], root_cert: str) -> dict[str, Any]:
    """TLS as mysqlclient's and PyMySQL's options in a URL ask for it; without any, where offered."""
    mode = given.get("ssl_mode", "").upper()
    if _is_set(given, "ssl_disabled") or mode == "DISABLED":
        return {"ssl_disabled": True}
    identity = mode == "VERIFY_IDENTITY" or _is_set(given, "ssl_verify_identity")
    identity = identity or bool(root_cert and mode not in _LESS_THAN_IDENTITY)
    verify = bool(root_cert) or identity or mode == "VERIFY_CA" or _is_set(given, "ssl_verify_cert")
    if not (verify or _is_set(given, "ssl") or mode == "REQUIRED"):
        return {}
    context = ssl.create_default_context(cadata=root_cert or None)
    context.check_hostname = identity
    context.verify_mode = ssl.CERT_REQUIRED if verify else ssl.CERT_NONE
    return {"ssl": context}


def _is_set(given: Mapping[str, str], name: str) -> bool:
    return given.get(name, "").lower() in {"true", "1"}
