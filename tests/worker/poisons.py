"""The table of what tasks do to their worker, and what their own rows say of it.

A new kind of misbehaviour is a task in project/poisons.py and a line here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

ALL = ("postgres", "mariadb", "sqlite")
SERVERS = ("postgres", "mariadb")


@dataclass(frozen=True)
class Poison:
    """A task that misbehaves, and what its row says in the end."""

    task: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    # The end of exception_class_path; empty for a task that is SUCCESSFUL.
    error: str = ""
    value: Any = None
    says: str = ""
    engines: tuple[str, ...] = ALL
    # The row's JSON, where no enqueue() would write it.
    written: Any = None
    # A text of RAW in project/diary/management/commands/console.py, where that is not even Python's JSON.
    raw: str = ""

    def __str__(self) -> str:
        return f"{self.task}{self.args}{self.raw}"


def done(task: str, *args: Any, **more: Any) -> Poison:
    """A poison whose own result is fine."""
    return Poison(task, args, value="done", **more)


def fails(error: str, task: str, *args: Any, **more: Any) -> Poison:
    return Poison(task, args, error=error, **more)


EMOJI = Poison("poisons.return_value", ("emoji",), value="\U0001f600")
PG, MY, LITE = ("postgres",), ("mariadb",), ("sqlite",)

# What a task does, as docs/worker.md says it ("What a task may do to its worker"), in the same order.
POISONS: dict[str, list[Poison]] = {
    "is in a module that raises an exception when it is imported": [
        fails("builtins.KeyError", "poison_at_import.task", says="A_VARIABLE_THAT_IS_MISSING"),
        fails("builtins.SystemExit", "poison_at_import_exits.task", says="usage"),
    ],
    "cannot be found, or cannot be called with its arguments": [
        fails("builtins.ModuleNotFoundError", "no.such.task"),
        fails("builtins.KeyError", "poisons.surroundings", written={"args": []}),
        fails("builtins.TypeError", "poisons.surroundings", written=[]),
        fails("builtins.TypeError", "poisons.surroundings", "too", "many"),
    ],
    "has arguments that Python cannot read": [
        # MariaDB's own constraint of the column refuses the first and the last, and any change of their rows.
        fails("builtins.RecursionError", "poisons.surroundings", raw="deep"),
        fails("builtins.ValueError", "poisons.surroundings", raw="digits", says="4300 digits"),
        fails("JSONDecodeError", "poisons.surroundings", raw="torn", engines=("mariadb", "sqlite")),
    ],
    "raises an exception of any kind, such as `SystemExit`": [
        fails("poisons.Own", "poisons.raise_instance_of", "Own"),
        fails("builtins.SystemExit", "poisons.raise_base", "SystemExit"),
        fails("builtins.KeyboardInterrupt", "poisons.raise_base", "KeyboardInterrupt"),
        fails("builtins.GeneratorExit", "poisons.raise_base", "GeneratorExit"),
        fails("CancelledError", "poisons.raise_base", "CancelledError"),
        fails("builtins.RecursionError", "poisons.recurse"),
    ],
    "raises an exception that is very long, or fails when it is printed": [
        fails("poisons.Unprintable", "poisons.raise_instance_of", "Unprintable"),
        fails("poisons.ExitsInPrint", "poisons.raise_instance_of", "ExitsInPrint"),
        fails("poisons.HidesItsCause", "poisons.raise_instance_of", "HidesItsCause"),
        fails("OfNameless", "poisons.raise_instance_of", "OfNameless"),
        fails(".Odd", "poisons.raise_class_of_no_module"),
        fails("builtins.ValueError", "poisons.raise_cycle"),
        fails("builtins.ValueError", "poisons.raise_chain", 3000),
        fails("builtins.ValueError", "poisons.raise_long", 5_000_000, says="characters left out"),
    ],
    "raises an exception with text that the database cannot store": [
        fails("builtins.ValueError", "poisons.raise_surrogate", says="half a pair: \\ud83d"),
        fails("builtins.ValueError", "poisons.raise_nul", says="a NUL: \\x00."),
        fails("builtins.ValueError", "poisons.raise_text", r"\U0001f600 and \u0436", says="\U0001f600 and ж"),
        fails("poisons.Odd\\ud83d", "poisons.raise_odd_class", r"Odd\ud83d"),
        fails("poisons.Ж\U0001f600", "poisons.raise_odd_class", r"\u0416\U0001f600"),
    ],
    "returns something that JSON or the database cannot represent": [
        EMOJI,
        fails("builtins.TypeError", "poisons.return_value", "object"),
        fails("builtins.TypeError", "poisons.return_value", "bytes"),
        fails("builtins.TypeError", "poisons.return_value", "expression"),
        fails("builtins.ValueError", "poisons.return_value", "circular"),
        fails("builtins.RecursionError", "poisons.return_value", "deep"),
        fails("builtins.ValueError", "poisons.return_value", "digits"),
        fails("builtins.LookupError", "poisons.return_value", "reluctant"),
        fails("django.db.utils.DataError", "poisons.return_value", "nan", engines=PG),
        fails("django.db.utils.IntegrityError", "poisons.return_value", "nan", engines=("mariadb", "sqlite")),
        fails("django.db.utils.DataError", "poisons.return_value", "nul", engines=PG),
        Poison("poisons.return_value", ("nul",), value="\x00", engines=("mariadb", "sqlite")),
        fails("django.db.utils.DataError", "poisons.return_value", "surrogate", engines=PG),
        fails("django.db.utils.IntegrityError", "poisons.return_value", "surrogate", engines=MY),
        Poison("poisons.return_value", ("surrogate",), value="\ud83d", engines=LITE),
    ],
    "returns more than the database accepts": [
        # MariaDB's max_allowed_packet is 16 MiB, and a quotation mark is escaped on its way.
        fails(
            "builtins.ValueError",
            "poisons.return_large",
            "x",
            30 * 2**20,
            says="max_allowed_packet",
            engines=MY,
        ),
        fails(
            "builtins.ValueError", "poisons.return_large", '"', 2**22, says="max_allowed_packet", engines=MY
        ),
        Poison("poisons.return_large", ("x", 2**20), value="x" * 2**20, engines=SERVERS),
    ],
    "changes its database session": [
        done("poisons.run_sql", "SET ROLE pg_monitor", engines=PG),
        done("poisons.run_sql_of_driver", "SET ROLE pg_monitor", engines=PG),
        done("poisons.run_sql", "SET search_path = pg_catalog", engines=PG),
        done("poisons.run_sql_of_driver", "SET search_path = pg_catalog", engines=PG),
        done("poisons.run_sql", "SELECT set_config('search_path', 'pg_catalog', false)", engines=PG),
        done("poisons.run_sql", "SET statement_timeout = 1", engines=PG),
        done("poisons.run_sql", "SET TIME ZONE 'Asia/Tokyo'", engines=PG),
        done("poisons.run_sql", "SET default_transaction_read_only = on", engines=PG),
        done("poisons.run_sql", "SELECT pg_advisory_lock(7)", engines=PG),
        done("poisons.run_sql", "LISTEN something", "CREATE TEMPORARY TABLE leftover (id int)", engines=PG),
        done("poisons.run_sql", "SELECT 1; PREPARE leftover AS SELECT 1", engines=PG),
        done("poisons.run_sql", "SET search_path = pg_catalog", kwargs={"using": "second"}, engines=PG),
        done("poisons.run_sql", "SET SESSION TRANSACTION READ ONLY", engines=MY),
        done("poisons.run_sql", "USE information_schema", engines=MY),
        done("poisons.run_sql_of_driver", "USE information_schema", engines=MY),
        done("poisons.run_sql", "SET SESSION max_statement_time = 0.000001", engines=MY),
        done("poisons.run_sql", "SET SESSION sql_mode = ''", "SET NAMES latin1", engines=MY),
        done("poisons.run_sql", "LOCK TABLES diary_entry READ", engines=MY),
        done("poisons.run_sql", "SELECT get_lock('leftover', 1)", engines=MY),
        done("poisons.run_sql", "SELECT @leftover := 1", engines=MY),
    ],
    "leaves a transaction open or broken, or autocommit off": [
        done("poisons.run_sql", "BEGIN", engines=PG),
        done("poisons.run_sql", "SET autocommit = 0", engines=MY),
        done("poisons.run_sql", "START TRANSACTION", engines=MY),
        done("poisons.run_sql_of_driver", "BEGIN", engines=SERVERS),
        done("poisons.turn_drivers_autocommit_off", engines=SERVERS),
        done("poisons.turn_autocommit_off"),
        done("poisons.turn_autocommit_off", kwargs={"using": "second"}, engines=SERVERS),
        done("poisons.leave_atomic"),
        done("poisons.leave_atomic", kwargs={"using": "second"}, engines=SERVERS),
        done("poisons.leave_broken_atomic"),
        done("poisons.leave_generator"),
        done("poisons.leave_cycle"),
        done("poisons.drop_generators"),
        done("poisons.lock_own_row", engines=SERVERS),
    ],
    "closes its database connection": [
        done("poisons.close_driver"),
        done("poisons.close_all"),
        done("poisons.delete_connection"),
    ],
    "forks, and lets the new process out of the task": [
        done("poisons.fork_and_raise"),
        done("poisons.fork_and_exit"),
        done("poisons.fork_and_return"),
    ],
    "changes the language, the time zone, or another context": [
        done("poisons.activate"),
        done("poisons.activate_async"),
        done("poisons.leave_event_loop"),
    ],
    "changes its process, such as its working directory or how it handles signals": [
        done("poisons.change_process", "working directory"),
        done("poisons.change_process", "umask"),
        done("poisons.change_process", "time zone"),
        done("poisons.change_process", "environment"),
        done("poisons.change_process", "locale"),
        done("poisons.change_process", "collector"),
        done("poisons.change_process", "signal handlers"),
        done("poisons.change_process", "blocked signals"),
        done("poisons.change_process", "timer"),
        done("poisons.change_process", "recursion limit"),
    ],
}
# This one the whole project does: each of the above is run with such receivers too.
RECEIVERS = "is followed by a receiver of `task_started` or `task_finished` that raises an exception"
MODEL_RECEIVERS = (
    "has a row that a receiver of `DBTaskResult`'s `post_init`, `pre_save` or `post_save` refuses"
)
CONSTRAINTS = "has a row that violates a constraint of its table, made for later rows only (`NOT VALID`)"
TEXT = "raises an exception with text that the database cannot store"
