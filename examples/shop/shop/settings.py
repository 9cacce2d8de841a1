"""Settings of the example shop. Everything that depends on the deployment comes from the environment."""

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

# Without conn_max_age a worker opens a new connection for every query of the task table.
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

# Otherwise, with DEBUG off, Django prints nothing below an error, and a worker's log stays empty.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["console"], "level": "INFO"},
}

USE_TZ = True
TIME_ZONE = "UTC"

# A factor for the delays of the payment provider, the printer and the courier's API. 0 in tests.
OUTSIDE_WORLD_PACE = float(os.environ.get("OUTSIDE_WORLD_PACE", "1"))
