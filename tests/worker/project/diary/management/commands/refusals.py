"""Run db_worker with each of many command lines, each in a fork of its own; what it says and how it ends."""

import json
import os
import sys

from django.core.management import execute_from_command_line
from django.core.management.base import BaseCommand
from django.db import connections


def run(flags):
    """Exit code and standard error of one command line."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(writer, sys.stderr.fileno())
        code = 0
        try:
            execute_from_command_line(["manage.py", "db_worker", "--no-startup-delay", *flags])
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
        except BaseException:  # noqa: BLE001
            sys.excepthook(*sys.exc_info())
            code = 70
        sys.stderr.flush()
        os._exit(code)
    os.close(writer)
    with os.fdopen(reader) as said:
        text = said.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), text


class Command(BaseCommand):
    def add_arguments(self, parser):
        parser.add_argument("lines", type=json.loads)

    def handle(self, *, lines, **_):
        connections.close_all()
        print(json.dumps([run(flags) for flags in lines]))  # noqa: T201
