"""What errors of the database mean: by their code or, without a useful code, by their text."""

from __future__ import annotations

import psycopg
import pytest
from django.db import (
    DatabaseError,
    DataError,
    IntegrityError,
    InterfaceError,
    InternalError,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
)
from django_db_worker.trouble import Trouble, code_of, is_databases, reason, trouble_of


class DriverError(psycopg.DatabaseError):
    def __init__(self, *args: object, sqlstate: str | None = None) -> None:
        super().__init__(*map(str, args))
        self.args = args
        self.sqlstate = sqlstate


def postgres(kind: type[Exception], sqlstate: str | None, text: str = "auf Deutsch") -> Exception:
    error = kind(text)
    error.__cause__ = DriverError(text, sqlstate=sqlstate)
    return error


def mysql(
    kind: type[Exception], number: int, text: str = "auf Deutsch", sqlstate: str = "HY000"
) -> Exception:
    error = kind(number, text)
    error.__cause__ = DriverError(number, text, sqlstate=sqlstate)
    return error


def without_code(kind: type[Exception], *args: object) -> Exception:
    error = kind(*args)
    error.__cause__ = DriverError(*args)
    return error


def copied(error: Exception, *args: object) -> Exception:
    """As Django's MySQL backend does it: not wrapped, but raised while the driver's error is handled."""
    error.__context__ = DriverError(*args)
    return error


