import os
import threading

from django.db import models


class Entry(models.Model):
    """That something happened, where, and for which task."""

    what = models.CharField(max_length=200)
    task = models.CharField(max_length=64)
    pid = models.IntegerField()
    thread = models.CharField(max_length=100)
    at = models.FloatField()

    class Meta:
        ordering = ("id",)

    def __str__(self):
        return f"{self.what} {self.task}"

    @classmethod
    def write(cls, what, task, at):
        cls.objects.create(
            what=what, task=task, pid=os.getpid(), thread=str(threading.get_native_id()), at=at
        )
