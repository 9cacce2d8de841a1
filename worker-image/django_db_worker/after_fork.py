"""What a project starts in each worker process: the setting DB_WORKER_AFTER_FORK.

A forked process only has the thread that forked. Threads that AppConfig.ready() has started run in the
supervisor, and not where the tasks run.
"""

import logging
import threading
from collections.abc import Callable

from django.utils.module_loading import import_string

from .options import OptionsError

logger = logging.getLogger("django_tasks_db")

SETTING = "DB_WORKER_AFTER_FORK"

Hook = Callable[[], object]


def load(setting: object) -> Hook | None:
    """Return the function that the setting names; None if it is not set.

    Raises:
        OptionsError: the setting does not name a function that can be imported.
    """
    if setting is None or setting == "":
        return None
    example = 'name a function by its dotted path, such as "shop.telemetry.start".'
    if not isinstance(setting, str):
        raise OptionsError(f"{SETTING} is {setting!r}: {example}")
    try:
        hook = import_string(setting)
    except ImportError as error:
        raise OptionsError(
            f"{SETTING} is {setting!r}, which cannot be imported ({error}): {example}"
        ) from error
    except Exception as error:
        kind = type(error).__name__
        raise OptionsError(f"{SETTING} is {setting!r}, whose module raised {kind} when imported.") from error
    if not callable(hook):
        raise OptionsError(f"{SETTING} is {setting!r}, which is not a function: {example}")
    named: Hook = hook
    return named


def warn_of_threads(hook: Hook | None) -> None:
    """Before the first fork, warn of threads that do not survive it, unless the setting is set."""
    names = [thread.name for thread in threading.enumerate() if thread is not threading.current_thread()]
    if names and hook is None:
        logger.warning(
            "Threads that were started with Django do not run in the worker's processes: %s. "
            "To start them there, name a function in the setting %s.",
            ", ".join(names),
            SETTING,
        )
