"""Log lines: JSON in a cluster, readable on a terminal.

A message is the constant name of an event: a few lower-case words such as ``turn failed`` or ``status not
written``. Everything that varies is a field: ``extra={"worker": ...}``. The only exception are log lines
that are also Kubernetes events of a worker: their message is the event's note (``report/reporter.py``).
"""

from __future__ import annotations

import logging
from typing import Literal

from pythonjsonlogger.json import JsonFormatter

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class _TextFormatter(logging.Formatter):
    """One line: time, level, message, and the extra fields as name=value."""

    def format(self, record: logging.LogRecord) -> str:
        extra = {name: value for name, value in vars(record).items() if name not in _STANDARD}
        fields = "".join(f" {name}={value}" for name, value in extra.items())
        return super().format(record).replace(record.message, record.message + fields, 1)


def configure(level: str, form: Literal["json", "text"]) -> None:
    """Send all log lines to standard error in one format."""
    handler = logging.StreamHandler()
    if form == "json":
        fields = ["asctime", "levelname", "name", "message"]
        handler.setFormatter(
            JsonFormatter(fields, rename_fields={"asctime": "time", "levelname": "level", "name": "logger"})
        )
    else:
        handler.setFormatter(_TextFormatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # kopf logs every object that it hands over, and warns that a thread gets no signals, which is intended.
    for talkative, least in (
        ("kopf", logging.WARNING),
        ("kopf._core.reactor.running", logging.ERROR),
    ):
        logging.getLogger(talkative).setLevel(least)
