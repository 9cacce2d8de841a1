"""Reads rows of the task table, also those that Django cannot read, so that only their own task fails.

JSON may be nested more deeply, or have longer numbers, than Python accepts, and receivers of the model's
signals may raise anything. Neither may end the process, which would claim the same row again and again.
"""

import json
import uuid
from collections.abc import Mapping
from typing import Any

from django.db import DataError, IntegrityError, models
from django.db.models.base import ModelState
from django_tasks_db.compat import TASK_MAX_PRIORITY, TASK_MIN_PRIORITY
from django_tasks_db.models import DBTaskResult

from .outcome import Row
from .trouble import is_databases

# Fields that are not needed before the row's task is called.
LEFT_OUT = frozenset({"args_kwargs", "return_value"})


def rows(alias: str) -> "models.QuerySet[Row]":
    """Return all rows of a database."""
    return DBTaskResult.objects.using(alias)


def is_rows_own(error: Exception) -> bool:
    """Whether an error in reading or claiming a row is due to that row, or to the project's receivers.

    A claim violates a constraint if what is in its row already does. A receiver's queries can do that, too.
    """
    return isinstance(error, IntegrityError | DataError) or not is_databases(error)


def read(alias: str, key: uuid.UUID) -> Row | None:
    """Read a row or, if Django cannot, the parts that can be read."""
    try:
        return rows(alias).filter(pk=key).first()
    except Exception as error:
        if not is_rows_own(error):
            raise
        return read_partly(alias, key, error)


def read_partly(alias: str, key: uuid.UUID, error: Exception) -> Row | None:
    """Read a row without its JSON, and without calling receivers; ``error`` is the reason."""
    fields = DBTaskResult._meta.concrete_fields  # noqa: SLF001
    names = [field.attname for field in fields if field.attname not in LEFT_OUT]
    values = rows(alias).filter(pk=key).values(*names).first()
    return None if values is None else partly(alias, values, error)


def partly(alias: str, values: Mapping[str, Any], error: Exception) -> Row:
    """Create a row from some of its fields, without calling the project's code, not even by a signal."""
    row: Row = DBTaskResult.__new__(DBTaskResult)
    row._state = ModelState()  # noqa: SLF001
    row._state.db, row._state.adding = alias, False  # noqa: SLF001
    row.__dict__.update(values)
    row.unreadable = error
    return row


def mend(row: Row, arguments: str, priority: int, error: Exception) -> dict[str, Any]:
    """Return what to write over the values for which every change of a row is refused with ``error``.

    ``check`` will raise ``error``, or the one with which Python cannot read the arguments either.

    Constraints hold for new rows only, if somebody switches them off (MariaDB's ``check_constraint_checks``,
    for example). ``arguments`` are the row's, as text, which becomes the only argument: it is still to be
    seen, and its task is not called. A row that is not finished has no return value to lose.
    """
    values: dict[str, Any] = {
        "return_value": None,
        "priority": min(max(priority, TASK_MIN_PRIORITY), TASK_MAX_PRIORITY),
    }
    # Databases write the constraint's name in their message: on MariaDB, for JSON, that of the column.
    replaced = "args_kwargs" in str(error)
    row.unreadable = error
    try:
        json.loads(arguments)
    except (ValueError, RecursionError) as unreadable:
        replaced = True
        row.unreadable = unreadable
    if replaced:
        values["args_kwargs"] = {"args": [arguments], "kwargs": {}}
    return values


def check(row: Row) -> None:
    """Raise the error with which a row could not be read, if there was one."""
    error: Exception | None = getattr(row, "unreadable", None)
    if error is not None:
        raise error
    if isinstance(row.args_kwargs, str):
        # Django returns invalid JSON unchanged, as text.
        json.loads(row.args_kwargs)
