"""What tasks did, written down by themselves, beside what the worker says about them."""

import os

from django.apps import AppConfig, apps
from django.db.models.signals import post_save
from django.tasks.signals import task_finished, task_started


class DiaryConfig(AppConfig):
    name = "diary"

    def ready(self):
        from diary import receivers  # noqa: PLC0415

        if os.environ.get("WRITE_SIGNALS"):
            task_started.connect(receivers.started)
            task_finished.connect(receivers.finished)

        if os.environ.get("MODEL_RECEIVERS"):
            post_save.connect(receivers.saved, sender=apps.get_model("django_tasks_database", "DBTaskResult"))

        if os.environ.get("REFUSING_SIGNAL"):
            receivers.refuse(apps.get_model("django_tasks_database", "DBTaskResult"))

        poisoned = os.environ.get("POISONED_RECEIVERS")
        if poisoned == "raise":
            for signal in (task_started, task_finished):
                signal.connect(receivers.raises)
                signal.connect(receivers.raises_later)
            task_finished.connect(receivers.leaves_atomic)
        elif poisoned == "hang":
            task_finished.connect(receivers.hangs)
        elif poisoned == "break":
            # Django does not get over these: with one a signal ends.
            task_started.connect(receivers.exits)
            task_finished.connect(receivers.Nameless(), weak=False)
