"""The commands. This is imported before them, so that a missing app causes one sentence, not a traceback."""

import sys

from django.apps import apps

if not apps.is_installed("django_tasks_db"):
    sys.exit("Add 'django_tasks_db' to INSTALLED_APPS: there is no task table without it.")
