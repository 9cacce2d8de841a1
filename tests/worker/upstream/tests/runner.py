"""Django's test runner, without the tests that are deselected by name."""

import io
import json
import os
import re
import signal
import time
from contextlib import contextmanager
from pathlib import Path

from django.core.management import call_command
from django.db import connection
from django.test.runner import DiscoverRunner
from django.test.utils import CaptureQueriesContext, iter_test_cases

# BEGIN, SELECT and COMMIT; MySQL's driver sets the isolation level too.
LOOK = 4
# There a look is a cheap statement for each step from queue to queue and from priority to priority.
STEPS = 4


@contextmanager
def at_most(self, number):
    """Upstream counts its own statements. Ours may be fewer, and one more look before the end."""
    with CaptureQueriesContext(connection) as seen:
        yield seen
    most = number + LOOK + (STEPS if connection.vendor == "mysql" else 0)
    # Through the ORM a claim reads the key alone, before the row, which may not be readable.
    counted = [query["sql"][:60] for query in seen.captured_queries if ' AS "pk" FROM ' not in query["sql"]]
    assert len(counted) <= most, counted


def until_it_listens(start_worker):
    """Have it return when the worker handles SIGTERM: how long that takes says nothing about the worker."""

    def start(*args, **kwargs):
        process = start_worker(*args, **kwargs)
        deadline = time.monotonic() + 30
        while process.poll() is None and time.monotonic() < deadline:
            status = Path(f"/proc/{process.pid}/status").read_text()
            caught = int(re.search(r"^SigCgt:\s*(\w+)", status, re.MULTILINE)[1], 16)
            if caught & 1 << (signal.SIGTERM - 1):
                break
            time.sleep(0.01)
        return process

    return start


class Runner(DiscoverRunner):
    def setup_databases(self, **kwargs):
        made = super().setup_databases(**kwargs)
        if not os.environ.get("STOCK"):
            # Else a worker logs that the index is missing, where upstream's tests count the lines.
            call_command("db_worker_setup", stdout=io.StringIO())
        return made

    def build_suite(self, *args, **kwargs):
        from tests.tests import DatabaseBackendWorkerTestCase, DatabaseWorkerProcessTestCase  # noqa: PLC0415

        of_processes = DatabaseWorkerProcessTestCase
        of_processes.start_worker = until_it_listens(of_processes.start_worker)
        if not os.environ.get("STOCK"):
            DatabaseBackendWorkerTestCase.assertNumQueries = at_most
        suite = super().build_suite(*args, **kwargs)
        deselected = set(json.loads(os.environ["DESELECTED"]))
        tests = list(iter_test_cases(suite))
        unknown = deselected - {self.name(test) for test in tests}
        if unknown:
            raise RuntimeError(f"deselected, but not there: {sorted(unknown)}")
        return self.test_suite(test for test in tests if self.name(test) not in deselected)

    @staticmethod
    def name(test):
        return ".".join(test.id().split(".")[-2:])
