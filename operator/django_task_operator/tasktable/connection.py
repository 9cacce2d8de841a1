"""The URL of a database that is given in parts: pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from django_task_operator.tasktable.engines import engine_of_name
from django_task_operator.tasktable.errors import InvalidConnection, InvalidURL
from django_task_operator.tasktable.url import DatabaseURL, is_ipv6

if TYPE_CHECKING:
    from collections.abc import Mapping

    from django_task_operator.spec import DatabaseEngine

_LAST_PORT = 65535
_HOST = re.compile(r"[\w.-]+(,[\w.-]+)*")


def url_of_parts(engine: DatabaseEngine, parts: Mapping[str, str], options: Mapping[str, str]) -> str:
    """Build the URL of a database. ``check_parts`` checks whether it can be used.

    Args:
        engine: which kind of server it is.
        parts: its host, name, user and password, and the port if it is not the engine's default.
        options: what follows the question mark.
    """
    port = f":{parts['port']}" if "port" in parts else ""
    hosts = [f"[{host}]" if is_ipv6(host) else host for host in parts["host"].split(",")]
    place = ",".join(host + port for host in hosts)
    user, password, name = (quote(parts[part], safe="") for part in ("user", "password", "name"))
    query = f"?{urlencode(options)}" if options else ""
    return f"{engine_of_name(engine).scheme}://{user}:{password}@{place}/{name}{query}"


def check_parts(parts: Mapping[str, str], url: str) -> None:
    """Make sure that ``url``, built from these parts, can be used, and that the pods can use the parts.

    Raises:
        InvalidConnection: a part is invalid; the message does not quote it.
    """
    for part, value in parts.items():
        if problem := _problem(part, value):
            raise InvalidConnection(part=part, problem=problem)
    try:
        DatabaseURL.parse(url)
    except InvalidURL as refused:
        # What the checks of the parts do not cover: several hosts for MySQL, and options that name files.
        problem = str(refused.details["problem"])
    else:
        return
    part = "host" if problem.startswith("it names several hosts") else "options"
    raise InvalidConnection(part=part, problem=problem)


def _problem(part: str, value: str) -> str | None:
    if not value:
        return "it is empty"
    if value != value.strip():
        return "it begins or ends in a space or a line break, which the pods take for a part of it"
    match part:
        case "host" if value.startswith("/"):
            return "it is the folder of a Unix socket, which the operator's pod does not have"
        case "host" if not (_HOST.fullmatch(value) or is_ipv6(value)):
            return "it is no host's name or address, which is all that may be there"
        case "port" if not (value.isascii() and value.isdigit() and 0 < int(value) <= _LAST_PORT):
            return f"it is no number between 1 and {_LAST_PORT}"
    return None
