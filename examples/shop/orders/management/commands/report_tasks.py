import json
from typing import override

from django.core.management.base import BaseCommand
from django.db.models import Count
from django_tasks_db.models import DBTaskResult


class Command(BaseCommand):
    help = "Print as JSON how the finished tasks ended: the successes, and the failures by exception."

    @override
    def handle(self, **_: object) -> None:
        failed = DBTaskResult.objects.failed().order_by().values_list("exception_class_path")
        report = {
            "successful": DBTaskResult.objects.successful().count(),
            "failed": dict(failed.annotate(Count("pk"))),
        }
        self.stdout.write(json.dumps(report))
