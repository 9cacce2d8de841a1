"""Delete old results from the task table, in batches."""

from argparse import ArgumentTypeError
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import models, router
from django.utils import timezone
from django_tasks_db.compat import DEFAULT_TASK_BACKEND_ALIAS, TaskResultStatus, task_backends
from django_tasks_db.management.commands.db_worker import valid_backend_name
from django_tasks_db.models import DBTaskResult

from django_db_worker.options import OptionsError, check_queues, split_queues, whole_number

DEFAULT_DAYS = 30
LONGEST_DAYS = 36_500
STATUSES = {
    "all": (TaskResultStatus.SUCCESSFUL, TaskResultStatus.FAILED),
    "successful": (TaskResultStatus.SUCCESSFUL,),
    "failed": (TaskResultStatus.FAILED,),
}


class Command(BaseCommand):
    """See ``help``."""

    help = "Delete the results of tasks that finished long ago"

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the arguments."""
        parser.add_argument(
            "--days",
            type=whole_number(0, LONGEST_DAYS),
            help="Delete what finished longer ago than this "
            f"(default: the setting TASKS_RESULT_EXPIRATION_DAYS, else {DEFAULT_DAYS}).",
        )
        parser.add_argument(
            "--backend",
            type=valid_backend_name,
            default=DEFAULT_TASK_BACKEND_ALIAS,
            dest="backend_name",
            help="The task backend (default: %(default)r).",
        )
        parser.add_argument(
            "--queue",
            "--queue-name",
            dest="queue_name",
            default="*",
            help="The queues. Separate multiple with a comma (default: all of them).",
        )
        parser.add_argument(
            "--exclude-queues",
            default="",
            help="All queues but these; only with all queues. Separate multiple with a comma.",
        )
        parser.add_argument(
            "--status",
            choices=sorted(STATUSES),
            default="all",
            help="Only results of tasks with this status (default: %(default)s).",
        )
        parser.add_argument(
            "--batch-size",
            type=whole_number(1, 100_000),
            default=1000,
            help="Rows per statement, which are locked together for a short time (default: %(default)s).",
        )
        parser.add_argument("--dry-run", action="store_true", help="Only print how many would be deleted.")

    def handle(self, **given: Any) -> None:
        """Delete the results, and print how many."""
        backend = given["backend_name"]
        try:
            days = _days(given["days"])
            queues, excluded = split_queues(given["queue_name"], given["exclude_queues"])
            check_queues(queues, task_backends[backend].queues, backend)
        except OptionsError as error:
            raise CommandError(str(error)) from error
        rows = DBTaskResult.objects.using(router.db_for_write(DBTaskResult)).filter(
            backend_name=backend,
            status__in=STATUSES[given["status"]],
            finished_at__lte=timezone.now() - timedelta(days=days),
        )
        if queues:
            rows = rows.filter(queue_name__in=queues)
        elif excluded:
            rows = rows.exclude(queue_name__in=excluded)
        what = f"results of tasks that finished more than {days} days ago"
        if given["dry_run"]:
            self.stdout.write(f"Would delete {rows.count()} {what}.")
            return
        self.stdout.write(f"Deleted {_delete(rows, given['batch_size'])} {what}.")


def _days(given: int | None) -> int:
    if given is not None:
        return given
    days = getattr(settings, "TASKS_RESULT_EXPIRATION_DAYS", DEFAULT_DAYS)
    try:
        return whole_number(0, LONGEST_DAYS)(str(days))
    except ArgumentTypeError as error:
        raise OptionsError(f"TASKS_RESULT_EXPIRATION_DAYS {error}") from error


def _delete(rows: "models.QuerySet[Any]", size: int) -> int:
    """Delete in statements of ``size`` rows, each in its own transaction; return the number of rows.

    The keys are read in order and without locks, so that all batches together read the table only once.
    """
    deleted, last = 0, None
    while True:
        page = rows if last is None else rows.filter(pk__gt=last)
        keys = list(page.order_by("pk").values_list("pk", flat=True)[:size])
        if not keys:
            return deleted
        # Filtered again, because a row may have been changed back to READY meanwhile.
        deleted += rows.filter(pk__in=keys).delete()[0]
        last = keys[-1]
