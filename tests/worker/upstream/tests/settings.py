"""The project of upstream's tests. Its database is made by the test runner."""

import json
import os

import pymysql

pymysql.install_as_MySQLdb()

SECRET_KEY = "not a secret: nothing here is signed"
USE_TZ = True
ROOT_URLCONF = "tests.urls"
ALLOWED_HOSTS = ["*"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

DATABASES = {"default": json.loads(os.environ["DATABASE"])}

OF_THE_WORKER = [*([] if os.environ.get("STOCK") else ["django_db_worker"]), "django_tasks_db"]
# The tests import upstream's admin module, which needs its tables.
INSTALLED_APPS = [
    *OF_THE_WORKER,
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
]
SILENCED_SYSTEM_CHECKS = ["admin.E403", "admin.E406", "admin.E408", "admin.E409", "admin.E410"]

TASKS = {"default": {"BACKEND": "django_tasks_db.DatabaseBackend", "QUEUES": ["default", "queue-1"]}}
TEST_RUNNER = "tests.runner.Runner"

# The tests read what the worker logs through the handlers that it adds itself.
LOGGING_CONFIG = None
