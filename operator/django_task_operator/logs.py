"""Log lines: JSON in a cluster, readable on a terminal.

A message is the name of an event, always the same: a few lower-case words such as ``turn failed`` or
``status not written``. Whatever differs from line to line is a field: ``extra={"worker": ...}``. The one
exception is what is also a Kubernetes event of a worker, whose note is the message (``report/reporter.py``).
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
    """Send every log line to standard error in one form."""
    handler = logging.StreamHandler()
    if form == "json":
        fields = ["asctime", "levelname", "name", "message"]
        handler.setFormatter(
            JsonFormatter(fields, rename_fields={"asctime": "time", "levelname": "level", "name": "logger"})
        )
    else:
        handler.setFormatter(_TextFormatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # kopf tells of every object that it hands over, and that a thread gets no signals: it should not.
    for talkative, least in (
        ("kopf", logging.WARNING),
        ("kopf._core.reactor.running", logging.ERROR),
    ):
        logging.getLogger(talkative).setLevel(least)