def raised_from(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


def test_the_code_is_the_drivers() -> None:
    assert code_of(postgres(OperationalError, "57P01")) == "57P01"
    # PyMySQL 1.2 has both, and the number says more.
    assert code_of(mysql(OperationalError, 1205)) == 1205
    assert code_of(OperationalError("no code")) is None
    assert code_of(OperationalError()) is None


@pytest.mark.parametrize(
    ("error", "trouble", "words"),
    [
        (postgres(OperationalError, "57P01"), Trouble.LOST, "the server ended the connection"),
        (postgres(OperationalError, "08006"), Trouble.LOST, "the server closed the connection"),
        (postgres(OperationalError, "08ZZZ"), Trouble.LOST, "OperationalError 08ZZZ"),
        (postgres(InternalError, "25P02"), Trouble.LOST, "the session was changed"),
        (postgres(OperationalError, "26000"), Trouble.LOST, "the pooler gave another session"),
        (postgres(OperationalError, "57P03"), Trouble.AWAY, "the server is starting up"),
        (postgres(InternalError, "25006"), Trouble.AWAY, "the server is read-only"),
        (postgres(OperationalError, "53300"), Trouble.AWAY, "too many connections"),
        (postgres(OperationalError, "53999"), Trouble.AWAY, "OperationalError 53999"),
        (postgres(ProgrammingError, "42501"), Trouble.AWAY, "permission denied"),
        (postgres(OperationalError, "28P01"), Trouble.DENIED, "password authentication failed"),
        (postgres(OperationalError, "40001"), Trouble.BUSY, "the transaction could not be serialized"),
        (postgres(OperationalError, "40P01"), Trouble.BUSY, "a deadlock"),
        (postgres(OperationalError, "55P03"), Trouble.BUSY, "waiting for a lock took too long"),
        (postgres(OperationalError, "57014"), Trouble.BUSY, "the statement took too long"),
        (postgres(ProgrammingError, "42P01"), Trouble.NOT_MIGRATED, "no such table"),
        (postgres(DataError, "22001"), Trouble.OTHER, "DataError 22001"),
        (postgres(IntegrityError, "23514"), Trouble.OTHER, "IntegrityError 23514"),
        (mysql(OperationalError, 1047), Trouble.AWAY, "the server is not ready"),
        (mysql(OperationalError, 1290), Trouble.AWAY, "the server is read-only"),
        (mysql(OperationalError, 1836), Trouble.AWAY, "the server is read-only"),
        (mysql(OperationalError, 1040), Trouble.AWAY, "too many connections"),
        (mysql(OperationalError, 1045), Trouble.DENIED, "access denied"),
        (mysql(OperationalError, 1205), Trouble.BUSY, "waiting for a lock took too long"),
        (mysql(OperationalError, 1213, sqlstate="40001"), Trouble.BUSY, "a deadlock"),
        (mysql(OperationalError, 1020), Trouble.BUSY, "the transaction could not be serialized"),
        (mysql(OperationalError, 1969), Trouble.BUSY, "the statement took too long"),
        (mysql(OperationalError, 2006), Trouble.LOST, "the server closed the connection"),
        (mysql(OperationalError, 2013, "Lost connection (timed out)"), Trouble.LOST, "timed out"),
        (
            mysql(OperationalError, 2003, "Can't connect ([Errno 111] Connection refused)"),
            Trouble.LOST,
            "refused",
        ),
        (mysql(ProgrammingError, 1146), Trouble.NOT_MIGRATED, "no such table"),
        (mysql(OperationalError, 1054), Trouble.NOT_MIGRATED, "no such column"),
        (mysql(DataError, 1406), Trouble.OTHER, "DataError 1406"),
        (without_code(InterfaceError, 0, ""), Trouble.LOST, "the server closed the connection"),
        (without_code(InterfaceError, "connection already closed"), Trouble.LOST, "InterfaceError"),
        (postgres(OperationalError, None, "connection refused"), Trouble.LOST, "connection refused"),
        (postgres(OperationalError, None, "something of the driver's"), Trouble.LOST, "OperationalError"),
        (postgres(OperationalError, "08P01", "FATAL: no such user: x"), Trouble.DENIED, "no such user"),
        (
            postgres(OperationalError, "08P01", "FATAL: query_wait_timeout"),
            Trouble.AWAY,
            "the pooler has no server",
        ),
        (without_code(OperationalError, "database is locked"), Trouble.BUSY, "the database is locked"),
        (without_code(OperationalError, "no such table: x"), Trouble.NOT_MIGRATED, "no such table"),
        (
            NotSupportedError("MariaDB 99 or later is required (found 10.5)."),
            Trouble.OTHER,
            "MariaDB 99 or later",
        ),
        # Whatever the project's own code raises.
        (ValueError("of the task's"), Trouble.OTHER, "ValueError"),
        (OperationalError("of a receiver"), Trouble.OTHER, "OperationalError"),
        (OperationalError(1045, "of a receiver"), Trouble.OTHER, "access denied"),
        (InterfaceError("of a receiver"), Trouble.OTHER, "InterfaceError"),
        (raised_from(OperationalError(""), ValueError("a receiver")), Trouble.OTHER, "OperationalError"),
        (
            raised_from(OperationalError(""), OperationalError("a receiver")),
            Trouble.OTHER,
            "OperationalError",
        ),
    ],
)
def test_what_an_error_asks_for(error: Exception, trouble: Trouble, words: str) -> None:
    assert trouble_of(error) is trouble
    assert words in reason(error)


@pytest.mark.parametrize(
    ("error", "databases"),
    [
        (postgres(DatabaseError, "22001"), True),
        (copied(IntegrityError(4025, "nein"), 4025, "nein"), True),
        (copied(IntegrityError("a receiver's, on an error of a driver"), 4025, "nein"), False),
        (IntegrityError("a receiver's"), False),
        (ValueError("a receiver's"), False),
        (raised_from(ValueError("a receiver's"), DriverError("nein")), False),
    ],
)
def test_whether_an_error_is_the_databases(error: Exception, databases: bool) -> None:
    assert is_databases(error) is databases


@pytest.mark.parametrize("kind", [OperationalError, DatabaseError, InterfaceError])
def test_no_word_of_a_server_or_driver_gets_through(kind: type[Exception]) -> None:
    secret = 'FATAL:  hush "hush" at hush'
    for error in (postgres(kind, None, secret), postgres(kind, "99999", secret), mysql(kind, 9999, secret)):
        assert "hush" not in reason(error)
