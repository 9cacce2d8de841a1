"""manage.py with a worker in a container whose memory a test decides: CONTAINER is a folder."""

import os
import sys
from pathlib import Path

import django
from django.core.management import execute_from_command_line

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
django.setup()

from django_db_worker import memory, shortage  # noqa: E402

assert str(memory.GROUP) == "/sys/fs/cgroup"
assert str(shortage.TERMINATION_LOG) == "/dev/termination-log"
memory.GROUP = Path(os.environ["CONTAINER"])
shortage.TERMINATION_LOG = memory.GROUP / "termination-log"
execute_from_command_line(sys.argv)
