"""Passwords that are tokens, as cloud providers' identities have: a command prints them.

Whoever installs the operator decides which command is asked for which database. A token speaks for the
operator's own identity, so it is sent only to hosts, and for namespaces, that a rule names.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from django_task_operator.spec import DatabaseEngine
from django_task_operator.tasktable import commands
from django_task_operator.tasktable.errors import TokenFailed, TokenRefused

if TYPE_CHECKING:
    from collections.abc import Iterable

    from django_task_operator.tasktable.url import DatabaseURL

# In seconds. It delays no other database, but must end before a query counts as hung.
TIMEOUT_SECONDS = 10.0
# A token is not used shortly before it expires, when the server's clock may be ahead.
MARGIN = timedelta(seconds=60)
EVERY_NAMESPACE = "*"

_Text = Annotated[str, Field(min_length=1)]


class TokenRule(BaseModel):
    """For which databases a command gets the password.

    ``hosts`` are whole names, because anybody can have a server in a cloud provider's domain.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    namespaces: Annotated[tuple[_Text, ...], Field(min_length=1)]
    hosts: Annotated[tuple[_Text, ...], Field(min_length=1)]
    command: Annotated[tuple[_Text, ...], Field(min_length=1)]

    def covers(self, namespace: str, host: str) -> bool:
        """Whether workers of a namespace may have a token for a host."""
        named = {EVERY_NAMESPACE, namespace} & set(self.namespaces)
        return bool(named) and host.lower() in {one.lower() for one in self.hosts}


@dataclass(frozen=True, slots=True)
class TokenSource:
    """What prints the token of one database: a command, and what it is told in its environment."""

    command: tuple[str, ...]
    host: str
    port: str
    user: str
    name: str

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables that say for which database a token is needed."""
        return {
            "DATABASE_HOST": self.host,
            "DATABASE_PORT": self.port,
            "DATABASE_USER": self.user,
            "DATABASE_NAME": self.name,
        }


@dataclass(frozen=True, slots=True)
class Token:
    """A password, and until when it can be used; None is for one connection only."""

    value: str = field(repr=False)
    expires: datetime | None

    def is_fresh(self, now: datetime) -> bool:
        """Whether a connection can still be opened with it."""
        return self.expires is not None and now < self.expires - MARGIN


@dataclass(frozen=True, slots=True)
class TokenRules:
    """All rules; the first that covers a database counts."""

    rules: tuple[TokenRule, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the rules from YAML or JSON.

        Raises:
            ValueError: it is not a list of rules; the message names the place.
        """
        try:
            rules = TypeAdapter(tuple[TokenRule, ...]).validate_python(tuple(yaml.safe_load(text) or ()))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise ValueError(f"rule {place}: {first['msg']}") from None
        except (yaml.YAMLError, TypeError):
            raise ValueError("it is no list of rules in YAML") from None
        return cls(rules)

    def applied(self, namespace: str, url: DatabaseURL) -> DatabaseURL:
        """Return a URL with the source of its token, if it has no password and a rule covers it.

        Raises:
            TokenRefused: the token might be read by somebody other than the database.
        """
        rule = next((rule for rule in self.rules if rule.covers(namespace, url.host)), None)
        if rule is None or url.password:
            return url
        if url.engine.name is not DatabaseEngine.POSTGRESQL:
            raise TokenRefused(problem="tokens are for PostgreSQL only")
        mode = url.options.get("sslmode", "verify-full" if url.root_cert else "")
        if mode != "verify-full":
            raise TokenRefused(
                problem="the server must prove its name: add sslmode=verify-full, and either "
                "sslrootcert=system or spec.database.sslRootCertSecretRef"
            )
        if "hostaddr" in url.options:
            raise TokenRefused(problem="hostaddr leads to another address than the host's: leave it out")
        return url.with_token(
            TokenSource(rule.command, url.host.lower(), url.port or "5432", url.user, url.name)
        )


def request(source: TokenSource, timeout: float = TIMEOUT_SECONDS, known: Iterable[str] = ()) -> Token:
    """Run the command, for at most ``timeout`` seconds, and read what it prints.

    The error quotes the last line of its error output, without what looks like a credential and without
    ``known``: the database's URL, and the token before.

    Raises:
        TokenFailed: it prints no token.
    """
    environment = {**os.environ, **source.environment}
    problem, printed = "", b""
    try:
        printed = commands.run(source.command, environment, timeout, known)
    except commands.CommandFailed as failed:
        problem = str(failed).rstrip(".")
    if problem:
        # Outside of the handler, so that nothing is chained.
        raise TokenFailed(command=source.command[0], problem=f"it {problem}")
    return parse(printed, source.command[0])


def parse(printed: bytes, command: str) -> Token:
    """Read a token as kubeconfig's plugins print it: an ExecCredential of client.authentication.k8s.io.

    Raises:
        TokenFailed: it is none; the message does not quote it.
    """
    try:
        credential = json.loads(printed)
    except ValueError:
        credential = None
    if not isinstance(credential, dict) or credential.get("kind") != "ExecCredential":
        raise TokenFailed(command=command, problem="it does not print an ExecCredential in JSON")
    status = credential.get("status")
    status = status if isinstance(status, dict) else {}
    token = status.get("token")
    if not isinstance(token, str) or not token:
        raise TokenFailed(command=command, problem="its ExecCredential has no status.token")
    return Token(token, _expiry(status.get("expirationTimestamp"), command))


def _expiry(timestamp: object, command: str) -> datetime | None:
    if timestamp is None:
        return None
    with suppress(ValueError, TypeError):
        expires = datetime.fromisoformat(timestamp)  # type: ignore[arg-type]
        if expires.tzinfo:
            return expires.astimezone(UTC)
    problem = "its status.expirationTimestamp is no time such as 2026-01-31T12:00:00Z"
    raise TokenFailed(command=command, problem=problem)
