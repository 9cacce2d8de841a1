"""Upstream's ``db_worker``, with processes, threads and health."""

import logging
import os
from argparse import SUPPRESS, ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError
from django.db import DatabaseError, InterfaceError, connections, router
from django.utils import timezone
from django.utils.log import AdminEmailHandler
from django_tasks_db.compat import TASKS_LOGGER, task_backends
from django_tasks_db.management.commands.db_worker import Command as UpstreamCommand
from django_tasks_db.models import DBTaskResult

from django_db_worker import log_lines
from django_db_worker import options as asked
from django_db_worker.after_fork import SETTING, load
from django_db_worker.database import OutageLog, limited
from django_db_worker.errors import AbandonedError, NotMigratedError, RefusedError
from django_db_worker.listeners import find_listeners
from django_db_worker.memory import quantity, used_by
from django_db_worker.next_row import Wanted
from django_db_worker.options import LONGEST_TIMEOUT, MOST, Options, OptionsError, whole_number
from django_db_worker.process import REFUSED, Worker, run_here, run_reloaded
from django_db_worker.slot import SlotOptions
from django_db_worker.status_board import StatusBoard
from django_db_worker.supervisor import Supervisor
from django_db_worker.trouble import reason

STUCK_SECONDS = 60.0

logger = logging.getLogger("django_tasks_db")


class Command(UpstreamCommand):
    """See ``help``."""

    help = "Run a database background worker, with processes, threads and health checks"

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add upstream's arguments and our own."""
        super().add_arguments(parser)
        parser.epilog = (
            "With several processes or threads, or with --health-port, --task-timeout or "
            "--max-memory-per-process, the command supervises its worker processes, and --max-tasks "
            "replaces a process instead of ending the command. The environment variables DB_WORKER_ID, "
            "DB_WORKER_HEALTH_PORT and DB_WORKER_LOG_FORMAT are the same as --worker-id, --health-port and "
            "--log-format."
        )
        parser.add_argument("--queue", dest="queue_name", default=SUPPRESS, help="The same as --queue-name.")
        parser.add_argument(
            "--processes",
            type=whole_number(1, MOST),
            default=1,
            help=f"Worker processes, 1 to {MOST} (default: %(default)s).",
        )
        parser.add_argument(
            "--threads",
            type=whole_number(1, MOST),
            default=1,
            help=f"Threads in each process, 1 to {MOST}, each with a connection (default: %(default)s).",
        )
        parser.add_argument(
            "--health-port",
            type=whole_number(1, 65535),
            default=None,
            help="Serve /healthz, /readyz and /metrics on this port (default: none).",
        )
        parser.add_argument(
            "--task-timeout",
            type=whole_number(0, LONGEST_TIMEOUT),
            default=0,
            help="Seconds after which a running task is ended and FAILED with TimeoutError; its process is "
            "replaced once the other tasks in it have finished. 0 is never (default: %(default)s).",
        )
        parser.add_argument(
            "--max-memory-per-process",
            dest="max_memory",
            type=quantity,
            default=None,
            metavar="BYTES",
            help="Replace a process that has taken more memory than this, such as 512Mi, once its tasks have "
            "finished; kill it at one and a half times as much (default: never).",
        )
        parser.add_argument(
            "--log-format",
            choices=log_lines.FORMATS,
            default=log_lines.TEXT,
            help="json: one object a line, with the task's id, path and attempt, whatever the project's "
            "LOGGING says of the worker's loggers (default: %(default)s).",
        )
        # For command lines that others write, such as prodserver.
        environment = {
            "worker_id": "DB_WORKER_ID",
            "health_port": "DB_WORKER_HEALTH_PORT",
            "log_format": "DB_WORKER_LOG_FORMAT",
        }
        parser.set_defaults(
            verbosity=None,
            **{
                name: os.environ[variable]
                for name, variable in environment.items()
                if os.environ.get(variable)
            },
        )

    def check(self, *args: Any, **kwargs: Any) -> None:
        """Run Django's system checks, but do not fail if there is no database yet.

        The checks of models ask MySQL for its version. The worker itself waits for the database.
        """
        try:
            with limited(router.db_for_write(DBTaskResult)):
                super().check(*args, **kwargs)
        except (DatabaseError, InterfaceError) as error:
            logger.warning("Django's system checks were skipped: no database (%s).", reason(error))

    def configure_logging(self, verbosity: int | None) -> None:
        """Do what upstream does; without --verbosity, use the level of the project's TASKS_LOG_LEVEL."""
        level = None
        if verbosity is None and hasattr(settings, "TASKS_LOG_LEVEL"):
            level = asked.level_of(settings.TASKS_LOG_LEVEL)
        super().configure_logging(1 if verbosity is None else verbosity)
        tasks_logger = logging.getLogger(TASKS_LOGGER)
        if not _shows(tasks_logger):
            # Django's default console handler works only with DEBUG, but upstream counts it as a handler.
            tasks_logger.addHandler(logging.StreamHandler(self.stdout))
        if level is not None:
            tasks_logger.setLevel(level)
            logger.setLevel(level)

    def handle(self, **given: Any) -> None:
        """Run the worker. Exit codes: see the README."""
        try:
            self.configure_logging(given["verbosity"])
            # argparse does not check a default, which the environment may be.
            asked.check_log_format(given["log_format"])
            if given["log_format"] == log_lines.JSON:
                log_lines.write_as_json((TASKS_LOGGER, logger.name), self.stdout)
            options = _options(given)
            _check(options)
            after_fork = load(getattr(settings, SETTING, None))
        except OptionsError as error:
            raise CommandError(str(error)) from error
        worker = Worker(
            options=options,
            slot_options=SlotOptions(
                wanted=Wanted(options.backend_name, options.queue_names, options.excluded_queue_names),
                interval=options.interval,
                batch=options.batch,
                startup_delay=options.startup_delay,
                began=timezone.now(),
                listeners=find_listeners(),
            ),
            board=StatusBoard(options.processes, options.threads),
            outages=OutageLog(),
            after_fork=after_fork,
        )
        reload = given["reload"]
        if reload and options.batch:
            logger.warning(
                "Warning: --reload and --batch cannot be specified together. Disabling autoreload."
            )
            reload = False
        try:
            self._run(worker, reload=reload)
        except (NotMigratedError, AbandonedError) as error:
            raise CommandError(str(error)) from error
        except RefusedError as error:
            raise CommandError(str(error), returncode=REFUSED) from error

    def _run(self, worker: Worker, *, reload: bool) -> None:
        if worker.options.supervised:
            if reload:
                logger.warning(
                    "Warning: --reload works with one process and one thread, without --health-port, "
                    "--task-timeout and --max-memory-per-process. Disabling autoreload."
                )
            self._supervise(worker)
        elif reload:
            run_reloaded(worker)
        else:
            run_here(worker)

    def _supervise(self, worker: Worker) -> None:
        try:
            supervisor = Supervisor(worker, stuck_seconds=STUCK_SECONDS)
        except OSError as error:
            raise CommandError(f"--health-port={worker.options.health_port}: {error.strerror}.") from error
        code = supervisor.run()
        if code:
            raise SystemExit(code)


