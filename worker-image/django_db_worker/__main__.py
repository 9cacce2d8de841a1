"""Launcher: ``python <this folder> manage.py db_worker ...``, for images without this package installed.

It makes Django use the commands of this folder, whatever INSTALLED_APPS says, and then runs manage.py (or
``-m module``) as Python would. It writes no files, and needs neither PYTHONPATH nor an entry for the user in
/etc/passwd.
"""

import os
import runpy
import signal
import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import NoReturn

COMMANDS = ("db_worker", "db_worker_setup", "cleanup_tasks")
OLDEST_PYTHON = (3, 10)
OLDEST_DJANGO = (5, 2)
HERE = Path(__file__).resolve().parent


def main() -> None:
    """Check the image's packages, take over the commands, and run the program."""
    # PID 1 has no default action: without a handler, a SIGTERM while Django still loads would do nothing.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(128 + signal.SIGTERM))
    if sys.version_info < OLDEST_PYTHON:
        _refuse(f"Python {sys.version.split()[0]} is too old: 3.10 or newer is needed.")
    program = sys.argv[1:]
    if not program:
        _refuse("Say what to run: python <this folder> manage.py db_worker ...")
    as_module = program[0] == "-m"
    if as_module and not program[1:]:
        _refuse("-m needs the name of a module.")
    script = Path(program[0])
    if not as_module and not script.is_file():
        _refuse(
            f"There is no {program[0]} in {Path.cwd()}: set the path of manage.py or the working directory."
        )
    # What Python itself would set; this folder's modules must not be top-level modules.
    sys.path[0] = str(Path.cwd() if as_module else script.resolve().parent)
    _check_packages()
    _take_over()
    if as_module:
        sys.argv = program[1:]
        runpy.run_module(program[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = program
        runpy.run_path(program[0], run_name="__main__")


def _check_packages() -> None:
    if find_spec("django") is None:
        _refuse("Django is not installed in this image.")
    import django  # noqa: PLC0415

    if django.VERSION < OLDEST_DJANGO:
        _refuse(f"Django {django.__version__} is too old: tasks need Django 6.0, or 5.2 with django-tasks.")
    if find_spec("django_tasks_db") is None:
        _refuse("django-tasks-db is not installed in this image: add it to the project's requirements.")
    if django.VERSION < (6, 0) and find_spec("django_tasks") is None:
        _refuse(f"Django {django.__version__} has no tasks: install django-tasks-db[compat], or Django 6.")


def _take_over() -> None:
    """Import this folder as the package django_db_worker, and make Django find its commands."""
    spec = spec_from_file_location(
        "django_db_worker", HERE / "__init__.py", submodule_search_locations=[str(HERE)]
    )
    if spec is None or spec.loader is None:
        _refuse(f"{HERE} is not readable.")
    package = module_from_spec(spec)
    sys.modules["django_db_worker"] = package
    spec.loader.exec_module(package)

    from django.core import management  # noqa: PLC0415

    theirs = management.get_commands

    def get_commands() -> dict[str, str]:
        return {**theirs(), **dict.fromkeys(COMMANDS, "django_db_worker")}

    management.get_commands = get_commands


def _refuse(sentence: str) -> NoReturn:
    sys.exit(f"django_db_worker: {sentence}")


if __name__ == "__main__":
    main()
