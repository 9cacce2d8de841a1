"""Settings of the project that the worker is tried with. What a test varies comes from the environment."""

import json
import os

import dj_database_url
import pymysql

pymysql.install_as_MySQLdb()

SECRET_KEY = "not a secret: nothing here is signed"
DEBUG = False
USE_TZ = os.environ.get("USE_TZ", "1") == "1"
TIME_ZONE = os.environ.get("TIME_ZONE", "UTC")
ROOT_URLCONF = "urls"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

MORE = json.loads(os.environ.get("MORE_SETTINGS", "{}"))

DATABASES = {
    "default": dj_database_url.config(env="TASK_DATABASE_URL", conn_max_age=MORE.pop("CONN_MAX_AGE", 0))
}
if engine := MORE.pop("ENGINE", None):
    DATABASES["default"]["ENGINE"] = engine
DATABASES["default"]["TIME_ZONE"] = os.environ.get("DATABASE_TIME_ZONE")
DATABASES["default"]["CONN_HEALTH_CHECKS"] = MORE.pop("CONN_HEALTH_CHECKS", False)
if options := MORE.pop("OPTIONS", None):
    DATABASES["default"]["OPTIONS"] = options
if pool := MORE.pop("POOL", None):
    DATABASES["default"]["OPTIONS"] = {"pool": pool}
if DATABASES["default"].get("ENGINE", "").endswith("sqlite3"):
    DATABASES["default"]["OPTIONS"] = {"timeout": 20}

if os.environ.get("SECOND_DATABASE"):
    url = os.environ["SECOND_DATABASE"]
    DATABASES["second"] = dj_database_url.parse(url) if ":" in url else {**DATABASES["default"]}

# With STOCK the worker is the one of django-tasks-db itself; a launched one needs no app.
WITH = os.environ.get("WORKER_APPS", "" if os.environ.get("STOCK") else "django_db_worker").split()
INSTALLED_APPS = [*WITH, *([] if os.environ.get("WITHOUT_APPS") else ["django_tasks_db"]), "diary"]
INSTALLED_APPS += json.loads(os.environ.get("MORE_APPS", "[]"))

TASKS = {
    "default": {"BACKEND": "django_tasks_db.DatabaseBackend", "QUEUES": ["default", "reports", "mails"]},
    "other": {"BACKEND": "django_tasks_db.DatabaseBackend", "QUEUES": ["default"]},
    "dummy": {"BACKEND": "django.tasks.backends.dummy.DummyBackend"},
}

# Tables get the worker's indexes only in tests of these: most are about what happens without, too.
MIGRATION_MODULES = {"django_db_worker": None}

# Such as TASKS_LOG_LEVEL or PRODUCTION_PROCESSES.
globals().update(MORE)