def _shows(name: logging.Logger) -> bool:
    """Whether a handler shows critical records of this logger; e-mails to the admins do not count."""
    record = name.makeRecord(name.name, logging.CRITICAL, "", 0, "", (), None)
    at: logging.Logger | None = name
    while at is not None:
        for handler in at.handlers:
            if not isinstance(handler, AdminEmailHandler) and handler.filter(record):
                return True
        at = at.parent if at.propagate else None
    return False


def _options(given: dict[str, Any]) -> Options:
    queues, excluded = asked.split_queues(given["queue_name"] or "", given["exclude_queues"] or "")
    return Options(
        queue_names=queues,
        excluded_queue_names=excluded,
        backend_name=given["backend_name"],
        interval=given["interval"],
        batch=given["batch"],
        startup_delay=given["startup_delay"],
        max_tasks=given["max_tasks"],
        worker_id=given["worker_id"],
        processes=given["processes"],
        threads=given["threads"],
        health_port=given["health_port"],
        task_timeout=given["task_timeout"],
        max_memory=given["max_memory"],
    )


def _check(options: Options) -> None:
    backend = task_backends[options.backend_name]
    asked.check_queues(options.queue_names, backend.queues, options.backend_name)
    connection = connections[router.db_for_write(DBTaskResult)]
    asked.check_database(connection.settings_dict["ENGINE"], connection.alias)
    asked.check_memory(options.max_memory, used_by(os.getpid()))
    asked.check_slots(options, connection.vendor, connection.alias, connection.settings_dict["OPTIONS"])
