"""A router of a project whose task table is in a database of its own; all else is in the default one."""

TASKS = "django_tasks_database"


class TasksElsewhere:
    def db_for_read(self, model, **_hints):
        return "second" if model._meta.app_label == TASKS else None

    db_for_write = db_for_read

    def allow_migrate(self, db, app_label, **_hints):
        return (db == "second") == (app_label == TASKS)
