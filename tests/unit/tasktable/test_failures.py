"""What the drivers' exceptions mean; tests/integration has the real ones."""

from __future__ import annotations

import socket
import ssl

import psycopg
import pymysql
import pytest
from django.db import OperationalError as DjangoOperationalError

from django_task_operator.errors import TransientError
from django_task_operator.tasktable import DatabaseError, errors
from django_task_operator.tasktable.engines import ENGINES, Limits
from django_task_operator.tasktable.failures import classified

ADDRESS = 'connection to server at "10.0.0.7", port 5432 failed: '


def meaning(error: Exception, *, connected: bool = True) -> DatabaseError:
    """Ask the engine whose driver made the error; if no driver did, ask all of them."""
    cause = error.__cause__ or error
    engines = [engine for engine in ENGINES if isinstance(cause, Exception) and engine.explain(cause)]
    (found,) = {
        classified(error, engine, Limits(5, 10), connected=connected) for engine in engines or ENGINES
    }
    return found


def refused(errno: int, text: str, reason: OSError) -> pymysql.OperationalError:
    error = pymysql.OperationalError(errno, text)
    vars(error)["original_exception"] = reason
    return error


CASES: list[tuple[Exception, type[DatabaseError]]] = [
    (psycopg.OperationalError("failed to resolve host 'db': Name or service not known"), errors.HostUnknown),
    (
        psycopg.OperationalError(ADDRESS + "Connection refused\n\tIs it up?"),
        errors.ConnectionRefused,
    ),
    (psycopg.errors.ConnectionTimeout("connection timeout expired"), errors.ConnectionTimedOut),
    (psycopg.OperationalError(ADDRESS + "No route to host"), errors.ConnectionTimedOut),
    (
        psycopg.OperationalError(ADDRESS + 'FATAL:  password authentication failed for user "shop"'),
        errors.AuthenticationFailed,
    ),
    (
        psycopg.OperationalError(ADDRESS + "fe_sendauth: no password supplied"),
        errors.AuthenticationFailed,
    ),
    (
        psycopg.OperationalError(ADDRESS + 'FATAL:  no pg_hba.conf entry for host "10.0.0.9", user "shop"'),
        errors.AuthenticationFailed,
    ),
    (psycopg.OperationalError(ADDRESS + 'FATAL:  role "shop" does not exist'), errors.AuthenticationFailed),
    (psycopg.OperationalError(ADDRESS + 'FATAL:  database "shop" does not exist'), errors.DatabaseMissing),
    (
        psycopg.OperationalError(ADDRESS + "server does not support SSL, but SSL was required"),
        errors.TLSFailed,
    ),
    (psycopg.OperationalError(ADDRESS + "SSL error: certificate verify failed"), errors.TLSFailed),
    (
        psycopg.OperationalError(ADDRESS + "FATAL:  sorry, too many clients already"),
        errors.TooManyConnections,
    ),
    (
        psycopg.OperationalError(
            ADDRESS + "FATAL:  remaining connection slots are reserved for roles with the SUPERUSER attribute"
        ),
        errors.TooManyConnections,
    ),
    (psycopg.OperationalError(ADDRESS + "FATAL:  the database system is starting up"), errors.ConnectionLost),
    (
        psycopg.OperationalError("consuming input failed: server closed the connection unexpectedly"),
        errors.ConnectionLost,
    ),
    (psycopg.OperationalError("the connection is lost"), errors.ConnectionLost),
    (
        psycopg.errors.AdminShutdown("terminating connection"),
        errors.ConnectionLost,
    ),
    (psycopg.errors.UndefinedTable("relation does not exist"), errors.TableMissing),
    (psycopg.errors.UndefinedColumn("column does not exist"), errors.TableOutdated),
    (psycopg.errors.InsufficientPrivilege("permission denied for table"), errors.PermissionDenied),
    (psycopg.errors.QueryCanceled("canceling statement due to statement timeout"), errors.SampleTimedOut),
    (psycopg.errors.LockNotAvailable("canceling statement due to lock timeout"), errors.SampleTimedOut),
    (psycopg.errors.TooManyConnections("too many connections"), errors.TooManyConnections),
    (
        psycopg.errors.InvalidPassword("Passwort-Authentifizierung fehlgeschlagen"),
        errors.AuthenticationFailed,
    ),
    (psycopg.errors.InvalidAuthorizationSpecification("rôle inconnu"), errors.AuthenticationFailed),
    (psycopg.errors.InvalidCatalogName("Datenbank existiert nicht"), errors.DatabaseMissing),
    (psycopg.errors.TooManyConnections("Entschuldigung, schon zu viele Clients"), errors.TooManyConnections),
    (psycopg.errors.CannotConnectNow("das Datenbanksystem startet"), errors.ConnectionLost),
    (psycopg.errors.ReadOnlySqlTransaction("kann nicht ausgeführt werden"), errors.DatabaseReadOnly),
    (psycopg.errors.SerializationFailure("Konflikt mit Wiederherstellung"), errors.StatementConflict),
    (psycopg.errors.DeadlockDetected("Verklemmung entdeckt"), errors.StatementConflict),
    (psycopg.errors.DatabaseDropped("verworfen"), errors.DatabaseMissing),
    (psycopg.errors.ProtocolViolation("query_wait_timeout"), errors.ConnectionLost),
    (psycopg.errors.ProtocolViolation("no more connections allowed"), errors.TooManyConnections),
    (psycopg.errors.ProtocolViolation("what now"), errors.DatabaseFailed),
    (psycopg.errors.InternalError_("timed out, says the shop"), errors.ConnectionTimedOut),
    (
        pymysql.OperationalError(1047, "WSREP has not yet prepared node for application use"),
        errors.ConnectionLost,
    ),
    (pymysql.OperationalError(1290, "running with the --read-only option"), errors.DatabaseReadOnly),
    (pymysql.OperationalError(1213, "Deadlock found"), errors.StatementConflict),
    (pymysql.OperationalError(1045, "Zugriff verweigert"), errors.AuthenticationFailed),
    (pymysql.OperationalError(3159, "Verbindung muss sicher sein"), errors.TLSFailed),
    (psycopg.errors.DiskFull("disk full"), errors.DatabaseFailed),
    (refused(2003, "Can't connect", ConnectionRefusedError()), errors.ConnectionRefused),
    (refused(2003, "Can't connect", socket.gaierror(-2, "unknown")), errors.HostUnknown),
    (refused(2003, "Can't connect", TimeoutError()), errors.ConnectionTimedOut),
    (refused(2003, "Can't connect", ssl.SSLCertVerificationError()), errors.TLSFailed),
    (pymysql.OperationalError(1045, "Access denied for user 'shop'@'10.0.0.9'"), errors.AuthenticationFailed),
    (pymysql.OperationalError(1049, "Unknown database 'shop'"), errors.DatabaseMissing),
    (pymysql.ProgrammingError(1146, "Table doesn't exist"), errors.TableMissing),
    (pymysql.OperationalError(1054, "Unknown column"), errors.TableOutdated),
    (pymysql.OperationalError(1142, "SELECT command denied"), errors.PermissionDenied),
    (pymysql.OperationalError(1969, "max_statement_time exceeded"), errors.SampleTimedOut),
    (pymysql.OperationalError(3024, "maximum statement execution time exceeded"), errors.SampleTimedOut),
    (pymysql.OperationalError(1205, "Lock wait timeout exceeded"), errors.SampleTimedOut),
    (pymysql.OperationalError(2013, "Lost connection during query (timed out)"), errors.SampleTimedOut),
    (pymysql.OperationalError(2013, "Lost connection during query"), errors.ConnectionLost),
    (pymysql.OperationalError(2006, "server has gone away"), errors.ConnectionLost),
    (pymysql.OperationalError(1040, "Too many connections"), errors.TooManyConnections),
    (pymysql.OperationalError(1226, "User has exceeded max_user_connections"), errors.TooManyConnections),
    (pymysql.OperationalError(2026, "SSL is required"), errors.TLSFailed),
    (pymysql.InternalError(1030, "Got error 28 from storage engine"), errors.DatabaseFailed),
    (pymysql.InterfaceError(0, ""), errors.ConnectionLost),
    (ssl.SSLError("wrong version number"), errors.TLSFailed),
    (FileNotFoundError("/etc/ca.pem"), errors.TLSFailed),
    (ZeroDivisionError("division by zero"), errors.DatabaseFailed),
]


