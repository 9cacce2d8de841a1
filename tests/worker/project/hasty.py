"""manage.py with a worker that waits only a second for an answer, where the real one waits half a minute."""

import os
import sys

import django
from django.core.management import execute_from_command_line

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
django.setup()

from django_db_worker import database, task_store, watchdog  # noqa: E402

assert (database.CONNECT_SECONDS, database.ANSWER_SECONDS, database.CUT_SECONDS) == (10, 20, 10)
database.CONNECT_SECONDS, database.ANSWER_SECONDS, database.CUT_SECONDS = 2, 1, 1
database.LONGEST_RETRY_SECONDS = 1.0
database.REFUSED_SECONDS = float(os.environ.get("REFUSED_SECONDS", database.REFUSED_SECONDS))
watchdog.CUT_SECONDS = 1
assert task_store.LATE_LOOKS_SECONDS == (1, 5, 30)
execute_from_command_line(sys.argv)
