"""manage.py with a worker whose slots count as stuck after six seconds, where the real limit is a minute."""

import os
import sys

import django
from django.core.management import execute_from_command_line

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
django.setup()

from django_db_worker.management.commands import db_worker  # noqa: E402

assert db_worker.STUCK_SECONDS == 60
db_worker.STUCK_SECONDS = 6
execute_from_command_line(sys.argv)
