import time

from django.db import transaction

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
