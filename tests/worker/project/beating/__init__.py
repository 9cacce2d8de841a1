"""An app that starts a thread, like exporters of telemetry."""

import os
import threading
import time

last_beat = 0.0


def beat():
    global last_beat  # noqa: PLW0603
    while True:
        last_beat = time.monotonic()
        time.sleep(0.02)


def start():
    threading.Thread(target=beat, name="beating-heart", daemon=True).start()


def fail():
    raise LookupError("no exporter at all")


def beats():
    """Whether the thread runs in this process; each answer takes a moment."""
    since = time.monotonic()
    until = since + 3
    while time.monotonic() < until:
        if last_beat > since:
            return [os.getpid(), True]
        time.sleep(0.02)
    return [os.getpid(), False]


not_a_function = 1
