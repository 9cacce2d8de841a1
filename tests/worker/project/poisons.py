"""Tasks that misbehave. What becomes of each is in tests/worker/poisons.py."""

import asyncio
import contextvars
import decimal
import gc
import locale
import logging
import os
import re
import signal
import sys
import threading
import time
from pathlib import Path

from django.db import DatabaseError, connection, connections, transaction
from django.tasks import task
from django.urls import get_urlconf, set_urlconf
from django.utils import timezone, translation
from django_tasks_db.models import DBTaskResult

SESSION = {
    "postgresql": """
        SELECT current_user, current_setting('search_path'), current_setting('statement_timeout'),
               current_setting('default_transaction_read_only'), current_setting('TimeZone'),
               (SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory'),
               (SELECT count(*) FROM pg_listening_channels()), (SELECT count(*) FROM pg_prepared_statements),
               to_regclass('pg_temp.leftover')::text
    """,
    "mysql": """
        SELECT database(), @@sql_mode, @@max_statement_time, @@tx_read_only, @@autocommit,
               @@character_set_client, @leftover, coalesce(is_used_lock('leftover') = connection_id(), 0)
    """,
    "sqlite": "SELECT foreign_keys FROM pragma_foreign_keys",
}
log = logging.getLogger(__name__)
VARIABLE = contextvars.ContextVar("VARIABLE", default="unset")
KEPT = []


@task
def surroundings():
    """What a task finds when it begins: after whatever task, the same."""
    found = {
        "language": translation.get_language(),
        "zone": timezone.get_current_timezone_name(),
        "precision": decimal.getcontext().prec,
        "variable": VARIABLE.get(),
        "urls": get_urlconf(),
    }
    for alias in connections:
        using = connections[alias]
        found[f"{alias}: in a transaction"] = using.in_atomic_block
        with using.cursor() as cursor:
            found[f"{alias}: autocommit"] = using.get_autocommit()
            cursor.execute(SESSION[using.vendor])
            found[f"{alias}: session"] = [str(each) for each in cursor.fetchone()]
    # Threads share their process: there a neighbour may just be changing it.
    return found | shared_surroundings() if in_main_thread() else found


def in_main_thread():
    return threading.current_thread() is threading.main_thread()


def shared_surroundings():
    return {
        "directory": str(Path.cwd()),
        "umask": re.search(r"Umask:\s*(\d+)", Path("/proc/self/status").read_text())[1],
        "local time": [os.environ.get("TZ"), *time.tzname],
        "path": os.environ.get("PATH"),
        "locale": locale.setlocale(locale.LC_ALL),
        "collector": gc.isenabled(),
        "recursion": sys.getrecursionlimit(),
        "SIGTERM": repr(signal.getsignal(signal.SIGTERM)).partition(" at ")[0],
        "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
    }


def execute(sql, using="default"):
    with connections[using].cursor() as cursor:
        cursor.execute(sql)


# Exceptions


class Unprintable(Exception):
    def __str__(self):
        raise RuntimeError("no text")


class ExitsInPrint(Exception):
    def __str__(self):
        raise SystemExit(7)


class HidesItsCause(Exception):
    @property
    def __cause__(self):
        raise RuntimeError("no cause")


class Own(BaseException):
    pass


class Nameless(type):
    def __getattribute__(cls, name):
        if name in {"__qualname__", "__module__"}:
            raise RuntimeError("no name")
        return super().__getattribute__(name)


class OfNameless(Exception, metaclass=Nameless):
    pass


def unescaped(text):
    """What an argument cannot carry everywhere: PostgreSQL's JSON is as narrow as its database."""
    return text.encode().decode("unicode_escape")


@task
def raise_text(escaped):
    raise ValueError(unescaped(escaped))


@task
def raise_surrogate():
    raise ValueError("half a pair: \ud83d")


@task
def raise_nul():
    raise ValueError("a NUL: \x00.")


@task
def raise_odd_class(escaped):
    kind = type("Odd", (ValueError,), {})
    kind.__qualname__, kind.__module__ = unescaped(escaped), "poisons"
    raise kind("odd")


@task
def raise_class_of_no_module():
    kind = type("Odd", (ValueError,), {})
    kind.__module__ = None
    raise kind("odd")


@task
def raise_instance_of(name):
    raise globals()[name]


@task
def raise_base(name):
    raise {
        "SystemExit": SystemExit(3),
        "KeyboardInterrupt": KeyboardInterrupt(),
        "GeneratorExit": GeneratorExit(),
        "CancelledError": asyncio.CancelledError(),
    }[name]


@task
def raise_cycle():
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    raise one


@task
def raise_chain(length):
    error = ValueError(0)
    for number in range(1, length):
        cause, error = error, ValueError(number)
        error.__cause__ = cause
    raise error


@task
def raise_long(length):
    raise ValueError("beginning" + "x" * length + "end")


@task
def recurse(depth=0):
    return recurse.call(depth + 1)


# Results


class Reluctant(dict):
    def items(self):
        raise LookupError("not like this")


