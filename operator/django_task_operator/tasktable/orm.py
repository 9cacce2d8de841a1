"""Django without a project: the settings of the operator's process, and connections made from URLs.

This is the one place that configures Django. Importing it is safe anywhere, any number of times.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

import django
import pymysql
from django.conf import settings
from django.db.utils import ConnectionHandler

from django_task_operator.tasktable.url import DatabaseURL, Engine

if TYPE_CHECKING:
    from collections.abc import Mapping

    from django.db.backends.base.base import BaseDatabaseWrapper

if not settings.configured:
    settings.configure(
        INSTALLED_APPS=["django_tasks_db"],
        USE_TZ=True,
        LOGGING_CONFIG=None,  # logging is the operator's own business
    )
pymysql.install_as_MySQLdb()
django.setup()

APPLICATION_NAME = "django-task-operator"

# What libpq takes from a URL. Left out are Django's own (a pool is useless for one connection;
# server_side_binding hides the values from the planner, which then cannot use a partial index) and
# what this module sets itself.
_POSTGRESQL_OPTIONS = frozenset(
    {
        "channel_binding",
        "gssencmode",
        "hostaddr",
        "krbsrvname",
        "load_balance_hosts",
        "require_auth",
        "ssl_max_protocol_version",
        "ssl_min_protocol_version",
        "sslcert",
        "sslcrl",
        "sslkey",
        "sslmode",
        "sslnegotiation",
        "sslrootcert",
        "sslsni",
        "target_session_attrs",
    }
)


def new_connection(
    url: DatabaseURL, *, connect_timeout: float, statement_timeout: float, pooled: bool = False
) -> BaseDatabaseWrapper:
    """A connection of nobody else's, not yet opened; only the thread that made it may use it.

    Args:
        url: where to.
        connect_timeout: seconds.
        statement_timeout: seconds that the server may work, or wait for a lock, on one statement.
        pooled: whether a pooler hands the server's connections around, so that a session's settings
            would become somebody else's. They then go with each statement (``postgresql_settings``).
    """
    if url.engine is Engine.POSTGRESQL:
        settings_of_session = [] if pooled else postgresql_settings(statement_timeout)
        options = _postgresql_options(url.options, connect_timeout, statement_timeout, settings_of_session)
    else:
        options = _mysql_options(url.options, connect_timeout, statement_timeout)
    handler = ConnectionHandler(
        {
            "default": {
                "ENGINE": url.engine.value,
                "HOST": url.host,
                "PORT": url.port or "",
                "NAME": url.name,
                "USER": url.user,
                "PASSWORD": url.password,
                "OPTIONS": options,
                "CONN_MAX_AGE": None,
            }
        }
    )
    connection: BaseDatabaseWrapper = handler.create_connection("default")
    # The statement is plain SQL: projects on Django 5.2 run servers older than what our Django wants.
    vars(connection)["check_database_version_supported"] = lambda: None
    return connection


def postgresql_settings(statement_timeout: float) -> list[str]:
    """What a poll's statement runs under, as ``name=value``."""
    # jit: compiling a hundred small arms takes longer than running them.
    return [f"statement_timeout={int(statement_timeout * 1000)}", "jit=off"]


def _postgresql_options(
    given: Mapping[str, object],
    connect_timeout: float,
    statement_timeout: float,
    settings_of_session: list[str],
) -> dict[str, Any]:
    options: dict[str, Any] = {name: given[name] for name in sorted(_POSTGRESQL_OPTIONS & given.keys())}
    if "assume_role" in given:
        options["assume_role"] = given["assume_role"]
    session = [str(given["options"])] if "options" in given else []
    session += [f"-c {setting}" for setting in settings_of_session]
    if session:
        options["options"] = " ".join(session)
    silence = int((connect_timeout + statement_timeout) * 1000)
    return options | {
        "application_name": APPLICATION_NAME,
        "connect_timeout": max(1, round(connect_timeout)),
        # A connection whose other end vanished without a word ends too.
        "keepalives": 1,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 2,
        "tcp_user_timeout": silence,
    }


def _mysql_options(
    given: Mapping[str, object], connect_timeout: float, statement_timeout: float
) -> dict[str, Any]:
    return {
        "connect_timeout": connect_timeout,
        # The server's own limit (session_statements) comes first; this is for a server that is silent.
        "read_timeout": connect_timeout + statement_timeout,
        "write_timeout": connect_timeout + statement_timeout,
        "program_name": APPLICATION_NAME,
        **_mysql_tls({name.replace("-", "_"): value for name, value in given.items()}),
    }


def _mysql_tls(given: Mapping[str, object]) -> dict[str, Any]:
    """TLS as mysqlclient's and PyMySQL's options in a URL ask for it; without any, where offered."""
    mode = str(given.get("ssl_mode", "")).upper()
    if given.get("ssl_disabled") is True or mode == "DISABLED":
        return {"ssl_disabled": True}
    ssl_option = given.get("ssl")
    files = ssl_option if isinstance(ssl_option, dict) else {}
    authority = given.get("ssl_ca") or files.get("ca")
    identity = mode == "VERIFY_IDENTITY" or given.get("ssl_verify_identity") is True
    verify = identity or mode == "VERIFY_CA" or given.get("ssl_verify_cert") is True or bool(authority)
    certificate = given.get("ssl_cert")
    if not (verify or certificate or ssl_option or mode == "REQUIRED"):
        return {}
    context = ssl.create_default_context(cafile=str(authority) if authority else None)
    context.check_hostname = identity
    context.verify_mode = ssl.CERT_REQUIRED if verify else ssl.CERT_NONE
    if certificate:
        key = given.get("ssl_key")
        context.load_cert_chain(str(certificate), str(key) if key else None)
    return {"ssl": context}
