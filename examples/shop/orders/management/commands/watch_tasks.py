import json
import time
from argparse import ArgumentParser
from typing import override

from django.core.management.base import BaseCommand
from django.db.models import Count, Q
from django.tasks import TaskResultStatus
from django.utils import timezone
from django_tasks_db.models import DBTaskResult, get_date_max


class Command(BaseCommand):
    help = "Print how many tasks wait, run and are done, as a line of JSON again and again."

    @override
    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--interval", type=float, default=0.5, help="Seconds between two lines.")

    @override
    def handle(self, *, interval: float, **_: object) -> None:
        while True:
            self.stdout.write(json.dumps(count_tasks()))
            self.stdout.flush()
            time.sleep(interval)


def count_tasks() -> dict[str, int]:
    """Count the tasks by state, in one query so that the numbers add up."""
    # The backend writes date_max where a task has no run_after.
    deferred = Q(run_after__gt=timezone.now()) & ~Q(run_after=get_date_max())
    return DBTaskResult.objects.aggregate(
        pending=Count("pk", filter=Q(status=TaskResultStatus.READY) & ~deferred),
        deferred=Count("pk", filter=Q(status=TaskResultStatus.READY) & deferred),
        running=Count("pk", filter=Q(status=TaskResultStatus.RUNNING)),
        successful=Count("pk", filter=Q(status=TaskResultStatus.SUCCESSFUL)),
        failed=Count("pk", filter=Q(status=TaskResultStatus.FAILED)),
    )