@task
def return_value(kind):
    circular = []
    circular.append(circular)
    deep = []
    for _ in range(100_000):
        deep = [deep]
    return {
        "object": object(),
        "bytes": b"\xff",
        "circular": circular,
        "deep": deep,
        "digits": 10**5000,
        "nan": float("nan"),
        "nul": "\x00",
        "surrogate": "\ud83d",
        "emoji": "\U0001f600",
        "reluctant": Reluctant(a=1),
        "expression": timezone.now,
    }[kind]


@task
def return_large(character, length):
    return character * length


# Sessions


@task
def run_sql(*statements, using="default"):
    """Change the session and forget about it."""
    for statement in statements:
        execute(statement, using)
    return "done"


@task
def run_sql_of_driver(*statements):
    connection.ensure_connection()
    cursor = connection.connection.cursor()
    for statement in statements:
        cursor.execute(statement)
    cursor.close()
    return "done"


@task
def leave_atomic(using="default", sql="SELECT 1"):
    transaction.atomic(using=using).__enter__()
    execute(sql, using)
    return "done"


@task
def leave_broken_atomic():
    transaction.atomic().__enter__()
    try:
        execute("SELECT * FROM no_such_table")
    except DatabaseError:
        return "done"


def suspended():
    with transaction.atomic():
        yield


@task
def leave_generator():
    """An atomic() that ends some time later, when somebody drops what refers to it."""
    KEPT.append(suspended())
    next(KEPT[-1])
    execute("SELECT 1")
    return "done"


@task
def leave_cycle():
    """As before, but the garbage collection finds the time: during the next statement, a worker's own."""
    wrappers = connection.execute_wrappers

    def collect(execute, sql, *args):
        if DBTaskResult._meta.db_table in sql:
            wrappers.remove(collect)
            before = connection.in_atomic_block
            gc.collect()
            if connection.in_atomic_block != before:
                log.error("A transaction of the worker's was torn.")
        return execute(sql, *args)

    wrappers.append(collect)
    generator = suspended()
    next(generator)
    cycle = [generator]
    cycle.append(cycle)
    return "done"


@task
def drop_generators():
    KEPT.clear()
    return "done"


@task
def turn_autocommit_off(using="default"):
    transaction.set_autocommit(False, using=using)
    execute("SELECT 1", using)
    return "done"


@task
def turn_drivers_autocommit_off():
    connection.ensure_connection()
    raw = connection.connection
    if connection.vendor == "postgresql":
        raw.autocommit = False
    else:
        raw.autocommit(False)
    return "done"


@task(takes_context=True)
def lock_own_row(context):
    transaction.atomic().__enter__()
    DBTaskResult.objects.select_for_update().get(id=context.task_result.id)
    return "done"


@task
def close_driver():
    connection.ensure_connection()
    connection.connection.close()
    return "done"


@task
def close_all():
    connections.close_all()
    return "done"


@task
def delete_connection():
    connection.close()
    del connections["default"]
    return "done"


# Contexts


@task
def activate():
    translation.activate("de")
    timezone.activate("Asia/Tokyo")
    decimal.getcontext().prec = 3
    VARIABLE.set("set")
    set_urlconf("elsewhere")
    return "done"


@task
async def activate_async():
    translation.activate("de")
    timezone.activate("Asia/Tokyo")
    decimal.getcontext().prec = 3
    VARIABLE.set("set")
    return "done"


@task
def leave_event_loop():
    """As Playwright's sync API does while it is not stopped."""
    KEPT.append(asyncio.new_event_loop())
    asyncio.events._set_running_loop(KEPT[-1])
    return "done"


# Forks


def exit_code(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@task
def fork_and_raise():
    if not (child := os.fork()):
        raise ValueError("in the child")
    assert exit_code(child) == 1
    return "done"


@task
def fork_and_exit():
    if not (child := os.fork()):
        raise SystemExit(5)
    assert exit_code(child) == 5
    return "done"


@task
def fork_and_return():
    child = os.fork()
    assert not child or exit_code(child) == 0
    return "done"


# The process


@task
def change_process(what):
    PROCESS[what]()
    return "done"


def set_time_zone():
    os.environ["TZ"] = "Asia/Tokyo"
    time.tzset()


def take_signals():
    # Only the main thread can.
    if in_main_thread():
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)


def leave_timer():
    if in_main_thread():
        signal.signal(signal.SIGALRM, lambda *_: os._exit(9))
        signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
        time.sleep(0.05)


PROCESS = {
    "working directory": lambda: os.chdir("/"),
    "umask": lambda: os.umask(0o777),
    "time zone": set_time_zone,
    "environment": lambda: os.environ.update(PATH="/nowhere", LC_ALL="C"),
    "locale": lambda: locale.setlocale(locale.LC_ALL, "C"),
    "collector": gc.disable,
    "signal handlers": take_signals,
    "blocked signals": lambda: signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals()),
    "timer": leave_timer,
    "recursion limit": lambda: sys.setrecursionlimit(500) if in_main_thread() else None,
}
