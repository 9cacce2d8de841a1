"""What a driver's exception means for the person who has to act."""

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
    """Return the error that an exception of a driver, or of Django around it, means.

    Args:
        error: the exception.
        engine: the engine whose driver raised it.
        limits: the timeouts, for the message.
        connected: whether the connection was established: silence has another meaning before than after.
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
    """Explain errors of the socket or of a certificate's file, which the driver does not wrap."""
    if isinstance(error, socket.gaierror):
        return HostUnknown, ""
    if isinstance(error, ssl.SSLError | FileNotFoundError):
        return TLSFailed, ""
    return DatabaseFailed, type(error).__name__
