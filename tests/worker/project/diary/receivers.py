import time

from diary.models import Entry


def name(sender):
    # Upstream sends the backend itself with some signals, and its class, as documented, with others.
    return (sender if isinstance(sender, type) else type(sender)).__name__


def started(sender, task_result, **kwargs):
    Entry.write(f"started {name(sender)} {task_result.status}", str(task_result.id), time.time())


def finished(sender, task_result, **kwargs):
    Entry.write(f"finished {name(sender)} {task_result.status}", str(task_result.id), time.time())
