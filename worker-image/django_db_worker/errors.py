"""What ends a worker, with the sentence that the user reads."""

# What a task's row says when its process ended under it.
PROCESS_DIED = "The worker process that ran this task was killed, or crashed."


def timed_out(seconds: int, stack: str) -> TimeoutError:
    """What a task failed with that had to be ended, and where it was then."""
    where = f" It was here:\n{stack}" if stack else ""
    limit = f"{seconds} s (taskTimeoutSeconds, --task-timeout)"
    return TimeoutError(f"The task was still running after {limit} and was ended.{where}")


def grew_too_large(used: str, limit: str, *, shared: bool) -> MemoryError:
    """What the tasks failed with whose process took too much memory."""
    who = " It or another task in the same process has taken it." if shared else ""
    return MemoryError(
        f"The worker process that ran this task used {used} and was killed; it may use {limit} "
        f"(maxMemoryPerProcess, --max-memory-per-process).{who}"
    )


class NotMigratedError(Exception):
    """The task table cannot be used before somebody migrates the database."""

    def __str__(self) -> str:
        return "The table of django-tasks-db is missing or older than the package: run `manage.py migrate`."


class AbandonedError(Exception):
    """The worker gives up what it cannot finish any more."""

    def __str__(self) -> str:
        return "Asked to end at once while the database did not answer: a row may stay RUNNING."


class RefusedError(Exception):
    """The database has refused the worker's credentials for a minute: a new process may have better ones."""

    def __str__(self) -> str:
        return "The database has refused the user or the password for a minute: ending, to be started anew."
