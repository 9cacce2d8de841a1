"""What tasks did, written down by themselves, beside what the worker says about them."""

import os

from django.apps import AppConfig
from django.tasks.signals import task_finished, task_started


class DiaryConfig(AppConfig):
    name = "diary"

    def ready(self):
        from diary import receivers  # noqa: PLC0415

        if os.environ.get("WRITE_SIGNALS"):
            task_started.connect(receivers.started)
            task_finished.connect(receivers.finished)
