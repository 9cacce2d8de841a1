"""Start workers and tell them to end at random moments, very often, over a stream of quick tasks.

Django is set up once and each worker is forked from here: a start costs milliseconds, not half a second.
"""

import json
import os
import random
import signal
import sys
import time
import traceback
from collections import Counter
from datetime import UTC, datetime

from django.core.management import call_command
from django.core.management.base import BaseCommand
from django.db import connections
from django_tasks_db.models import DBTaskResult

LEAST_READY = 300
LONGEST = 60


def feed():
    """Keep the queue from running empty."""
    if DBTaskResult.objects.ready().count() < LEAST_READY:
        DBTaskResult.objects.bulk_create(
            DBTaskResult(
                task_path="chores.note",
                args_kwargs={"args": [], "kwargs": {}},
                backend_name="default",
                run_after=datetime(9999, 1, 1, tzinfo=UTC),
            )
            for _ in range(2 * LEAST_READY)
        )
    connections.close_all()


def work(flags):
    """Be a worker; never returns."""
    code = 70
    try:
        call_command("db_worker", "--no-startup-delay", "--interval=0.02", "--verbosity=0", *flags)
        code = 0
    except SystemExit as ended:
        code = ended.code or 0
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def ended(child, deadline):
    """The exit code; a worker that does not end is killed, and its code says so."""
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "never"


class Command(BaseCommand):
    def add_arguments(self, parser):
        parser.add_argument("ends", type=int)
        parser.add_argument("layouts", type=json.loads)

    def handle(self, *, ends, layouts, **_):
        seed = random.SystemRandom().randrange(2**32)
        self.stderr.write(f"seed {seed}")
        dice = random.Random(seed)
        codes = Counter()
        longest, span = 0.0, 0.15
        for _turn in range(ends):
            feed()
            child = os.fork()
            if child == 0:
                work(dice.choice(layouts))
            # From before the first connection to long after it.
            time.sleep(dice.random() * span)
            os.kill(child, signal.SIGTERM)
            began = time.monotonic()
            code = ended(child, began + LONGEST)
            codes[code] += 1
            if code == -signal.SIGTERM:
                # It could not listen yet. On a busy machine it takes longer to.
                span *= 1.1
            longest = max(longest, time.monotonic() - began)
        print(json.dumps({"codes": codes, "longest": longest}))  # noqa: T201
