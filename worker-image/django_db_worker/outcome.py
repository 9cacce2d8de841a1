"""What a row says about the end of its task, in a form that a database takes.

A task may raise what cannot be printed and return what cannot be written down: neither is the worker's end.
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

# A traceback is for people. What is left of a longer one has where it begins, and the error at its end.
TRACEBACK_HEAD = TRACEBACK_TAIL = 32 * 1024
CLASS_PATH_LENGTH = 1024
# Bytes of a result below which nobody asks for the limit: no server is set to less than 1 MiB in practice.
LARGE = 256 * 1024
STATEMENT_OVERHEAD = 4 * 1024
# What even a table that is odd in several ways has room for.
LEAST_LENGTH = 200


@dataclass(frozen=True)
class LostTask:
    """A task whose process ended while it ran, and the error that its row will show."""

    task: uuid.UUID
    error: BaseException


def succeed(row: Row, value: object) -> None:
    """Set a row's fields as DBTaskResult.set_successful does, without saving them.

    Raises what a value's own code raises, and TypeError, ValueError or RecursionError for what is no JSON.
    """
    # Here, not in the middle of a statement: whatever comes of it is the task's own failure.
    encoder = row._meta.get_field("return_value").encoder  # noqa: SLF001
    row.encoded_value = json.dumps(value, cls=encoder) if value is not None else None
    row.status = TaskResultStatus.SUCCESSFUL
    row.finished_at = timezone.now()
    row.return_value = value
    row.exception_class_path = ""
    row.traceback = ""


def fail(row: Row, error: BaseException) -> None:
    """Set a row's fields as DBTaskResult.set_failed does, without saving them. Raises nothing."""
    row.status = TaskResultStatus.FAILED
    row.finished_at = timezone.now()
    row.exception_class_path = _storable(_class_path(error))[:CLASS_PATH_LENGTH]
    row.traceback = formatted(error)
    row.encoded_value = row.return_value = None


def plain(row: Row) -> None:
    """Say the same about a failure in ASCII: for a table of another character set."""
    row.exception_class_path = _ascii(row.exception_class_path)
    row.traceback = _ascii(row.traceback)


def least(row: Row) -> None:
    """Keep of a failure what every table has room for: the class, and the end of what it says."""
    row.exception_class_path = _ascii(row.exception_class_path)[:LEAST_LENGTH]
    row.traceback = _ascii(row.traceback)[-LEAST_LENGTH:]


def check_size(row: Row, most: Callable[[], tuple[int, str] | None]) -> None:
    """Refuse a result that the server would hang up on, every time, or take minutes to refuse.

    `most` is asked for the limit in bytes and its name, if there is one, and for large results alone.
    Raises ValueError.
    """
    text: str | None = row.encoded_value
    if text is None or len(text) < LARGE:
        return
    limit = most()
    # At the most: not every driver escapes all of these.
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
        # A metaclass may answer for its classes as it likes.
        return ".".join(str(type.__getattribute__(kind, name)) for name in ("__module__", "__qualname__"))


def formatted(error: BaseException) -> str:
    """Write an exception with its traceback as text that can be stored. Raises nothing."""
    return _storable(_shortened(_formatted(error)))


def _formatted(error: BaseException) -> str:
    try:
        return "".join(format_exception(error))
    except BaseException as failure:  # noqa: BLE001
        # Formatting calls the exception's own code.
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
    """PostgreSQL's text has no NUL, and no database a lone surrogate."""
    return text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()


def _ascii(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode()
