"""What errors of the database mean for a slot: whether to wait, reconnect or give up, and what to log.

Errors are recognised by their code, so the server's language does not matter: a SQLSTATE on PostgreSQL, an
error number on MySQL and MariaDB. Only errors of drivers and poolers have no useful code, and are recognised
by their (English) text. The operator has tables of the same codes, for its own messages: see
``tasktable/engines/`` in its package.
"""

import enum

from django.db import DatabaseError, Error, InterfaceError, NotSupportedError, OperationalError

# Poolers have one code for everything: PgBouncer, and then Odyssey and PgCat.
_SAYS_NOTHING = {"08P01", "XX000", "58000"}


class Trouble(enum.Enum):
    """What an error of the database asks for."""

    LOST = "the connection no longer works, and the statement may have taken effect or not: reconnect"
    AWAY = "the server answers, but cannot be used for now: wait, and reconnect"
    BUSY = "the statement gave way to another one, or took too long: repeat it later"
    DENIED = "the user or the password is refused"
    NOT_MIGRATED = "the table, or a column of it, does not exist"
    OTHER = "the statement itself is refused"


_LOST, _AWAY, _BUSY, _DENIED = Trouble.LOST, Trouble.AWAY, Trouble.BUSY, Trouble.DENIED

# https://www.postgresql.org/docs/current/errcodes-appendix.html
_SQLSTATES: dict[str, tuple[Trouble, str]] = {
    "08000": (_LOST, "the server closed the connection"),
    "08003": (_LOST, "the server closed the connection"),
    "08006": (_LOST, "the server closed the connection"),
    "57P01": (_LOST, "the server ended the connection"),
    "57P02": (_LOST, "the server ended the connection"),
    "57P05": (_LOST, "the server ended the connection"),
    "25P03": (_LOST, "the server ended the connection"),
    "25P04": (_LOST, "the server ended the connection"),
    # A transaction that a task has left in the session, and a prepared statement that belongs to another
    # session of the pooler.
    "25P01": (_LOST, "the session was changed"),
    "25P02": (_LOST, "the session was changed"),
    "26000": (_LOST, "the pooler gave another session"),
    "42P05": (_LOST, "the pooler gave another session"),
    "40003": (_LOST, "it is not known whether the statement was completed"),
    "57P03": (_AWAY, "the server is starting up, shutting down or in recovery"),
    "57P04": (_AWAY, "no such database"),
    "3D000": (_AWAY, "no such database"),
    "25006": (_AWAY, "the server is read-only"),
    "53300": (_AWAY, "too many connections"),
    "53400": (_AWAY, "too many connections"),
    "53100": (_AWAY, "the server's disk is full"),
    "53200": (_AWAY, "the server is out of memory"),
    "58030": (_AWAY, "the server cannot read or write its files"),
    "42501": (_AWAY, "permission denied"),
    "28000": (_DENIED, "the user is refused"),
    "28P01": (_DENIED, "password authentication failed"),
    "40001": (_BUSY, "the transaction could not be serialized"),
    "40P01": (_BUSY, "a deadlock"),
    "55P03": (_BUSY, "waiting for a lock took too long"),
    "55006": (_BUSY, "the table is in use"),
    "57014": (_BUSY, "the statement took too long"),
    "42P01": (Trouble.NOT_MIGRATED, "no such table"),
    "3F000": (Trouble.NOT_MIGRATED, "no such schema"),
    "42703": (Trouble.NOT_MIGRATED, "no such column"),
}

