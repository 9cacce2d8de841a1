"""What an exception that came out of a driver means for the person who has to act."""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING

from django.db import Error as DjangoDatabaseError

from django_task_operator.tasktable.errors import (
    ConnectionTimedOut,
    DatabaseError,
    DatabaseFailed,
    HostUnknown,
    SampleTimedOut,
    TLSFailed,
)

if TYPE_CHECKING:
    from django_task_operator.tasktable.engines import Engine, Limits


def classified(error: Exception, engine: Engine, limits: Limits, *, connected: bool) -> DatabaseError:
    """What an exception of a driver, or of Django around it, means.

    Args:
        error: the exception.
        engine: whose driver it came from.
        limits: the time-outs, to be named.
        connected: whether the connection had been made: silence means another thing before and after.
    """
    cause = error
    if isinstance(error, DjangoDatabaseError) and isinstance(error.__cause__, Exception):
        cause = error.__cause__
    kind, code = engine.explain(cause) or _explain(cause)
    if kind is SampleTimedOut:
        if not connected:
            return ConnectionTimedOut()
        return SampleTimedOut(seconds=limits.statement_seconds)
    if kind is DatabaseFailed:
        return DatabaseFailed(code=code)
    return kind()


def _explain(error: Exception) -> tuple[type[DatabaseError], str]:
    """What comes of the socket or of a certificate's file before any driver makes an error of its own."""
    if isinstance(error, socket.gaierror):
        return HostUnknown, ""
    if isinstance(error, ssl.SSLError | FileNotFoundError):
        return TLSFailed, ""
    return DatabaseFailed, type(error).__name__
