"""Rows that no worker can claim, because their own table refuses every change of them.

A constraint may hold for new rows only (PostgreSQL's NOT VALID), or have been switched off while a row was
written. Such a row would be the next one for ever, and the rows behind it would wait.
"""

import logging
import time
import uuid

from .trouble import reason

logger = logging.getLogger("django_tasks_db")

# Meanwhile somebody may mend the row or drop the constraint.
AGAIN_SECONDS = 60.0


class PassedOver:
    """The rows that one slot passes over, and since when."""

    def __init__(self) -> None:
        self._since: dict[uuid.UUID, float] = {}
        self._told: set[uuid.UUID] = set()

    def add(self, key: uuid.UUID, error: Exception) -> None:
        """Pass a row over, because of an error of the database; log it the first time."""
        self._since[key] = time.monotonic()
        if key not in self._told:
            self._told.add(key)
            logger.error(
                "Task id=%s is passed over, because its table refuses every change of the row (%s). "
                "Correct or delete the row, or drop the constraint.",
                key,
                reason(error),
            )

    def keys(self) -> list[uuid.UUID]:
        """Return the rows to pass over now."""
        until = time.monotonic() - AGAIN_SECONDS
        self._since = {key: since for key, since in self._since.items() if since > until}
        return list(self._since)
