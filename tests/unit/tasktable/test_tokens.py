"""Passwords that a command prints: for whom, to whom, and how long they are used."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.waiting import eventually

from django_task_operator.startup.options import Options
from django_task_operator.tasktable import DatabaseURL, TokenRules
from django_task_operator.tasktable.errors import TokenFailed, TokenRefused
from django_task_operator.tasktable.tokens import Token, TokenSource, parse, request

RULES = TokenRules.parse("""
- namespaces: [shop, billing]
  hosts: [shop.rds.example]
  command: [rds-token]
- namespaces: ["*"]
  hosts: [SHARED.example]
  command: [shared-token, --for, everybody]
""")
SAFE = "?sslmode=verify-full&sslrootcert=system"
NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def url(text: str, root_cert: str = "") -> DatabaseURL:
    return DatabaseURL.parse(text, root_cert)


def source_of(namespace: str, text: str) -> TokenSource | None:
    return RULES.applied(namespace, url(text)).token


def credential(token: object = "t0ken", expires: object = None, **others: object) -> bytes:
    status = {"token": token} | ({"expirationTimestamp": expires} if expires is not None else {})
    document = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status}
    return json.dumps(document | others).encode()


def test_a_rule_is_for_its_namespaces_and_hosts() -> None:
    shop = TokenSource(("rds-token",), "shop.rds.example", "5432", "operator", "shop")

    assert source_of("shop", f"postgres://operator@Shop.rds.example/shop{SAFE}") == shop
    assert source_of("billing", f"postgres://operator@shop.rds.example:5432/shop{SAFE}") == shop
    everybody = source_of("any", f"postgres://operator@shared.example:6432/shop{SAFE}")
    assert everybody
    assert everybody.command == ("shared-token", "--for", "everybody")
    assert everybody.environment == {
        "DATABASE_HOST": "shared.example",
        "DATABASE_PORT": "6432",
        "DATABASE_USER": "operator",
        "DATABASE_NAME": "shop",
    }


@pytest.mark.parametrize(
    ("namespace", "text"),
    [
        ("other", f"postgres://operator@shop.rds.example/shop{SAFE}"),
        ("shop", f"postgres://operator@evil.rds.example/shop{SAFE}"),
        ("shop", f"postgres://operator@shop.rds.example,evil.example/shop{SAFE}"),
        ("shop", f"postgres://operator@shop.rds.example.evil.example/shop{SAFE}"),
        ("shop", "postgres://operator:a-password@shop.rds.example/shop"),
    ],
)
def test_nobody_else_has_a_token(namespace: str, text: str) -> None:
    assert source_of(namespace, text) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("postgres://operator@shop.rds.example/shop", "add sslmode=verify-full"),
        ("postgres://operator@shop.rds.example/shop?sslmode=verify-ca", "add sslmode=verify-full"),
        (f"postgres://operator@shop.rds.example/shop{SAFE}&hostaddr=10.6.6.6", "hostaddr leads to another"),
        ("mysql://operator@shop.rds.example/shop", "tokens are for PostgreSQL only"),
    ],
)
def test_a_token_is_not_sent_where_others_could_read_it(text: str, words: str) -> None:
    with pytest.raises(TokenRefused, match=words):
        source_of("shop", text)


def test_with_an_authority_of_ones_own_the_name_is_verified() -> None:
    text = "postgres://operator@shop.rds.example/shop"

    assert RULES.applied("shop", url(text, "an authority")).token
    with pytest.raises(TokenRefused):
        RULES.applied("shop", url(f"{text}?sslmode=require", "an authority"))


def test_who_may_not_have_the_token_shares_no_connection_with_those_who_may() -> None:
    text = f"postgres://operator@shop.rds.example/shop{SAFE}"

    assert RULES.applied("shop", url(text)) == RULES.applied("billing", url(text))
    assert RULES.applied("shop", url(text)) != RULES.applied("other", url(text))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- namespaces: [shop]\n  hosts: [a]\n", "rule 0.command: Field required"),
        ("- {namespaces: [], hosts: [a], command: [b]}", "rule 0.namespaces: Tuple should have at least 1"),
        ("- {namespaces: [a], hosts: [a], command: [b], comand: [c]}", "rule 0.comand: Extra inputs"),
        ("hosts: [a", "no list of rules"),
        ("3", "no list of rules"),
    ],
)
def test_rules_that_are_none(
    text: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match="rule"):
        TokenRules.parse(text)
    path = tmp_path / "tokens.yaml"
    path.write_text(text)
    with pytest.raises(SystemExit):
        Options.parse([f"--database-tokens={path}"], {})
    assert words in capsys.readouterr().err


def test_the_operator_reads_its_rules(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "tokens.yaml"
    path.write_text("- {namespaces: [shop], hosts: [a.example], command: [b, c]}")

    (rule,) = Options.parse([f"--database-tokens={path}"], {}).database_tokens.rules
    assert rule.command == ("b", "c")
    assert Options.parse([], {}).database_tokens == TokenRules()
    with pytest.raises(SystemExit):
        Options.parse(["--database-tokens=/none"], {})
    assert "/none: No such file or directory" in capsys.readouterr().err


@pytest.mark.parametrize("timestamp", ["2026-01-31T12:00:00Z", "2026-01-31T13:00:00.0+01:00"])
def test_a_token_as_kubeconfigs_plugins_print_it(timestamp: str) -> None:
    assert parse(credential(expires=timestamp), "/token") == Token("t0ken", NOW)
    assert parse(credential(), "/token") == Token("t0ken", None)


@pytest.mark.parametrize(
    ("printed", "words"),
    [
        (b"s3cret", "no ExecCredential|not print an ExecCredential"),
        (b"\xff", "not print an ExecCredential"),
        (b'["s3cret"]', "not print an ExecCredential"),
        (credential(kind="s3cret"), "not print an ExecCredential"),
        (credential(status="s3cret"), "no status.token"),
        (credential(token=""), "no status.token"),
        (credential(token=3), "no status.token"),
        (credential(token="s3cret", expires="tomorrow"), "expirationTimestamp"),
        (credential(token="s3cret", expires="2026-01-31T12:00:00"), "expirationTimestamp"),
        (credential(token="s3cret", expires=3), "expirationTimestamp"),
    ],
)
def test_what_is_no_token_is_not_quoted(printed: bytes, words: str) -> None:
    with pytest.raises(TokenFailed, match=words) as failed:
        parse(printed, "/token")
    assert "s3cret" not in str(failed.value)


def test_a_token_does_not_show_itself() -> None:
    assert "t0ken" not in repr(Token("t0ken", NOW))


def test_how_long_a_token_is_used() -> None:
    assert Token("t", NOW).is_fresh(NOW - timedelta(seconds=61))
    assert not Token("t", NOW).is_fresh(NOW - timedelta(seconds=59))
    assert not Token("t", None).is_fresh(NOW)


def source(script: str) -> TokenSource:
    return TokenSource((sys.executable, "-c", script), "db.example", "5432", "operator", "shop")


def test_the_command_is_told_for_which_database() -> None:
    script = "import json, os; print(json.dumps({'kind': 'ExecCredential', 'status': {'token': '@'.join("
    script += "os.environ['DATABASE_' + name] for name in ('USER', 'HOST', 'PORT', 'NAME'))}}))"

    assert request(source(script)).value == "operator@db.example@5432@shop"


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("import sys; print('s3cret'); sys.exit('no role for the pod')", "exit code 1: no role for the pod"),
        ("raise RuntimeError('s3cretT0ken/aGVsbG8')", r"exit code 1: RuntimeError: \*\*\*"),
        ("", "does not print an ExecCredential"),
    ],
)
def test_a_command_that_fails(script: str, words: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(TokenFailed, match=words) as failed:
        request(source(script))
    assert "s3cret" not in f"{failed.value!r} {failed.value.__cause__!r} {failed.value.__context__!r}"
    assert capfd.readouterr() == ("", "")


def test_a_command_that_there_is_not() -> None:
    with pytest.raises(TokenFailed, match=r"it could not be started: No such file"):
        request(TokenSource(("/none/such",), "", "", "", ""))


def test_a_command_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    """The child keeps the pipe open."""
    pid = tmp_path / "pid"
    script = f"sleep 600 & echo $! > {pid}; wait"
    hanging = TokenSource(("sh", "-c", script), "", "", "", "")
    with pytest.raises(TokenFailed, match="it took longer than 5 s"):
        request(hanging, timeout=5)

    process = Path("/proc", pid.read_text().strip())

    def has_ended() -> bool:
        try:
            state = (process / "stat").read_text().rsplit(")", 1)[1].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        return state == "Z"

    eventually(has_ended, "the child has ended")
