"""The commands in examples/tokens, with stand-ins of what they ask for a token."""

from __future__ import annotations

import json
import sys
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import pytest
from tests.conftest import ROOT

from django_task_operator.tasktable.errors import TokenFailed
from django_task_operator.tasktable.tokens import Token, TokenSource, request

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EXAMPLES = ROOT / "examples" / "tokens"
# The commands are given time, because the machine may be busy.
PATIENCE_S = 60.0


class Provider(HTTPServer):
    """Answers every request with a token that is valid for an hour, or with an error."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.status = 200
        self.asked: list[tuple[str, str | None, dict[str, list[str]]]] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"


class Answers(BaseHTTPRequestHandler):
    server: Provider

    def do_GET(self) -> None:
        form = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        self.server.asked.append((self.path, self.headers.get("Metadata-Flavor"), parse_qs(form)))
        self.send_response(self.server.status)
        self.end_headers()
        answer = {"access_token": "t0ken", "expires_in": 3600, "token_type": "Bearer"}
        self.wfile.write(json.dumps(answer).encode())

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider() as provider:
        thread = threading.Thread(target=provider.serve_forever)
        thread.start()
        yield provider
        provider.shutdown()
        thread.join()


def token(*command: str) -> Token:
    return request(TokenSource(command, "db.example", "5432", "operator", "shop"), PATIENCE_S)


def is_in(token: Token, valid: timedelta) -> bool:
    """Whether it is valid for about this long: within minutes, because the command took a while."""
    assert token.expires
    return timedelta(0) <= datetime.now(UTC) + valid - token.expires < timedelta(minutes=5)


def test_entra(provider: Provider, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "identity").write_text("a-signed-identity")
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", f"http://{provider.address}/")
    monkeypatch.setenv("AZURE_TENANT_ID", "tenant")
    monkeypatch.setenv("AZURE_CLIENT_ID", "client")
    monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(tmp_path / "identity"))

    printed = token(sys.executable, str(EXAMPLES / "entra.py"))

    assert printed.value == "t0ken"
    assert is_in(printed, timedelta(hours=1))
    ((path, _, form),) = provider.asked
    assert path == "/tenant/oauth2/v2.0/token"
    assert form["client_id"] == ["client"]
    assert form["client_assertion"] == ["a-signed-identity"]
    assert form["scope"] == ["https://ossrdbms-aad.database.windows.net/.default"]


def test_google(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GCE_METADATA_HOST", provider.address)

    printed = token(sys.executable, str(EXAMPLES / "google.py"))

    assert printed.value == "t0ken"
    assert is_in(printed, timedelta(hours=1))
    assert provider.asked == [
        ("/computeMetadata/v1/instance/service-accounts/default/token", "Google", {}),
    ]


def test_a_provider_that_refuses(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    provider.status = 403
    monkeypatch.setenv("GCE_METADATA_HOST", provider.address)

    with pytest.raises(TokenFailed, match="it failed with exit code 1"):
        token(sys.executable, str(EXAMPLES / "google.py"))


def test_rds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With an `aws` that prints its arguments; those of RDS have such characters."""
    aws = tmp_path / "aws"
    aws.write_text('#!/bin/sh\nprintf "%s?X-Amz-Signature=a%%2Fb&Action=connect" "$*"\n')
    aws.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    printed = token(str(EXAMPLES / "rds"))

    asked = "rds generate-db-auth-token --hostname db.example --port 5432 --username operator"
    assert printed.value == f"{asked}?X-Amz-Signature=a%2Fb&Action=connect"
    assert is_in(printed, timedelta(minutes=15))


def test_rds_without_an_identity(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    aws = tmp_path / "aws"
    aws.write_text("#!/bin/sh\nexit 255\n")
    aws.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    with pytest.raises(TokenFailed, match="it failed with exit code 255"):
        token(str(EXAMPLES / "rds"))
