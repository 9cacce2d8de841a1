"""Settings as django-prodserver's documentation writes them, with the packages' real names."""

import os
from urllib.parse import urlsplit

SECRET_KEY = "not a secret"
INSTALLED_APPS = ["django_tasks_db", "django_prodserver"]

_url = urlsplit(os.environ["DATABASE_URL"])
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": _url.hostname,
        "PORT": _url.port,
        "USER": _url.username,
        "PASSWORD": _url.password,
        "NAME": _url.path[1:],
    }
}
USE_TZ = True

TASKS = {
    "default": {
        "BACKEND": "django_tasks_db.DatabaseBackend",
        "QUEUES": ["default", "priority", "reports"],
    }
}
TASKS_RESULT_EXPIRATION_DAYS = 7
TASKS_LOG_LEVEL = os.environ.get("LOG_LEVEL", "INFO")

PRODUCTION_PROCESSES = {
    "worker": {
        "BACKEND": "django_prodserver.backends.django_tasks.DjangoTasksWorker",
        "ARGS": {
            "processes": "4",
            "threads": "1",
            "queue": "default",
            "verbosity": "1",
        },
    },
    "default_worker": {
        "BACKEND": "django_prodserver.backends.django_tasks.DjangoTasksWorker",
        "ARGS": {
            "queue": "default",
            "processes": "4",
        },
    },
    "priority_worker": {
        "BACKEND": "django_prodserver.backends.django_tasks.DjangoTasksWorker",
        "ARGS": {
            "queue": "priority",
            "processes": "2",
        },
    },
}
