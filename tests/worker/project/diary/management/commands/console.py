"""Lets a process without Django use the project: a line of JSON in, a line of JSON out."""

import json
import sys
import threading
from contextlib import contextmanager
from datetime import datetime, timedelta
from uuid import UUID

from django.core.management.base import BaseCommand
from django.core.serializers.json import DjangoJSONEncoder
from django.db import connection, connections, transaction
from django.utils import timezone
from django.utils.module_loading import import_string
from django_db_worker import claim, next_row, outcome
from django_tasks_db.models import DBTaskResult, get_date_max

from diary.models import Entry

RAW = {
    "deep": f'{{"args": {"[" * 5000}{"]" * 5000}, "kwargs": {{}}}}',
    "digits": f'{{"args": [{"9" * 5000}], "kwargs": {{}}}}',
    "torn": '{"args": [',
    # Too deep for MariaDB's JSON_VALID, and not for Python.
    "nested": f'{{"args": {"[" * 60}{"]" * 60}, "kwargs": {{}}}}',
}


@contextmanager
def locking(keys):
    """Have rows locked by somebody else meanwhile."""
    locked, done = threading.Event(), threading.Event()

    def hold():
        with transaction.atomic():
            list(DBTaskResult.objects.select_for_update().filter(pk__in=keys))
            locked.set()
            done.wait()
        connection.close()

    holder = threading.Thread(target=hold)
    if keys:
        holder.start()
        locked.wait()
    try:
        yield
    finally:
        done.set()
        if keys:
            holder.join()


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
        self.do_write_unchecked(id=id, column="args_kwargs", value=RAW[name])

    def do_write_unchecked(self, *, id, column, value):  # noqa: A002
        """Write what the table's constraints would refuse."""
        table = DBTaskResult._meta.db_table
        key = DBTaskResult._meta.pk.get_db_prep_value(UUID(id), connection)
        with connection.cursor() as cursor:
            if connection.vendor == "sqlite":
                cursor.execute("PRAGMA ignore_check_constraints = ON")
            elif connection.vendor == "mysql":
                cursor.execute("SET check_constraint_checks = 0")
            cursor.execute(f"UPDATE {table} SET {column} = %s WHERE id = %s", [value, key])
            if connection.vendor == "mysql":
                cursor.execute("SET check_constraint_checks = 1")

    def do_arguments(self, *, id):  # noqa: A002
        return DBTaskResult.objects.values_list("args_kwargs", flat=True).get(pk=id)

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

    def do_execute(self, *, sql):
        with connection.cursor() as cursor:
            cursor.execute(sql)

    def do_claims(self, *, rows, backend, queues, excluded, locked):
        """What upstream would claim of these rows and what is claimed, while others keep some from both.

        A row is said by its key in upstream's order.
        """
        DBTaskResult.objects.all().delete()
        now = timezone.now()
        fields = {"task_path": "chores.nothing", "args_kwargs": {"args": [], "kwargs": {}}}
        made = []
        for row in rows:
            run_after, enqueued_at = (
                row.pop("run_after"),
                now + timedelta(microseconds=row.pop("enqueued_at")),
            )
            due = get_date_max() if run_after is None else now + timedelta(hours=run_after)
            made.append(DBTaskResult(**row, **fields, run_after=due, enqueued_at=enqueued_at))
        # The time of enqueueing is auto_now_add.
        times = {each.pk: each.enqueued_at for each in made}
        DBTaskResult.objects.bulk_create(made)
        for key, at in times.items():
            DBTaskResult.objects.filter(pk=key).update(enqueued_at=at)
        keys = [made[place].pk for place in locked]
        ready = DBTaskResult.objects.ready().filter(backend_name=backend).exclude(pk__in=keys)
        ready = ready.filter(queue_name__in=queues) if queues else ready
        wanted = next_row.Wanted(backend, tuple(queues), tuple(excluded))
        expected = [self.key(row) for row in ready.exclude(queue_name__in=excluded)]
        with locking(keys):
            claimed, finished = [], None
            table = claim.open_table(connection, wanted, model_signals=False)
            while row := table.claim("me", finished):
                claimed.append(self.key(row))
                finished = row if len(claimed) % 2 else None
                outcome.succeed(row, None)
        return {"expected": expected, "claimed": claimed, "indexed": not table.lacks_index}

    def do_race(self, *, claimers, backend, queues, excluded):
        """The ids that several claim at the same time, each until it finds nothing."""
        wanted = next_row.Wanted(backend, tuple(queues), tuple(excluded))
        claimed, start = [], threading.Barrier(claimers)

        def work():
            table = claim.open_table(connections["default"], wanted, model_signals=False)
            start.wait()
            finished = None
            while row := table.claim("me", finished):
                claimed.append(str(row.pk))
                outcome.succeed(row, None)
                finished = row
            connections["default"].close()

        threads = [threading.Thread(target=work) for _ in range(claimers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return claimed

    @staticmethod
    def key(row):
        return [-row.priority, row.run_after.isoformat(), row.enqueued_at.isoformat()]

    def do_clear(self):
        DBTaskResult.objects.all().delete()
        Entry.objects.all().delete()
