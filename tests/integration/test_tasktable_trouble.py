"""Real problems of databases: the error messages, which contain no part of the URL."""

from __future__ import annotations

import contextlib
import socket
import time
import traceback
from typing import TYPE_CHECKING

import pytest
from tests.contract.tasktable import DEFAULT
from tests.integration.databases import PASSWORD, TABLE, create_database, docker, execute, opened, running
from tests.integration.pooler import refusing
from tests.waiting import in_one_of

from django_task_operator.tasktable import DatabaseError, DatabaseURL, TaskTable, errors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.databases import Server


def trouble(url: str, *, connect_timeout: float = 5, statement_timeout: float = 10) -> DatabaseError:
    """Return the error that a sample raises."""
    parsed = DatabaseURL.parse(url)
    table = TaskTable(parsed, connect_timeout=connect_timeout, statement_timeout=statement_timeout)
    with pytest.raises(DatabaseError) as raised:
        table.sample({DEFAULT: 1})
    table.close()
    error = raised.value
    shown = "".join(traceback.format_exception(error)) + repr(error)
    for secret in (url, PASSWORD, parsed.password, parsed.host, "172."):
        assert secret not in shown
    assert error.__cause__ is None
    assert error.__context__ is None
    return error


@pytest.fixture(scope="module")
def url(server: Server) -> str:
    return create_database(server, "shop_trouble")


def test_unknown_host(server: Server) -> None:
    assert type(trouble(server.url().replace("127.0.0.1", "nowhere.invalid"))) is errors.HostUnknown


def test_refused(server: Server) -> None:
    address = docker("inspect", "--format={{.NetworkSettings.Networks.bridge.IPAddress}}", server.container)
    url = server.url().replace(f"127.0.0.1:{server.port}", f"{address.strip()}:1")
    assert type(trouble(url)) is errors.ConnectionRefused


