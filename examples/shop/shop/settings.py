"""Settings of the example shop. What differs between places comes from the environment."""

import os
from pathlib import Path

import dj_database_url

BASE_DIR = Path(__file__).resolve().parent.parent

DEBUG = os.environ.get("DEBUG") == "1"
SECRET_KEY = os.environ["SECRET_KEY"]
ALLOWED_HOSTS = os.environ.get("ALLOWED_HOSTS", "localhost").split(",")

INSTALLED_APPS = [
    "django_tasks_db",
    "orders",
    "mails",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
]
ROOT_URLCONF = "shop.urls"
WSGI_APPLICATION = "shop.wsgi.application"
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]

# Without conn_max_age a worker opens a new connection for every look at the task table.
DATABASES = {
    "default": dj_database_url.config(
        default=f"sqlite:///{BASE_DIR / 'db.sqlite3'}", conn_max_age=600, conn_health_checks=True
    )
}

TASKS = {
    "default": {
        "BACKEND": "django_tasks_db.DatabaseBackend",
        "QUEUES": ["default", "priority"],
    }
}

MAILERS = {"default": {"BACKEND": os.environ.get("MAILER", "django.core.mail.backends.console.EmailBackend")}}
DEFAULT_FROM_EMAIL = "shop@shop.example"

# Without this Django prints nothing below an error while DEBUG is off, and a worker's log stays empty.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["console"], "level": "INFO"},
}

USE_TZ = True
TIME_ZONE = "UTC"

# Seconds that pass in a payment provider, a printer or a courier's API, times this. 0 in tests.
OUTSIDE_WORLD_PACE = float(os.environ.get("OUTSIDE_WORLD_PACE", "1"))
