"""A real PostgreSQL whose passwords are tokens, which a command prints."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from tests.authorities import Authority
from tests.contract.tasktable import DEFAULT
from tests.integration.databases import Server, create_database, running

from django_task_operator.tasktable import DatabaseURL, TaskTable, TokenRules
from django_task_operator.tasktable.errors import AuthenticationFailed, DatabaseError, TokenFailed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TLS = ["-c", "ssl=on", "-c", "ssl_cert_file=/files/tls.crt", "-c", "ssl_key_file=/files/tls.key"]


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.make()


@pytest.fixture(scope="module")
def server(authority: Authority) -> Iterator[Server]:
    certificate, key = authority.sign("127.0.0.1")
    with running("postgres", *TLS, files={"tls.crt": certificate, "tls.key": key}) as server:
        create_database(server, "shop_tokens")
        server.administer("CREATE ROLE operator LOGIN", "GRANT pg_read_all_data TO operator")
        yield server


class Provider:
    """A stand-in for a cloud's identity: the token that it has given last is the role's password."""

    def __init__(self, server: Server, folder: Path) -> None:
        self._server = server
        self._printed = folder / "credential.json"
        self._asked = folder / "asked"
        copy = f"open({str(self._asked)!r}, 'a').write('.'); print(open({str(self._printed)!r}).read())"
        self.command = [sys.executable, "-c", copy]

    @property
    def asked(self) -> int:
        return len(self._asked.read_text()) if self._asked.exists() else 0

    def gives(self, token: str, valid: timedelta | None) -> None:
        self._server.administer(f"ALTER ROLE operator PASSWORD '{token}' VALID UNTIL 'infinity'")
        status = {"token": token}
        if valid is not None:
            status["expirationTimestamp"] = (datetime.now(UTC) + valid).isoformat()
        self._printed.write_text(json.dumps({"kind": "ExecCredential", "status": status}))

    def revokes(self) -> None:
        self._server.administer("ALTER ROLE operator PASSWORD 'another that nobody is given'")

    def expires(self) -> None:
        self._server.administer("ALTER ROLE operator VALID UNTIL '2020-01-01'")

    def gives_nonsense(self) -> None:
        self._printed.write_text("t0ken-of-nonsense")

    def disconnect(self) -> None:
        """Connections that are open stay open when a token expires: end them."""
        where = "usename = 'operator' AND pid <> pg_backend_pid()"
        self._server.administer(
            f"SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE {where}"
        )


@pytest.fixture
def provider(server: Server, tmp_path: Path) -> Provider:
    return Provider(server, tmp_path)


@pytest.fixture
def table(server: Server, authority: Authority, provider: Provider) -> Iterator[TaskTable]:
    rules = TokenRules.parse(
        json.dumps([{"namespaces": ["shop"], "hosts": ["127.0.0.1"], "command": provider.command}])
    )
    text = f"postgres://operator@127.0.0.1:{server.port}/shop_tokens"
    table = TaskTable(rules.applied("shop", DatabaseURL.parse(text, authority.pem)))
    yield table
    table.close()


def sample(table: TaskTable) -> None:
    assert table.sample({DEFAULT: 1}).demands


def lose(table: TaskTable, provider: Provider) -> None:
    provider.disconnect()
    with pytest.raises(DatabaseError):
        sample(table)


def test_a_token_is_used_until_it_expires(table: TaskTable, provider: Provider) -> None:
    provider.gives("first", timedelta(hours=1))
    sample(table)
    sample(table)
    lose(table, provider)
    sample(table)
    assert provider.asked == 1


def test_one_that_has_expired_is_replaced_at_the_next_connection(
    table: TaskTable, provider: Provider
) -> None:
    provider.gives("first", timedelta(seconds=-1))
    sample(table)
    provider.gives("second", timedelta(hours=1))
    sample(table)
    assert provider.asked == 1
    lose(table, provider)
    sample(table)
    assert provider.asked == 2


def test_one_without_an_expiry_is_for_one_connection(table: TaskTable, provider: Provider) -> None:
    provider.gives("first", None)
    sample(table)
    provider.gives("second", None)
    lose(table, provider)
    sample(table)
    assert provider.asked == 2


def test_one_that_was_revoked_is_replaced(table: TaskTable, provider: Provider) -> None:
    provider.gives("first", timedelta(hours=1))
    sample(table)
    provider.gives("second", timedelta(hours=1))
    lose(table, provider)
    sample(table)
    assert provider.asked == 2


def test_one_that_the_database_does_not_know_costs_one_more_run(table: TaskTable, provider: Provider) -> None:
    provider.gives("first", timedelta(hours=1))
    sample(table)
    provider.revokes()
    lose(table, provider)
    for asked in (2, 3):
        with pytest.raises(AuthenticationFailed) as refused:
            sample(table)
        # One that was just fetched is not worse than the next.
        assert provider.asked == asked
        assert refused.value.__context__ is None
    provider.gives("second", timedelta(hours=1))
    sample(table)


def test_a_command_that_fails_after_a_refusal(table: TaskTable, provider: Provider) -> None:
    provider.gives("first", timedelta(hours=1))
    sample(table)
    provider.revokes()
    lose(table, provider)
    provider.gives_nonsense()
    with pytest.raises(TokenFailed) as failed:
        sample(table)
    assert (failed.value.__context__, failed.value.__cause__) == (None, None)
    provider.gives("second", timedelta(hours=1))
    sample(table)


def test_a_password_that_expires_at_the_server(table: TaskTable, provider: Provider) -> None:
    provider.gives("first", timedelta(hours=1))
    sample(table)
    provider.expires()
    sample(table)
    lose(table, provider)
    with pytest.raises(AuthenticationFailed):
        sample(table)
    provider.gives("second", timedelta(hours=1))
    sample(table)


def test_no_token_appears_anywhere(
    table: TaskTable, provider: Provider, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    provider.gives("t0ken-of-the-role", timedelta(hours=1))
    sample(table)
    provider.gives("t0ken-after-it", timedelta(hours=1))
    provider.revokes()
    lose(table, provider)
    errors = []
    for _ in range(2):
        with pytest.raises(DatabaseError) as failed:
            sample(table)
        errors.append(failed.value)
        provider.gives_nonsense()

    assert [type(error) for error in errors] == [AuthenticationFailed, TokenFailed]
    said = "".join(f"{error!r}{error.__cause__!r}{error.__context__!r}" for error in errors)
    assert "t0ken" not in said + caplog.text + "".join(capfd.readouterr()) + repr(table._url)
