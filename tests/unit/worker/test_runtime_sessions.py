"""Which statements leave a trace in their session, as far as their text shows."""

import pytest
from django_db_worker.sessions import leaves_traces

NO_TRACE = [
    "SELECT 1",
    "  select * from shop_order where note = %s",
    '(SELECT "a"."id" FROM "a") UNION (SELECT "b"."id" FROM "b")',
    "/* route='/orders' */ SELECT 1",
    "-- which one\nUPDATE shop_order SET paid = true",
    "WITH old AS (SELECT 1) DELETE FROM shop_order",
    'INSERT INTO "shop_order" ("note") VALUES (%s) RETURNING "shop_order"."id"',
    "SELECT pg_advisory_xact_lock(7)",
    'SAVEPOINT "s1_x1"',
    'ROLLBACK TO SAVEPOINT "s1_x1"',
    "SET LOCAL statement_timeout = 1000",
    "SET CONSTRAINTS ALL IMMEDIATE",
    "SELECT 1;",
    "INSERT INTO temporary_note (id) VALUES (1)",
    "INSERT INTO template (id) VALUES (1)",
]
TRACE = [
    "SET ROLE other",
    "set search_path to tenant",
    "RESET ALL",
    "SELECT set_config('search_path', %s, false)",
    "SELECT pg_advisory_lock(7)",
    "SELECT pg_try_advisory_lock_shared(7)",
    "SELECT GET_LOCK('x', 1)",
    "SELECT @total := 1",
    "SELECT max(id) INTO @most FROM shop_order",
    "SELECT * INTO TEMP kept FROM shop_order",
    "CREATE TEMPORARY TABLE kept (id int)",
    "LOCK TABLES shop_order READ",
    "USE other",
    "BEGIN",
    "START TRANSACTION",
    "LISTEN orders",
    "PREPARE p AS SELECT 1",
    "CALL whatever()",
    "DO $$ BEGIN PERFORM 1; END $$",
    "PRAGMA foreign_keys = OFF",
    "SELECT 1; SET ROLE other",
    "-- a comment alone",
    "",
    object(),
]


@pytest.mark.parametrize("sql", NO_TRACE)
def test_rows_alone(sql: str) -> None:
    assert not leaves_traces(sql)


@pytest.mark.parametrize("sql", TRACE, ids=lambda sql: sql if isinstance(sql, str) else "no text")
def test_the_session(sql: object) -> None:
    assert leaves_traces(sql)