@pytest.mark.parametrize(("error", "kind"), CASES, ids=lambda case: repr(case)[:60])
@pytest.mark.parametrize("wrapped", [False, True], ids=["driver", "django"])
def test_what_it_means(error: Exception, kind: type[DatabaseError], wrapped: bool) -> None:
    raised = error
    if wrapped:
        raised = DjangoOperationalError(*error.args)
        raised.__cause__ = error
    found = meaning(raised)
    assert type(found) is kind
    for text in ("10.0.0", "shop'", '"shop"', "division", "5432"):
        assert text not in found.message


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (psycopg.errors.DiskFull("on shop"), "SQLSTATE 53100"),
        (pymysql.InternalError(1030, "on shop"), "error 1030"),
        (psycopg.OperationalError("FATAL: etwas ist faul"), "OperationalError"),
        (KeyError("shop"), "KeyError"),
    ],
)
def test_the_rest_is_named_by_its_code_alone(error: Exception, code: str) -> None:
    found = meaning(error)
    assert found.message == f"The database failed with {code}. Its own log says more."


def test_silence_before_the_connection_is_made_is_no_slow_statement() -> None:
    error = pymysql.OperationalError(2013, "Lost connection to MySQL server during query (timed out)")
    assert type(meaning(error, connected=False)) is errors.ConnectionTimedOut


def test_every_error_is_transient_and_explains_itself() -> None:
    kinds = DatabaseError.__subclasses__()
    assert len(kinds) >= 12
    for kind in kinds:
        error = kind(seconds=10.0, code="SQLSTATE 1", command="/token", problem="it ended")
        assert isinstance(error, TransientError)
        assert error.reason == kind.__name__
        assert error.message.endswith(".") or error.message.endswith("?")
        assert "{" not in error.message


def test_what_a_database_says_that_answers() -> None:
    answers = {kind for kind in DatabaseError.__subclasses__() if kind.database_answers}
    mended_by_a_migration = {errors.TableMissing, errors.TableOutdated}
    own = {errors.PermissionDenied, errors.SampleTimedOut, errors.StatementConflict}
    assert answers == mended_by_a_migration | own
    assert not errors.InvalidURL.database_answers