# https://mariadb.com/docs/server/reference/error-codes and
# https://dev.mysql.com/doc/mysql-errors/8.4/en/server-error-reference.html
_NUMBERS: dict[int, tuple[Trouble, str]] = {
    0: (_LOST, "the server closed the connection"),  # PyMySQL's, on a connection that broke before
    1053: (_LOST, "the server is shutting down"),
    1077: (_LOST, "the server is shutting down"),
    1079: (_LOST, "the server is shutting down"),
    1152: (_LOST, "the server closed the connection"),
    1158: (_LOST, "the server closed the connection"),
    1159: (_LOST, "timed out"),
    1160: (_LOST, "the server closed the connection"),
    1161: (_LOST, "timed out"),
    1180: (_LOST, "it is not known whether the transaction was committed"),
    1184: (_LOST, "the server closed the connection"),
    1927: (_LOST, "the server ended the connection"),
    2002: (_LOST, "no connection"),
    2003: (_LOST, "no connection"),
    2006: (_LOST, "the server closed the connection"),
    2013: (_LOST, "the server closed the connection"),
    2014: (_LOST, "the connection is out of step"),
    2027: (_LOST, "the connection is out of step"),
    2055: (_LOST, "the server closed the connection"),
    4031: (_LOST, "the server closed the connection"),
    9001: (_AWAY, "the pooler has no server"),  # ProxySQL: max connect time-out reached
    1040: (_AWAY, "too many connections"),
    1203: (_AWAY, "too many connections"),
    1226: (_AWAY, "too many connections"),
    1047: (_AWAY, "the server is not ready"),  # Galera: the node has left its cluster, or not yet joined it
    1049: (_AWAY, "no such database"),
    1290: (_AWAY, "the server is read-only"),
    1792: (_AWAY, "the server is read-only"),
    1836: (_AWAY, "the server is read-only"),
    1021: (_AWAY, "the server's disk is full"),
    1037: (_AWAY, "the server is out of memory"),
    1041: (_AWAY, "the server is out of memory"),
    1114: (_AWAY, "the table is full"),
    1142: (_AWAY, "permission denied"),
    1143: (_AWAY, "permission denied"),
    1129: (_AWAY, "the server blocks this host"),
    1130: (_AWAY, "the server refuses this host"),
    1044: (_DENIED, "access denied"),
    1045: (_DENIED, "access denied"),
    1698: (_DENIED, "access denied"),
    1820: (_DENIED, "the password has expired"),
    1862: (_DENIED, "the password has expired"),
    3118: (_DENIED, "the account is locked"),
    4151: (_DENIED, "the account is locked"),
    1020: (_BUSY, "the transaction could not be serialized"),
    1205: (_BUSY, "waiting for a lock took too long"),
    1213: (_BUSY, "a deadlock"),
    1317: (_BUSY, "the statement was ended"),
    1969: (_BUSY, "the statement took too long"),
    3024: (_BUSY, "the statement took too long"),
    3058: (_BUSY, "a deadlock"),
    3572: (_BUSY, "waiting for a lock took too long"),
    1054: (Trouble.NOT_MIGRATED, "no such column"),
    1146: (Trouble.NOT_MIGRATED, "no such table"),
}

# Servers and drivers quote hosts, users and names in their messages, each in its own way. So instead of a
# message, the words for the first phrase that it contains are used.
_PHRASES: dict[str, tuple[Trouble, str]] = {
    "connection refused": (_LOST, "connection refused"),
    "name or service not known": (_LOST, "unknown host name"),
    "could not translate host name": (_LOST, "unknown host name"),
    "failed to resolve host": (_LOST, "unknown host name"),
    "name resolution": (_LOST, "host name cannot be resolved"),
    "no route to host": (_LOST, "no route to host"),
    "network is unreachable": (_LOST, "network is unreachable"),
    "no such file": (_LOST, "no such socket or file"),
    "unable to open database file": (_AWAY, "cannot open the database file"),
    "readonly database": (_AWAY, "the database file is read-only"),
    "disk is full": (_AWAY, "the disk is full"),
    "disk i/o error": (_AWAY, "the database file cannot be read or written"),
    "is locked": (_BUSY, "the database is locked"),
    "no such table": (Trouble.NOT_MIGRATED, "no such table"),
    "no such column": (Trouble.NOT_MIGRATED, "no such column"),
    "authentication failed": (_DENIED, "password authentication failed"),
    "no password supplied": (_DENIED, "no password supplied"),
    "access denied": (_DENIED, "access denied"),
    "no pg_hba.conf entry": (_DENIED, "the server admits no such connection (pg_hba.conf)"),
    "pg_hba.conf rejects": (_DENIED, "the server admits no such connection (pg_hba.conf)"),
    'role "': (_DENIED, "no such user"),
    "no such user": (_DENIED, "no such user"),
    "unknown database": (_AWAY, "no such database"),
    "no such database": (_AWAY, "no such database"),
    "too many clients": (_AWAY, "too many connections"),
    "too many connections": (_AWAY, "too many connections"),
    "no more connections": (_AWAY, "too many connections"),
    "connection slots are reserved": (_AWAY, "too many connections"),
    "couldn't get a connection": (_LOST, "no free connection in the pool"),
    "starting up": (_LOST, "the server is starting up"),
    "shutting down": (_LOST, "the server is shutting down"),
    "not yet accepting": (_LOST, "the server is starting up"),
    "in recovery mode": (_LOST, "the server is in recovery"),
    "read-only": (_AWAY, "the server is read-only"),
    "query_wait_timeout": (_AWAY, "the pooler has no server"),
    "server login": (_AWAY, "the pooler has no server"),
    "cannot connect to server": (_AWAY, "the pooler has no server"),
    "timed out": (_LOST, "timed out"),
    "timeout": (_LOST, "timed out"),
    "terminating connection": (_LOST, "the server ended the connection"),
    "closed the connection": (_LOST, "the server closed the connection"),
    "connection is closed": (_LOST, "the server closed the connection"),
    "gone away": (_LOST, "the server closed the connection"),
    "lost connection": (_LOST, "the server closed the connection"),
    "connection reset": (_LOST, "the server closed the connection"),
    "certificate": (_LOST, "TLS certificate refused"),
    "ssl": (_LOST, "TLS failed"),
    "does not exist": (_AWAY, "no such database or user"),
}


