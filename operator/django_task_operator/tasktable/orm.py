"""Django without a project: the settings of the operator's process, and connections made from URLs.

This is the only place that configures Django. It is safe to import anywhere, any number of times.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import django
import pymysql
from django.conf import settings
from django.db.utils import ConnectionHandler

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper

    from django_task_operator.tasktable.engines import Limits
    from django_task_operator.tasktable.url import DatabaseURL

if not settings.configured:
    settings.configure(
        INSTALLED_APPS=["django_tasks_db"],
        USE_TZ=True,
        LOGGING_CONFIG=None,  # logging is the operator's own business
    )
# At DEBUG psycopg logs hosts, and Django the statements.
for talkative in ("psycopg", "django.db"):
    logging.getLogger(talkative).setLevel(logging.WARNING)
pymysql.install_as_MySQLdb()
django.setup()


def new_connection(
    url: DatabaseURL, limits: Limits, *, pooled: bool = False, token: str = ""
) -> BaseDatabaseWrapper:
    """Return a new connection, not yet opened; only the thread that created it may use it.

    Args:
        url: the database.
        limits: how long the server may take.
        pooled: whether a pooler shares the server's connections, so that session settings would affect
            other clients. They are then sent with each statement.
        token: the password, if the URL has none.
    """
    engine = url.engine
    settings_of_session = [] if pooled else engine.session_settings(limits)
    handler = ConnectionHandler(
        {
            "default": {
                "ENGINE": engine.backend,
                "HOST": url.host,
                "PORT": url.port,
                "NAME": url.name,
                "USER": url.user,
                "PASSWORD": url.password or token,
                "OPTIONS": engine.options(url.options, limits, settings_of_session, url.root_cert),
                "CONN_MAX_AGE": None,
            }
        }
    )
    connection: BaseDatabaseWrapper = handler.create_connection("default")
    # The statement is plain SQL: projects on Django 5.2 may use servers older than our Django supports.
    vars(connection)["check_database_version_supported"] = lambda: None
    engine.prepare(connection, url.root_cert)
    return connection
