"""Samples django-tasks-db's table for many workers, with one connection and one query per database.

In come database URLs and, for each worker, the selection of rows that its pods run. ``databases.py``
decides when a table is sampled, ``table.py`` does it in a separate thread with the SQL of ``statement.py``,
and ``engines/`` has everything that depends on the kind of server. Out come counts, lists of the RUNNING
rows, and errors that say what to do.
"""

from django_task_operator.tasktable.connection import check_parts, url_of_parts
from django_task_operator.tasktable.databases import Databases, Subscription
from django_task_operator.tasktable.errors import (
    DatabaseError,
    InvalidConnection,
    InvalidRootCert,
    InvalidURL,
    PermissionDenied,
    UnsupportedDatabase,
)
from django_task_operator.tasktable.networks import Networks
from django_task_operator.tasktable.root_cert import root_cert
from django_task_operator.tasktable.table import TaskTable
from django_task_operator.tasktable.tokens import TokenRules
from django_task_operator.tasktable.url import DatabaseURL
from django_task_operator.tasktable.values import (
    Durations,
    Failed,
    Listing,
    Observation,
    QueueDemand,
    Requeued,
    RunningRow,
    Sample,
    Selection,
    SelectionDemand,
    Settlement,
    UnservedQueue,
)

__all__ = [
    "DatabaseError",
    "DatabaseURL",
    "Databases",
    "Durations",
    "Failed",
    "InvalidConnection",
    "InvalidRootCert",
    "InvalidURL",
    "Listing",
    "Networks",
    "Observation",
    "PermissionDenied",
    "QueueDemand",
    "Requeued",
    "RunningRow",
    "Sample",
    "Selection",
    "SelectionDemand",
    "Settlement",
    "Subscription",
    "TaskTable",
    "TokenRules",
    "UnservedQueue",
    "UnsupportedDatabase",
    "check_parts",
    "root_cert",
    "url_of_parts",
]