def test_nothing_listens_in_the_operators_own_pod(server: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert type(trouble(server.url().replace(str(server.port), str(port)))) is errors.HostIsLoopback


def test_silence(server: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = server.url().replace(str(server.port), str(silent.getsockname()[1]))

        def attempt() -> float:
            started = time.monotonic()
            found = trouble(url, connect_timeout=1, statement_timeout=1)
            assert type(found) is errors.ConnectionTimedOut
            return time.monotonic() - started

        in_one_of(3, 4.0, attempt)


def test_wrong_password(server: Server) -> None:
    assert type(trouble(server.url(password="wr%ng"))) is errors.AuthenticationFailed


def test_unknown_user(server: Server) -> None:
    assert type(trouble(server.url(user="nobody"))) is errors.AuthenticationFailed


def test_missing_database(server: Server) -> None:
    assert type(trouble(server.url("missing"))) is errors.DatabaseMissing


def test_database_that_is_not_migrated(server: Server) -> None:
    assert type(trouble(create_database(server, "shop_empty", migrated=False))) is errors.TableMissing


def test_table_of_an_old_release(server: Server) -> None:
    url = create_database(server, "shop_old")
    with opened(url) as connection:
        execute(connection, f"ALTER TABLE {TABLE} DROP COLUMN enqueued_at")
    assert type(trouble(url)) is errors.TableOutdated


def test_user_without_the_right(server: Server, url: str) -> None:
    if server.kind == "postgres":
        server.administer("CREATE ROLE guest LOGIN PASSWORD 'x'")
    else:
        server.administer(
            "CREATE USER guest@'%' IDENTIFIED BY 'x'",
            "CREATE TABLE shop_trouble.other (id int)",
            "GRANT SELECT ON shop_trouble.other TO guest@'%'",
        )
    assert type(trouble(server.url("shop_trouble", user="guest", password="x"))) is errors.PermissionDenied


def test_the_right_that_the_documentation_names_is_enough(server: Server, url: str) -> None:
    if server.kind == "postgres":
        server.administer(
            "CREATE ROLE reader LOGIN PASSWORD 'x'", f"GRANT SELECT ON {TABLE} TO reader", name="shop_trouble"
        )
    else:
        server.administer(
            "CREATE USER reader@'%' IDENTIFIED BY 'x'", f"GRANT SELECT ON shop_trouble.{TABLE} TO reader@'%'"
        )
    table = TaskTable(DatabaseURL.parse(server.url("shop_trouble", user="reader", password="x")))
    assert table.sample({DEFAULT: 1}).demands
    table.close()


def test_no_connection_left(server: Server, url: str) -> None:
    if server.kind == "postgres":
        server.administer("CREATE ROLE crowded LOGIN PASSWORD 'x' CONNECTION LIMIT 1")
    else:
        server.administer(
            "CREATE USER crowded@'%' IDENTIFIED BY 'x' WITH MAX_USER_CONNECTIONS 1",
            f"GRANT SELECT ON shop_trouble.{TABLE} TO crowded@'%'",
        )
    crowded = server.url("shop_trouble", user="crowded", password="x")
    with opened(crowded):
        assert type(trouble(crowded)) is errors.TooManyConnections


def test_tls_that_the_server_does_not_have(server: Server) -> None:
    query = "?sslmode=require" if server.kind == "postgres" else "?ssl-mode=VERIFY_IDENTITY"
    assert type(trouble(server.url(query=query))) is errors.TLSFailed


@pytest.fixture(scope="module")
def german() -> Iterator[Server]:
    with running("postgres", "-c", "lc_messages=de_DE.UTF-8", "-c", "max_connections=8") as server:
        create_database(server, "shop_german")
        yield server


def test_a_server_that_speaks_german_is_understood(german: Server) -> None:
    with pytest.raises(Exception, match="existiert nicht"), opened(german.url("nirgends")):
        pass
    german.administer(
        "CREATE ROLE gast LOGIN PASSWORD 'x'",
        "CREATE ROLE voll LOGIN PASSWORD 'x' CONNECTION LIMIT 0",
        "CREATE ROLE stumm NOLOGIN PASSWORD 'x'",
        "ALTER DATABASE shop_german CONNECTION LIMIT 3",
        "CREATE DATABASE verboten ALLOW_CONNECTIONS false",
    )
    found = {
        name: type(trouble(url))
        for name, url in {
            "wrong password": german.url(password="falsch"),
            "unknown user": german.url(user="niemand"),
            "user who may not log in": german.url(user="stumm", password="x"),
            "missing database": german.url("nirgends"),
            "no connection left for the user": german.url("shop_german", user="voll", password="x"),
            "not migrated": german.url("shop"),
            "no right": german.url("shop_german", user="gast", password="x"),
            "no connections": german.url("verboten"),
        }.items()
    }
    assert found == {
        "wrong password": errors.AuthenticationFailed,
        "unknown user": errors.AuthenticationFailed,
        "user who may not log in": errors.AuthenticationFailed,
        "missing database": errors.DatabaseMissing,
        "no connection left for the user": errors.TooManyConnections,
        "not migrated": errors.TableMissing,
        "no right": errors.PermissionDenied,
        "no connections": errors.DatabaseFailed,
    }


@contextlib.contextmanager
def locked(server: Server, url: str) -> Iterator[None]:
    with opened(url) as connection:
        if server.kind == "postgres":
            execute(connection, "BEGIN")
            execute(connection, f"LOCK TABLE {TABLE} IN ACCESS EXCLUSIVE MODE")
        else:
            execute(connection, f"LOCK TABLES {TABLE} WRITE")
        yield


def test_a_locked_table_times_out_and_is_sampled_again_later(server: Server, url: str) -> None:
    table = TaskTable(DatabaseURL.parse(url), statement_timeout=1)
    table.sample({DEFAULT: 1})

    def attempt() -> float:
        started = time.monotonic()
        with pytest.raises(errors.SampleTimedOut) as raised:
            table.sample({DEFAULT: 1})
        took = time.monotonic() - started
        assert took > 0.9
        assert "longer than 1 s" in raised.value.message
        assert "docs/database.md" in raised.value.message
        return took

    with locked(server, url):
        # Not the ten seconds that it has otherwise.
        in_one_of(3, 8.0, attempt)
    assert table.sample({DEFAULT: 1}).demands
    table.close()


def test_behind_a_pooler_the_timeout_goes_with_the_statement_and_stays_nobodys(postgres: Server) -> None:
    url = create_database(postgres, "shop_pooled", indexed=True)
    with refusing(postgres.port) as pooler:
        through = url.replace(str(postgres.port), str(pooler.server_address[1]))
        table = TaskTable(DatabaseURL.parse(through), statement_timeout=1)
        assert table.sample({DEFAULT: 1}).indexed
        assert pooler.refused == 1
        connection = table._connection
        assert connection is not None
        assert execute(connection, "SHOW statement_timeout") == [("0",)]
        with locked(postgres, url), pytest.raises(errors.SampleTimedOut):
            table.sample({DEFAULT: 1})
        assert table.sample({DEFAULT: 1}).demands
        assert pooler.refused == 1
        table.close()


def test_behind_a_pooler_that_drops_the_timeout_without_a_word_it_is_set_all_the_same(
    postgres: Server,
) -> None:
    url = create_database(postgres, "shop_dropped", indexed=True)
    with refusing(postgres.port, drops=True) as pooler:
        through = url.replace(str(postgres.port), str(pooler.server_address[1]))
        table = TaskTable(DatabaseURL.parse(through), statement_timeout=1)
        assert table.sample({DEFAULT: 1}).indexed
        assert (pooler.refused, pooler.dropped) == (0, 1)
        for ask in (lambda: table.sample({DEFAULT: 1}), table.running):
            with locked(postgres, url), pytest.raises(errors.SampleTimedOut):
                ask()
        assert table.sample({DEFAULT: 1}).demands
        table.close()


def test_a_connection_that_the_server_ends_is_made_again(server: Server, url: str) -> None:
    table = TaskTable(DatabaseURL.parse(url))
    table.sample({DEFAULT: 1})
    if server.kind == "postgres":
        ours = "datname = 'shop_trouble'"
        server.administer(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {ours}")
    else:
        server.administer("KILL USER shop@'%'")
    with pytest.raises(errors.ConnectionLost):
        table.sample({DEFAULT: 1})
    assert table.sample({DEFAULT: 1}).demands
    table.close()


def test_a_restarted_server_is_met_again(server: Server, url: str) -> None:
    table = TaskTable(DatabaseURL.parse(url), connect_timeout=2)
    table.sample({DEFAULT: 1})
    server.docker("stop", "--time=5")
    said = []
    for _ in range(2):
        with pytest.raises(DatabaseError) as raised:
            table.sample({DEFAULT: 1})
        said.append(type(raised.value))
    assert said == [errors.ConnectionLost, errors.HostIsLoopback]
    server.docker("start")
    server.wait()
    assert table.sample({DEFAULT: 1}).demands
    table.close()
