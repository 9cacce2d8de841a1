import builtins
import os
import time

from django import db
from django.db import transaction
from django.db.models import signals

from diary.models import Entry


def name(sender):
    # Upstream sends the backend itself with some signals, and its class, as documented, with others.
    return (sender if isinstance(sender, type) else type(sender)).__name__


def started(sender, task_result, **kwargs):
    Entry.write(f"started {name(sender)} {task_result.status}", str(task_result.id), time.time())


def finished(sender, task_result, **kwargs):
    Entry.write(f"finished {name(sender)} {task_result.status}", str(task_result.id), time.time())


def saved(**kwargs):
    """Nothing: that somebody listens makes the worker save rows in Django's way."""


def refuse(model):
    """Refuse some rows whenever they are read or saved, or the result of every row."""
    name, rows = os.environ["REFUSING_SIGNAL"], os.environ.get("REFUSED_ROWS", "").split()
    kind = os.environ.get("REFUSING_ERROR", "LookupError")
    error = getattr(db, kind, None) or getattr(builtins, kind)

    def refuses(instance, **kwargs):
        if str(instance.pk) in rows or (name == "finished" and instance.status in {"SUCCESSFUL", "FAILED"}):
            raise error("this row is refused")

    getattr(signals, "pre_save" if name == "finished" else name).connect(refuses, sender=model, weak=False)


def raises(**kwargs):
    raise ValueError("the receiver's own trouble")


async def raises_later(**kwargs):
    raise ValueError("the receiver's own trouble, later")


def exits(**kwargs):
    raise SystemExit(9)


def hangs(**kwargs):
    time.sleep(1000)


def leaves_atomic(**kwargs):
    transaction.atomic().__enter__()
    Entry.write("in a transaction that nobody ends", "", time.time())


class Nameless:
    def __call__(self, **_):
        raise ValueError("a receiver without a name")
