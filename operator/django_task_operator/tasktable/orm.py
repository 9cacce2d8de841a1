"""Django without a project: the settings of the operator's process, and connections made from URLs.

This is the one place that configures Django. Importing it is safe anywhere, any number of times.
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


def new_connection(url: DatabaseURL, limits: Limits, *, pooled: bool = False) -> BaseDatabaseWrapper:
    """A connection of nobody else's, not yet opened; only the thread that made it may use it.

    Args:
        url: where to.
        limits: how long the server may take.
        pooled: whether a pooler hands the server's connections around, so that a session's settings
            would become somebody else's. They then go with each statement.
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
                "PASSWORD": url.password,
                "OPTIONS": engine.options(url.options, limits, settings_of_session, url.root_cert),
                "CONN_MAX_AGE": None,
            }
        }
    )
    connection: BaseDatabaseWrapper = handler.create_connection("default")
    # The statement is plain SQL: projects on Django 5.2 run servers older than what our Django wants.
    vars(connection)["check_database_version_supported"] = lambda: None
    engine.prepare(connection, url.root_cert)
    return connection
