from __future__ import annotations

import os
import subprocess
import sys

import pytest
from django.db import InterfaceError, OperationalError
from django_db_worker.trouble import reason

SECRETS = ("db.internal", "10.2.3.4", "shop_user", "hunter2", "shop_db", "fe80::1")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            OperationalError(
                'connection failed: connection to server at "10.2.3.4", port 5432 failed: FATAL:  password '
                'authentication failed for user "shop_user"'
            ),
            "password authentication failed",
        ),
        (
            OperationalError(
                'connection to server at "db.internal" (10.2.3.4), port 5432 failed: Connection refused\n'
                "\tIs the server running on that host and accepting TCP/IP connections?"
            ),
            "connection refused",
        ),
        (OperationalError("[Errno -2] Name or service not known: db.internal"), "unknown host name"),
        (
            OperationalError(
                2003, "Can't connect to MySQL server on 'db.internal' ([Errno 111] Connection refused)"
            ),
            "connection refused",
        ),
        (
            OperationalError(1045, "Access denied for user 'shop_user'@'10.2.3.4' (using password: YES)"),
            "access denied",
        ),
        (
            OperationalError(2013, "Lost connection to server during query"),
            "the server closed the connection",
        ),
        (OperationalError('FATAL: database "shop_db" does not exist'), "no such database or user"),
        (OperationalError(9999, "db.internal hunter2 shop_user"), "OperationalError 9999"),
        (InterfaceError("hunter2 at fe80::1"), "InterfaceError"),
    ],
)
def test_reasons_name_no_secret(error: Exception, expected: str) -> None:
    assert reason(error) == expected
    assert not any(secret in reason(error) for secret in SECRETS)


@pytest.mark.parametrize("level", ["0", "1", "2"])
def test_no_sentence_is_lost_where_python_optimizes(level: str) -> None:
    script = """
from django_db_worker.errors import AbandonedError, NotMigratedError, RefusedError
print(NotMigratedError())
print(AbandonedError())
print(RefusedError())
"""
    told = subprocess.run(
        [sys.executable, "-c", script],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONOPTIMIZE": level},
    )
    assert told.stdout.splitlines() == [
        "The table of django-tasks-db is missing or older than the package: run `manage.py migrate`.",
        "The worker was asked to end at once while the database did not answer: a row may stay RUNNING.",
        "The database has refused the user or the password for a minute: the worker has to be restarted.",
    ]
