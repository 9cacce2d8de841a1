"""A server as it was years ago: without SKIP LOCKED, or too old for Django."""

import os

from django.db.backends.mysql.features import DatabaseFeatures as MySQL
from django.db.backends.postgresql.features import DatabaseFeatures as PostgreSQL

MySQL.has_select_for_update_skip_locked = False
if oldest := os.environ.get("OLDEST_SERVER"):
    MySQL.minimum_database_version = PostgreSQL.minimum_database_version = (int(oldest),)
