"""Why PostgreSQL lets nobody in, told by the SQLSTATE: its words may be in any language.

psycopg has a SQLSTATE only of errors that come after a connection was made; libpq keeps that of a refusal to
itself, but writes it into its message where it is asked to be verbose. The operator's `engines/postgresql.py`
connects so each time. A worker leaves connecting to Django, and asks once more when it was refused.
"""

import ctypes
import importlib
import re
from typing import Any

from django.db import OperationalError
from django.db.backends.base.base import BaseDatabaseWrapper

# https://www.postgresql.org/docs/current/libpq-control.html#LIBPQ-PQSETERRORVERBOSITY
PQERRORS_VERBOSE = 2
# "FATAL:  28P01: password authentication failed": the severity and the text are in the server's language.
_STATE = re.compile(r":  ([0-9A-Z]{5}): ")


def ask_why(connection: BaseDatabaseWrapper) -> OperationalError | None:
    """Try to connect once more, without a pool, and return what was said; None where that worked.

    None, too, where the driver is not psycopg 3.
    """
    if connection.vendor != "postgresql" or not hasattr(connection.Database, "pq"):  # type: ignore[attr-defined]
        return None
    driver: Any = connection.Database  # type: ignore[attr-defined]
    try:
        library = _libpq(driver)
    except (OSError, AttributeError):
        # psycopg without its C module, and a libpq that is not where libraries are.
        return None
    try:
        _asking(driver, library).connect(**connection.get_connection_params()).close()
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
    """The very libpq that psycopg's module is linked with: symbols are looked for in what it loads, too."""
    library = ctypes.CDLL(importlib.import_module(driver.pq.PGconn.__module__).__file__)
    # psycopg does not wrap this function, and documents pgconn_ptr for those.
    library.PQsetErrorVerbosity.argtypes = [ctypes.c_void_p, ctypes.c_int]
    library.PQsetErrorVerbosity.restype = ctypes.c_int
    return library
