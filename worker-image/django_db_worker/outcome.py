"""What is stored about the end of a task, in a form that the database accepts.

A task may raise an exception that cannot be formatted, or return a value that cannot be stored. Neither may
end the worker.
"""

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from traceback import format_exception, format_tb
from typing import Any

from django.utils import timezone
from django_tasks_db.compat import TaskResultStatus

Row = Any  # a DBTaskResult; the package's generics say nothing more
FINISHED_FIELDS = ("status", "return_value", "finished_at", "exception_class_path", "traceback")

# Tracebacks are for people. Of a longer one, the beginning is kept, and the end with the error.
TRACEBACK_HEAD = TRACEBACK_TAIL = 32 * 1024
CLASS_PATH_LENGTH = 1024
# For results with fewer bytes, the limit is not read: in practice, no server has a limit below 1 MiB.
LARGE = 256 * 1024
STATEMENT_OVERHEAD = 4 * 1024
# Characters for which even an unusual table has room.
LEAST_LENGTH = 200


@dataclass(frozen=True)
class LostTask:
    """A task whose process ended while it ran, and the error that its row will show."""

    task: uuid.UUID
    error: BaseException


def succeed(row: Row, value: object) -> None:
    """Set a row's fields as DBTaskResult.set_successful does, without saving them.

    Raises:
        TypeError, ValueError, RecursionError: the value cannot be written as JSON.
        BaseException: whatever the value's own code raises.
    """
    # Here, and not within a statement, so that an exception counts as the task's failure.
    encoder = row._meta.get_field("return_value").encoder  # noqa: SLF001
    row.encoded_value = json.dumps(value, cls=encoder) if value is not None else None
    row.status = TaskResultStatus.SUCCESSFUL
    row.finished_at = timezone.now()
    row.return_value = value
    row.exception_class_path = ""
    row.traceback = ""


def fail(row: Row, error: BaseException) -> None:
    """Set a row's fields as DBTaskResult.set_failed does, without saving them. Never raises."""
    row.status = TaskResultStatus.FAILED
    row.finished_at = timezone.now()
    row.exception_class_path = _storable(_class_path(error))[:CLASS_PATH_LENGTH]
    row.traceback = formatted(error)
    row.encoded_value = row.return_value = None


def plain(row: Row) -> None:
    """Reduce the description of a failure to ASCII, for a table with another character set."""
    row.exception_class_path = _ascii(row.exception_class_path)
    row.traceback = _ascii(row.traceback)


def least(row: Row) -> None:
    """Reduce a failure to what fits into every table: the class, and the end of the traceback."""
    row.exception_class_path = _ascii(row.exception_class_path)[:LEAST_LENGTH]
    row.traceback = _ascii(row.traceback)[-LEAST_LENGTH:]


def check_size(row: Row, most: Callable[[], tuple[int, str] | None]) -> None:
    """Refuse a result for which the server would close the connection, or which it takes minutes to refuse.

    ``most`` returns the limit in bytes and its name, if there is one. It is only called for large results.

    Raises:
        ValueError: the result is too large.
    """
    text: str | None = row.encoded_value
    if text is None or len(text) < LARGE:
        return
    limit = most()
    # An upper bound: not every driver escapes all of these.
    if limit is not None and len(text) + sum(map(text.count, "\"'\\")) + STATEMENT_OVERHEAD > limit[0]:
        raise ValueError(
            f"The result has {len(text):,} bytes as JSON and cannot be stored: the database takes "
            f"{limit[0]:,} ({limit[1]}). Keep it elsewhere, and return where it is."
        )


def _class_path(error: BaseException) -> str:
    kind = type(error)
    try:
        return f"{kind.__module__}.{kind.__qualname__}"
    except BaseException:  # noqa: BLE001
        # A metaclass may define these attributes in its own way.
        return ".".join(str(type.__getattribute__(kind, name)) for name in ("__module__", "__qualname__"))


def formatted(error: BaseException) -> str:
    """Format an exception and its traceback as text that can be stored. Never raises."""
    return _storable(_shortened(_formatted(error)))


def _formatted(error: BaseException) -> str:
    try:
        return "".join(format_exception(error))
    except BaseException as failure:  # noqa: BLE001
        # Formatting calls code of the exception.
        kind = _class_path(failure)
        return (
            "Traceback (most recent call last):\n"
            f"{''.join(format_tb(BaseException.__dict__['__traceback__'].__get__(error)))}"
            f"{_class_path(error)}: <it could not be formatted: {kind}>\n"
        )


def _shortened(text: str) -> str:
    left_out = len(text) - TRACEBACK_HEAD - TRACEBACK_TAIL
    if left_out <= 0:
        return text
    return f"{text[:TRACEBACK_HEAD]}\n[{left_out} characters left out]\n{text[-TRACEBACK_TAIL:]}"


def _storable(text: str) -> str:
    """Escape NUL characters, which PostgreSQL refuses, and lone surrogates, which every database refuses."""
    return text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()


def _ascii(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode()
