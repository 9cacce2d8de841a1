"""What ends a worker, with the sentence that the user reads."""

# What a task's row says when its process ended under it.
PROCESS_DIED = "The worker process that ran this task was killed, or crashed."


class NotMigratedError(Exception):
    """The table of django-tasks-db is missing or older than the package: run `manage.py migrate`."""

    def __str__(self) -> str:
        return str(self.__doc__)


class AbandonedError(Exception):
    """Asked to end at once while the database did not answer: a row stays RUNNING."""

    def __str__(self) -> str:
        return str(self.__doc__)
