"""The trigger that announces new tasks by NOTIFY, on PostgreSQL: its SQL, and what both sides agree on.

NOTIFY takes a lock of the whole server until its transaction has been committed: the commits of all who
announce something follow one another. So a task is announced only if somebody waits for it. Whoever waits
for a queue holds an advisory lock in shared mode, and the trigger tries for a moment to get it exclusively.
It may see a lock that another trigger holds for that moment, and then announces in vain. And it looks before
the commit: who begins to wait between the two has to look at the table again, shortly afterwards.

Channel and locks belong to one table, by its oid, so that several schemas of a database have their own.
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from django.db.backends.base.base import BaseDatabaseWrapper

from .indexes import TABLE
from .next_row import Wanted

NAME = "django_task_operator_wake"
# Of the trigger's body. A worker that finds another one polls.
PROTOCOL = "-- protocol 1"
# What is deferred for longer is not announced: whoever waits asks more often than this when it is due.
SOON_SECONDS = 10

# https://www.postgresql.org/docs/current/trigger-definition.html: a table of the statement's rows. 9999-01-01
# is upstream's "no run_after", in the project's time zone if it has USE_TZ = False.
_BODY = f"""
{PROTOCOL}
DECLARE
  enqueued record;
  name text;
  awaited boolean;
BEGIN
  FOR enqueued IN
    SELECT backend_name, queue_name,
      bool_or(run_after > '9998-12-30' OR run_after <= clock_timestamp()) AS ready,
      min(run_after) FILTER (WHERE run_after > clock_timestamp() AND run_after < '9998-12-30') AS due
    FROM new_tasks
    WHERE status = 'READY'
      AND (run_after > '9998-12-30' OR run_after <= clock_timestamp() + interval '{SOON_SECONDS} seconds')
    GROUP BY backend_name, queue_name
  LOOP
    awaited := false;
    FOREACH name IN ARRAY ARRAY[enqueued.backend_name || '/' || enqueued.queue_name, enqueued.backend_name]
    LOOP
      IF pg_try_advisory_lock(hashtextextended(name, TG_RELID::bigint)) THEN
        PERFORM pg_advisory_unlock(hashtextextended(name, TG_RELID::bigint));
      ELSE
        awaited := true;
      END IF;
    END LOOP;
    IF awaited THEN
      PERFORM pg_notify('{NAME}_' || TG_RELID, json_build_array(
        enqueued.backend_name, enqueued.queue_name, enqueued.ready, extract(epoch FROM enqueued.due))::text);
    END IF;
  END LOOP;
  RETURN NULL;
END
"""  # noqa: S608


def create_statements() -> list[str]:
    """Return the statements that create the trigger, or bring it up to date."""
    function = (
        f"CREATE OR REPLACE FUNCTION {NAME}() RETURNS trigger LANGUAGE plpgsql "
        f"SET search_path = pg_catalog, pg_temp AS $wake${_BODY}$wake$"
    )
    trigger = (
        f"CREATE OR REPLACE TRIGGER {NAME} AFTER INSERT ON {TABLE} REFERENCING NEW TABLE AS new_tasks "
        f"FOR EACH STATEMENT EXECUTE FUNCTION {NAME}()"
    )
    return [function, trigger]


def remove_statements() -> list[str]:
    """Return the statements that remove the trigger."""
    return [f"DROP TRIGGER IF EXISTS {NAME} ON {TABLE}", f"DROP FUNCTION IF EXISTS {NAME}()"]


def table_that_announces(connection: BaseDatabaseWrapper) -> int | None:
    """Return the oid of the task table if new tasks are announced, in the way that this module knows.

    Errors of the database pass through.
    """
    if connection.vendor != "postgresql":
        return None
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT t.tgrelid::bigint, p.prosrc FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid "
            "WHERE t.tgrelid = to_regclass(%s) AND t.tgname = %s AND t.tgenabled IN ('O', 'A')",
            [connection.ops.quote_name(TABLE), NAME],
        )
        found = cursor.fetchone()
    return int(found[0]) if found is not None and PROTOCOL in found[1] else None


def is_installed(connection: BaseDatabaseWrapper) -> bool:
    """Whether there is anything that `remove_statements` would remove, of any protocol."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = to_regclass(%s) AND tgname = %s) "
            "OR to_regprocedure(%s) IS NOT NULL",
            [connection.ops.quote_name(TABLE), NAME, f"{NAME}()"],
        )
        return bool(cursor.fetchone()[0])


def channel_of(table: int) -> str:
    """Return the channel on which new tasks of a table are announced."""
    return f"{NAME}_{table}"


def notify(connection: BaseDatabaseWrapper, channel: str) -> None:
    """Send a notification without content. Errors of the database pass through."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_notify(%s::text, '')", [channel])


def wait_statement(table: int, wanted: Wanted) -> tuple[str, Sequence[object]]:
    """Return the statement that tells enqueuers that somebody waits, with its values."""
    names = [f"{wanted.backend}/{queue}" for queue in wanted.queues] or [wanted.backend]
    sql = (
        "SELECT pg_advisory_lock_shared(hashtextextended(name, %s::bigint)) "
        "FROM unnest(string_to_array(%s::text, E'\\n')) name"
    )
    # Names of queues have no line breaks, and one text binds alike in every way of binding.
    return sql, (table, "\n".join(sorted(set(names))))


@dataclass(frozen=True)
class Announcement:
    """Tasks of a queue that a committed statement has enqueued.

    Args:
        backend: their backend.
        queue: their queue.
        ready: whether one of them may be run at once.
        due: when the first of the others may be run, in seconds since 1970; None: there are none.
    """

    backend: str
    queue: str
    ready: bool
    due: float | None

    def is_for(self, wanted: Wanted) -> bool:
        """Whether a worker takes such tasks."""
        among: Collection[str] = wanted.queues or (self.queue,)
        return self.backend == wanted.backend and self.queue in among and self.queue not in wanted.excluded


def read_announcement(payload: str) -> Announcement | None:
    """Return what a notification says; None for what the trigger has not sent, which anybody may send."""
    try:
        backend, queue, ready, due = json.loads(payload)
    except (ValueError, TypeError, RecursionError):
        return None
    if not (isinstance(backend, str) and isinstance(queue, str) and isinstance(ready, bool)):
        return None
    if isinstance(due, bool) or not isinstance(due, int | float | None):
        return None
    return Announcement(backend, queue, ready, None if due is None else float(due))
