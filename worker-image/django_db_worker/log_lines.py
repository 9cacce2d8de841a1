"""The worker's own log as JSON, one object a line, for those who ask for it (``--log-format json``)."""

import json
import logging
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any

TEXT, JSON = "text", "json"
FORMATS = (TEXT, JSON)


class _Running(threading.local):
    """What the slot of this thread is doing."""

    fields: dict[str, Any] = {}  # noqa: RUF012  replaced, never changed


_running = _Running()


@contextmanager
def about(row: Any, worker_id: str) -> Iterator[None]:
    """Let the lines that this thread logs meanwhile name a task and its attempt, which begins with 1."""
    _running.fields = {
        "task_id": str(row.id),
        "task_path": row.task_path,
        "attempt": len(row.worker_ids),
        "worker_id": worker_id,
    }
    try:
        yield
    finally:
        _running.fields = {}


class JsonFormatter(logging.Formatter):
    """Writes a record as one line of ASCII, so that no task's name or exception can pass for another line."""

    def __init__(self) -> None:
        super().__init__()
        # The operator sets it; elsewhere in Kubernetes, the host name is that of the pod.
        self._pod = os.environ.get("POD_NAME") or socket.gethostname()

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without the end of it."""
        at = datetime.fromtimestamp(record.created, timezone.utc)
        fields = {
            "ts": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": record.getMessage(),
            "pod": self._pod,
            "process": record.process,
            **_running.fields,
        }
        if record.exc_info:
            fields["error"] = self.formatException(record.exc_info)
        return json.dumps(fields)


def write_as_json(names: tuple[str, ...], stream: Any) -> None:
    """Write what these loggers log as JSON, and nowhere else: the project's handlers would repeat it."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    for name in names:
        chosen = logging.getLogger(name)
        for other in list(chosen.handlers):
            chosen.removeHandler(other)
        chosen.addHandler(handler)
        chosen.propagate = False
