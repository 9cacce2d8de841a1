"""Log lines: JSON in a cluster, readable on a terminal. ``docs/logs.md`` describes them.

A message is the constant name of an event: a few lower-case words such as ``turn failed`` or ``status not
written``. Everything that varies is a field: ``extra={"worker": ...}``. The only exception are log lines
that are also Kubernetes events of a worker: their message is the event's note (``report/reporter.py``).
What others wrote is made harmless here, on its way out (``harmless.py``).
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from pythonjsonlogger.json import JsonFormatter

from django_task_operator.harmless import harmless

if TYPE_CHECKING:
    from types import TracebackType

    type _ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class _TextFormatter(logging.Formatter):
    """One line: time, level, message, and the extra fields as name=value."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  logging's name
        extra = {name: value for name, value in vars(record).items() if name not in _STANDARD}
        fields = "".join(f" {name}={harmless(str(value))}" for name, value in extra.items())
        record.message = harmless(record.message)
        return super().formatMessage(record) + fields

    def formatException(self, ei: _ExcInfo) -> str:  # noqa: N802  logging's name
        # Indented, so that no exception's text can pass for a log line.
        return "\n".join(f"  {line}" for line in _lines(super().formatException(ei)))


class _JsonFormatter(JsonFormatter):
    """One JSON object a line, with the extra fields beside the message."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: ARG002, N802
        at = datetime.fromtimestamp(record.created, UTC)
        return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        log_data["level"] = str(log_data["level"]).lower()
        return {name: _in_json(name, value) for name, value in log_data.items()}


def _in_json(name: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return "\n".join(_lines(value)) if name == "exc_info" else harmless(value)


def _lines(traceback: str) -> list[str]:
    return [harmless(line) for line in traceback.split("\n")]


def configure(level: str, form: Literal["json", "text"]) -> None:
    """Send all log lines to standard error in one format."""
    handler = logging.StreamHandler()
    if form == "json":
        fields = ["asctime", "levelname", "name", "message"]
        handler.setFormatter(
            _JsonFormatter(
                fields,
                rename_fields={"asctime": "ts", "levelname": "level", "name": "logger", "message": "msg"},
            )
        )
    else:
        handler.setFormatter(_TextFormatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # kopf logs every object that it hands over, warns that a thread gets no signals, which is intended, and
    # logs the error with which it ends before it raises it (``cluster/handlers.py``).
    for talkative, least in (
        ("kopf", logging.WARNING),
        ("kopf._core.reactor.running", logging.CRITICAL),
    ):
        logging.getLogger(talkative).setLevel(least)
