"""The same settings, with django-tasks-db forgotten."""

from bakery.settings import *  # noqa: F403

INSTALLED_APPS = ["django_prodserver"]
