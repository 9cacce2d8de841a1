"""The command line as one frozen value, refused with a one-sentence error if it cannot work."""

import logging
from argparse import ArgumentTypeError
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from .log_lines import FORMATS
from .memory import MIB, in_mib

MOST = 64
LONGEST_TIMEOUT = 31_536_000  # a year, in seconds
WORKER_ID_LENGTH = 64  # upstream's limit
# psycopg_pool's own default, where OPTIONS["pool"] says nothing.
POOL_DEFAULT = 4

# Django's own, for an entry of DATABASES that is empty.
DUMMY_ENGINE = "django.db.backends.dummy"


class OptionsError(Exception):
    """The options cannot work together, or not with this project."""


@dataclass(frozen=True)
class Options:
    """What ``db_worker`` was asked for."""

    queue_names: tuple[str, ...]
    excluded_queue_names: tuple[str, ...]
    backend_name: str
    interval: float
    batch: bool
    startup_delay: bool
    max_tasks: int | None
    worker_id: str
    processes: int
    threads: int
    health_port: int | None
    task_timeout: int  # seconds; 0: none
    max_memory: int | None  # bytes

    @property
    def supervised(self) -> bool:
        """Whether there is anything to supervise: otherwise the command is the worker itself, as upstream."""
        slots = self.processes * self.threads
        return slots > 1 or self.health_port is not None or self.task_timeout > 0 or bool(self.max_memory)

    def slot_id(self, process: int, thread: int) -> str:
        """Return the worker id of a slot: ``<worker id>/<process>.<thread>``.

        The arguments are counted from zero, the id from one. A single slot has the worker's own id.
        """
        if self.processes == self.threads == 1:
            return self.worker_id
        return f"{self.worker_id}/{process + 1}.{thread + 1}"


def whole_number(low: int, high: int) -> Callable[[str], int]:
    """Return an argparse type for a whole number."""

    def parse(text: str) -> int:
        if not text.isdecimal() or not low <= int(text) <= high:
            raise ArgumentTypeError(f"must be a whole number from {low} to {high}, not {text!r}")
        return int(text)

    return parse


def split_queues(names: str, excluded: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the queues to serve, empty for all of them, and those to exclude."""
    queues = tuple(names.split(","))
    if "*" in queues:
        return (), tuple(excluded.split(",")) if excluded else ()
    if excluded:
        raise OptionsError("--exclude-queues can only be used with --queue-name=*")
    return queues, ()


def check_log_format(given: str) -> None:
    """Refuse a format of the log that there is not.

    Raises:
        OptionsError: it is another one.
    """
    if given not in FORMATS:
        raise OptionsError(
            f"--log-format (DB_WORKER_LOG_FORMAT) is {' or '.join(FORMATS)}, not {given!r}: change it."
        )


def check_queues(queues: Collection[str], known: Collection[str], backend: str) -> None:
    """Refuse a queue that the backend does not have. If ``known`` is empty, all queues are allowed."""
    unknown = [queue for queue in queues if queue not in known]
    if known and unknown:
        raise OptionsError(
            f"Unknown queue {_listed(unknown)}: "
            f"QUEUES of the task backend {backend!r} has {_listed(sorted(known))}."
        )


def check_database(engine: str, database: str) -> None:
    """Refuse settings without a database, to which Django gives its dummy backend."""
    if engine == DUMMY_ENGINE:
        raise OptionsError(
            f"The database {database!r} has no ENGINE in DATABASES: correct the settings. If they read "
            "a variable such as DATABASE_URL, set it."
        )


def check_slots(options: Options, vendor: str, database: str, database_options: Mapping[str, object]) -> None:
    """Refuse more slots than the database can serve."""
    if vendor == "sqlite" and options.processes * options.threads > 1:
        raise OptionsError(
            "SQLite allows one writer at a time: use --processes=1 --threads=1, "
            "or PostgreSQL, MySQL or MariaDB."
        )
    allowed = pool_size(database_options.get("pool"))
    if allowed is not None and options.threads > allowed:
        raise OptionsError(
            f"--threads={options.threads} needs as many connections in each process, but the pool of the "
            f"database {database!r} has at most {allowed}: "
            "raise max_size in its OPTIONS['pool'], or use fewer threads."
        )
    longest = len(options.slot_id(options.processes - 1, options.threads - 1))
    if longest > WORKER_ID_LENGTH:
        raise OptionsError(
            f"--worker-id is {longest - WORKER_ID_LENGTH} characters too long: "
            f"with process and thread, such as '/1.1', it may have {WORKER_ID_LENGTH}."
        )


def check_memory(limit: int | None, used: int | None) -> None:
    """Refuse a limit that a process reaches before its first task: it would be replaced forever."""
    if limit is None:
        return
    if used is None:
        raise OptionsError(
            "--max-memory-per-process needs Linux: the memory of a process cannot be seen here."
        )
    if used >= limit:
        # Who forgets the unit must see it.
        size = f"{limit} bytes" if limit < MIB else in_mib(limit)
        raise OptionsError(
            f"--max-memory-per-process is {size}, but a process of this project has {in_mib(used)} "
            "before its first task: raise it well above that."
        )


def pool_size(pool: object) -> int | None:
    """Return the maximum size of psycopg's pool, as set in Django's OPTIONS["pool"]; None without a pool."""
    if not pool:
        return None
    if not isinstance(pool, Mapping):
        return POOL_DEFAULT
    least = pool.get("min_size", POOL_DEFAULT)
    most = pool.get("max_size")
    return int(least if most is None else most)


def level_of(setting: object) -> int:
    """Return the logging level of the setting TASKS_LOG_LEVEL, which is a name or a number."""
    if isinstance(setting, int) and not isinstance(setting, bool):
        return setting
    level = logging.getLevelName(str(setting).upper())
    if isinstance(level, int):
        return level
    raise OptionsError(f"TASKS_LOG_LEVEL is {setting!r}: use DEBUG, INFO, WARNING, ERROR or CRITICAL.")


def _listed(names: Collection[str]) -> str:
    return ", ".join(repr(name) for name in names)
