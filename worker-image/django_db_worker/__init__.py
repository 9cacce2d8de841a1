"""`db_worker` for the task table of django-tasks-db: processes, threads, health, and a clean end."""

__version__ = "0.1.0"
