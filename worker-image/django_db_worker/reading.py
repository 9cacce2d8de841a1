"""Reads rows of the task table, also those that Django cannot read: then the row's own task is to fail.

JSON may be nested more deeply, or have longer numbers, than Python takes; receivers of the model's signals
may raise anything. Neither may end the process: it would come back to the same row for ever.
"""

import json
import uuid
from collections.abc import Mapping
from typing import Any

from django.db import DatabaseError, DataError, IntegrityError, InterfaceError, models
from django.db.models.base import ModelState
from django_tasks_db.models import DBTaskResult

from .outcome import Row

# What nobody needs of a row before its task is called.
LEFT_OUT = frozenset({"args_kwargs", "return_value"})


def rows(alias: str) -> "models.QuerySet[Row]":
    """Return all rows of a database."""
    return DBTaskResult.objects.using(alias)


def is_rows_own(error: Exception) -> bool:
    """Whether an error of reading or claiming a row comes of the row or of the project's receivers.

    Reading and claiming break no constraint and write no new text: a receiver that queries may.
    """
    return isinstance(error, IntegrityError | DataError) or not isinstance(
        error, DatabaseError | InterfaceError
    )


def read(alias: str, key: uuid.UUID) -> Row | None:
    """Read a row; where Django cannot, what can be read of it."""
    try:
        return rows(alias).filter(pk=key).first()
    except Exception as error:
        if not is_rows_own(error):
            raise
        return read_partly(alias, key, error)


def read_partly(alias: str, key: uuid.UUID, error: Exception) -> Row | None:
    """Read a row without its JSON, and past all receivers; `error` is why."""
    fields = DBTaskResult._meta.concrete_fields  # noqa: SLF001
    names = [field.attname for field in fields if field.attname not in LEFT_OUT]
    values = rows(alias).filter(pk=key).values(*names).first()
    return None if values is None else partly(alias, values, error)


def partly(alias: str, values: Mapping[str, Any], error: Exception) -> Row:
    """Make a row of some of its fields without calling the project's code, not even that of a signal."""
    row: Row = DBTaskResult.__new__(DBTaskResult)
    row._state = ModelState()  # noqa: SLF001
    row._state.db, row._state.adding = alias, False  # noqa: SLF001
    row.__dict__.update(values)
    row.unreadable = error
    return row


def check(row: Row) -> None:
    """Raise why a row could not be read, if it could not."""
    error: Exception | None = getattr(row, "unreadable", None)
    if error is not None:
        raise error
    if isinstance(row.args_kwargs, str):
        # Django hands out what is no JSON as it is stored.
        json.loads(row.args_kwargs)
