"""Settings of the project whose tasks the tests run. The pods get it in a ConfigMap."""

import os

import dj_database_url

if os.environ.get("CRASH"):
    # As careless projects do.
    raise RuntimeError(os.environ["CRASH"])

SECRET_KEY = "not a secret"
# A version that has more apps has more to migrate.
INSTALLED_APPS = ["django_tasks_db", *os.environ.get("MORE_APPS", "").split()]
DATABASES = {"default": dj_database_url.config(conn_max_age=600, conn_health_checks=True)}
# No list of queues: a task may be in any.
TASKS = {"default": {"BACKEND": "django_tasks_db.DatabaseBackend", "QUEUES": []}}
USE_TZ = True
