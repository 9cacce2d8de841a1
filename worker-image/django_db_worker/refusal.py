"""Why PostgreSQL refuses a connection, by the SQLSTATE, because the message may be in any language.

psycopg knows the SQLSTATE only of errors on an existing connection. libpq does not offer that of a refused
connection, but includes it in the message if it is configured to be verbose. The operator's
``engines/postgresql.py`` always connects in this way. A worker lets Django connect, and only if that is
refused, tries again in this way, to learn why.
"""

import ctypes
import importlib
import re
from typing import Any

from django.db import Error, OperationalError
from django.db.backends.base.base import BaseDatabaseWrapper

# https://www.postgresql.org/docs/current/libpq-control.html#LIBPQ-PQSETERRORVERBOSITY
PQERRORS_VERBOSE = 2
# "FATAL:  28P01: password authentication failed": the severity and the text are in the server's language.
_STATE = re.compile(r":  ([0-9A-Z]{5}): ")


def ask_why(connection: BaseDatabaseWrapper) -> OperationalError | None:
    """Try to connect again, without a pool, and return the error; None if there is none.

    Also None if the driver is not psycopg 3, or if a backend of the project's has no password now.
    """
    if connection.vendor != "postgresql" or not hasattr(connection.Database, "pq"):  # type: ignore[attr-defined]
        return None
    driver: Any = connection.Database  # type: ignore[attr-defined]
    try:
        library = _libpq(driver)
    except (OSError, AttributeError):
        # psycopg without its C module, with a libpq that the loader does not find.
        return None
    try:
        params = connection.get_connection_params()
    except Error:
        # The first attempt ended in the same way, and the caller knows its error.
        return None
    try:
        _asking(driver, library).connect(**params).close()
    except driver.Error as refused:
        error = OperationalError(str(refused))
        error.__cause__ = refused
        return error
    return None


def _asking(driver: Any, library: Any) -> Any:
    class Asking(driver.Connection):  # type: ignore[misc]
        @classmethod
        def _connect_gen(cls, conninfo: str = "", **_: Any) -> Any:
            # As psycopg.generators.connect does it.
            pq = driver.pq
            attempt = pq.PGconn.connect_start(conninfo.encode())
            library.PQsetErrorVerbosity(attempt.pgconn_ptr, PQERRORS_VERBOSE)
            status = pq.PollingStatus.FAILED
            while attempt.status != pq.ConnStatus.BAD:
                status = pq.PollingStatus(attempt.connect_poll())
                if status not in {pq.PollingStatus.READING, pq.PollingStatus.WRITING}:
                    break
                wait = driver.waiting.Wait
                while not (yield attempt.socket, wait.R if status == pq.PollingStatus.READING else wait.W):
                    pass
            if status != pq.PollingStatus.OK:
                text = attempt.error_message.decode("utf-8", "replace")
                attempt.finish()
                raise _named(driver, text)
            attempt.nonblocking = 1
            return cls(attempt)

    return Asking


def _named(driver: Any, text: str) -> Exception:
    error: Exception = driver.OperationalError(text)
    for state in _STATE.findall(text)[-1:]:
        error = type("Refused", (driver.OperationalError,), {"sqlstate": state})(text)
    return error


def _libpq(driver: Any) -> Any:
    """Return the libpq that psycopg's own module is linked with: the loader searches that, too."""
    library = ctypes.CDLL(importlib.import_module(driver.pq.PGconn.__module__).__file__)
    # psycopg does not wrap this function, and documents pgconn_ptr for such cases.
    library.PQsetErrorVerbosity.argtypes = [ctypes.c_void_p, ctypes.c_int]
    library.PQsetErrorVerbosity.restype = ctypes.c_int
    return library
