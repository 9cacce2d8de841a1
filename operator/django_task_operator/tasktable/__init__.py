"""Samples django-tasks-db's table for many workers: one connection and one query per database."""

from django_task_operator.tasktable.databases import Databases, Subscription
from django_task_operator.tasktable.errors import DatabaseError, InvalidURL, UnsupportedDatabase
from django_task_operator.tasktable.table import TaskTable
from django_task_operator.tasktable.url import DatabaseURL
from django_task_operator.tasktable.values import (
    Demand,
    Observation,
    QueueDemand,
    Sample,
    Selection,
    UnservedQueue,
)

__all__ = [
    "DatabaseError",
    "DatabaseURL",
    "Databases",
    "Demand",
    "InvalidURL",
    "Observation",
    "QueueDemand",
    "Sample",
    "Selection",
    "Subscription",
    "TaskTable",
    "UnservedQueue",
    "UnsupportedDatabase",
]
