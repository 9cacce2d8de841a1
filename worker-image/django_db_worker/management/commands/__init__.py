"""The commands. Imported before any of them, so that what they lack is one sentence and no traceback."""

import sys

from django.apps import apps

if not apps.is_installed("django_tasks_db"):
    sys.exit("Add 'django_tasks_db' to INSTALLED_APPS: there is no task table without it.")