def code_of(error: BaseException) -> str | int | None:
    """Return the SQLSTATE or, for MySQL, the number of a database error; None if it has none.

    MySQL's drivers may have both, but MySQL uses the same SQLSTATE for most errors.
    """
    cause = error.__cause__ or error
    first = cause.args[0] if cause.args else None
    if isinstance(first, int):
        return first
    state = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
    return str(state) if state is not None else None


def is_databases(error: BaseException) -> bool:
    """Whether a driver has reported an error, and not code of Django or of the project raised it by itself.

    Django wraps what drivers raise, and only its MySQL backend in some cases copies it (CursorWrapper).
    """
    if not isinstance(error, DatabaseError | InterfaceError):
        return False
    copied = error.__context__
    if _is_drivers(error.__cause__):
        return True
    return _is_drivers(copied) and copied is not None and copied.args == error.args


def _is_drivers(error: BaseException | None) -> bool:
    # All drivers have exceptions with these names: https://peps.python.org/pep-0249/#exceptions
    names = {kind.__name__ for kind in type(error).__mro__}
    return not isinstance(error, Error) and not names.isdisjoint({"DatabaseError", "InterfaceError"})


def trouble_of(error: BaseException) -> Trouble:
    """Return what an error of the database asks for."""
    if not is_databases(error):
        return Trouble.OTHER
    known = _known(error)
    if known is not None:
        return known[0]
    if isinstance(error, InterfaceError):
        # Drivers raise it for a connection that has already broken.
        return Trouble.LOST
    code = code_of(error)
    if isinstance(code, str):
        return _CLASSES.get(code[:2], Trouble.OTHER)
    if code is None and isinstance(error, OperationalError) and not _is_sqlites(error):
        # It comes from the driver, not from a server, and is about the connection.
        return Trouble.LOST
    return Trouble.OTHER


# The first two characters of a SQLSTATE are its class: connection, and insufficient resources.
_CLASSES = {"08": Trouble.LOST, "53": Trouble.AWAY}


def reason(error: BaseException) -> str:
    """Describe a database error, in words that cannot contain a host, a user, a name or a password."""
    known = _known(error)
    if known is not None:
        return known[1]
    if isinstance(error, NotSupportedError) and error.__cause__ is None:
        # Django's own message about a server that is too old.
        return str(error).rstrip(".")
    code = code_of(error)
    return type(error).__name__ if code is None else f"{type(error).__name__} {code}"


def is_understood(error: BaseException) -> bool:
    """Whether the code or the text of an error is known."""
    return _known(error) is not None


def _is_sqlites(error: BaseException) -> bool:
    return type(error.__cause__).__module__ == "sqlite3"


def _known(error: BaseException) -> tuple[Trouble, str] | None:
    code = code_of(error)
    # A driver's own numbers start at 2000. Their text says more: that the host is unknown, for example.
    says_nothing = code is None or code in _SAYS_NOTHING or code in {0, 2002, 2003, 2013}
    if says_nothing:
        text = str(error.__cause__ or error).lower()
        for phrase, meaning in _PHRASES.items():
            if phrase in text:
                return meaning
    if isinstance(code, int):
        return _NUMBERS.get(code)
    return _SQLSTATES.get(code) if code is not None else None
