"""What ends a worker, with the sentence that the user reads."""

# Stored as the error of a task whose process ended while it ran.
PROCESS_DIED = "The worker process that ran this task was killed, or crashed."


def timed_out(seconds: int, stack: str) -> TimeoutError:
    """Return the error of a task that was ended because it ran for too long; ``stack`` is where it was."""
    where = f" It was here:\n{stack}" if stack else ""
    limit = f"{seconds} s (taskTimeoutSeconds, --task-timeout)"
    return TimeoutError(f"The task was still running after {limit} and was ended.{where}")


def grew_too_large(used: str, limit: str, *, shared: bool) -> MemoryError:
    """Return the error of tasks whose process used too much memory."""
    who = " It or another task in the same process has taken it." if shared else ""
    return MemoryError(
        f"The worker process that ran this task used {used} and was killed; it may use {limit} "
        f"(maxMemoryPerProcess, --max-memory-per-process).{who}"
    )


class NotMigratedError(Exception):
    """The task table cannot be used until the database has been migrated."""

    def __str__(self) -> str:
        return "The table of django-tasks-db is missing or older than the package: run `manage.py migrate`."


class AbandonedError(Exception):
    """The worker ends although a row may still be RUNNING."""

    def __str__(self) -> str:
        return (
            "The worker was asked to end at once while the database did not answer: a row may stay RUNNING."
        )


class RefusedError(Exception):
    """The database has refused the worker's credentials for a minute; a new process may get new ones."""

    def __str__(self) -> str:
        return (
            "The database has refused the user or the password for a minute: the worker has to be restarted."
        )
