"""Lets a process without Django use the project: a line of JSON in, a line of JSON out."""

import json
import sys
from datetime import datetime, timedelta
from uuid import UUID

from django.core.management.base import BaseCommand
from django.core.serializers.json import DjangoJSONEncoder
from django.db import connection, transaction
from django.utils import timezone
from django.utils.module_loading import import_string
from django_tasks_db.models import DBTaskResult

from diary.models import Entry

RAW = {
    "deep": f'{{"args": {"[" * 5000}{"]" * 5000}, "kwargs": {{}}}}',
    "digits": f'{{"args": [{"9" * 5000}], "kwargs": {{}}}}',
    "torn": '{"args": [',
}


class Command(BaseCommand):
    requires_system_checks = ()

    def handle(self, **_):
        for line in sys.stdin:
            request = json.loads(line)
            answer = getattr(self, f"do_{request.pop('do')}")(**request)
            print(json.dumps(answer, cls=DjangoJSONEncoder), flush=True)  # noqa: T201

    def do_enqueue(self, *, task, args=(), kwargs=None, times=1, **using):
        if "run_after" in using:
            using["run_after"] = timezone.now() + timedelta(seconds=using["run_after"])
        task = import_string(task if "." in task else f"chores.{task}").using(**using)
        return [str(task.enqueue(*args, **(kwargs or {})).id) for _ in range(times)]

    def do_enqueue_each(self, *, task, calls):
        task = import_string(f"chores.{task}")
        with transaction.atomic():
            return [str(task.enqueue(*args).id) for args in calls]

    def do_lock(self, *, id):  # noqa: A002
        """Keep a row from everybody else until unlocked."""
        transaction.set_autocommit(False)
        return DBTaskResult.objects.select_for_update().filter(id=id).exists()

    def do_unlock(self):
        transaction.rollback()
        transaction.set_autocommit(True)

    def do_insert(self, *, times, **fields):
        """Rows as no task would write them, or very many of them."""
        fields = {"args_kwargs": {"args": [], "kwargs": {}}, "backend_name": "default", **fields}
        for name, value in fields.items():
            if name in {"run_after", "enqueued_at", "started_at", "finished_at"} and value is not None:
                fields[name] = datetime.fromisoformat(value)
        # bulk_create sends no pre_save signal, which is where upstream writes its "no run_after".
        fields.setdefault("run_after", datetime(9999, 1, 1, tzinfo=timezone.now().tzinfo))
        rows = DBTaskResult.objects.bulk_create(
            [DBTaskResult(**fields) for _ in range(times)], batch_size=500
        )
        return [str(row.id) for row in rows]

    def do_write_raw(self, *, id, name):  # noqa: A002
        """Write arguments that Python's JSON would not."""
        table = DBTaskResult._meta.db_table
        key = DBTaskResult._meta.pk.get_db_prep_value(UUID(id), connection)
        with connection.cursor() as cursor:
            if connection.vendor == "sqlite":
                cursor.execute("PRAGMA ignore_check_constraints = ON")
            cursor.execute(f"UPDATE {table} SET args_kwargs = %s WHERE id = %s", [RAW[name], key])

    def do_update(self, *, ids=None, ago=None, **fields):
        """Change rows; ``ago`` has seconds before now for the fields that are times."""
        for name, seconds in (ago or {}).items():
            fields[name] = timezone.now() - timedelta(seconds=seconds)
        rows = DBTaskResult.objects.all()
        return (rows if ids is None else rows.filter(id__in=ids)).update(**fields)

    def do_results(self, *, ids=None):
        # Not even Python reads the arguments of each.
        rows = DBTaskResult.objects.defer("args_kwargs")
        if ids is not None:
            rows = rows.filter(id__in=ids)
        return {str(row.id): self.describe(row) for row in rows.order_by("started_at")}

    @staticmethod
    def describe(row):
        fields = ("status", "worker_ids", "return_value", "exception_class_path", "traceback", "task_path")
        times = ("enqueued_at", "run_after", "started_at", "finished_at")
        return {
            **{name: getattr(row, name) for name in fields},
            **{name: getattr(row, name).timestamp() if getattr(row, name) else None for name in times},
        }

    def do_statuses(self):
        counts = {}
        for status in DBTaskResult.objects.values_list("status", flat=True):
            counts[status] = counts.get(status, 0) + 1
        return counts

    def do_entries(self):
        return list(Entry.objects.values("what", "task", "pid", "thread", "at"))

    def do_order(self):
        """The ids in the order that upstream would claim them."""
        return [str(row.id) for row in DBTaskResult.objects.ready()]

    def do_clear(self):
        DBTaskResult.objects.all().delete()
        Entry.objects.all().delete()
