"""Which signals the project listens to: those without receivers need not be sent the slow way."""

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

from django.db.models.signals import post_init, post_save, pre_init, pre_save
from django_tasks_db.compat import task_finished
from django_tasks_db.models import DBTaskResult
from django_tasks_db.signal_handlers import set_run_after


@dataclass(frozen=True)
class Listeners:
    """Whether the project listens to the model's signals, and to task_finished."""

    model: bool
    task_finished: bool


def find_listeners() -> Listeners:
    """Find out while the process has only one thread, because receivers are removed for a moment."""
    return Listeners(model=_model(), task_finished=_task_finished())


def _model() -> bool:
    # The package's own receiver sets run_after, which existing rows already have.
    was_there = pre_save.disconnect(set_run_after, sender=DBTaskResult)
    try:
        return any(each.has_listeners(DBTaskResult) for each in (pre_save, post_save, pre_init, post_init))
    finally:
        if was_there:
            pre_save.connect(set_run_after, sender=DBTaskResult)


def _task_finished() -> bool:
    signals = import_module("django.tasks.signals" if find_spec("django.tasks") else "django_tasks.signals")
    logs = signals.log_task_finished
    was_there = task_finished.disconnect(logs)
    try:
        # Not has_listeners(): a receiver may be for one sender only.
        return bool(task_finished.receivers)
    finally:
        if was_there:
            task_finished.connect(logs)
