"""Answers probes and scrapes in the supervisor's only thread: it must not have others, because it forks."""

import selectors
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

LARGEST_REQUEST = 8192
PATIENCE_SECONDS = 5.0
MOST_CLIENTS = 100


@dataclass(frozen=True)
class Answer:
    """An HTTP status and a text body."""

    status: int
    text: str


REASONS = {200: "OK", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}
Page = Callable[[], Answer]


@dataclass(eq=False)
class _Client:
    connection: socket.socket
    since: float = field(default_factory=time.monotonic)
    received: bytes = b""
    answer: bytes = b""


class HealthServer:
    """A server for a few pages. It never blocks: the owner of the selector calls the data of ready keys."""

    def __init__(self, port: int, pages: dict[str, Page], selector: selectors.BaseSelector) -> None:
        """Listen on the port.

        Raises:
            OSError: the port is in use or not allowed.
        """
        self._pages = pages
        self._selector = selector
        self._listener = _listen(port)
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._clients: set[_Client] = set()

    @property
    def port(self) -> int:
        """The port, even if 0 was requested."""
        return int(self._listener.getsockname()[1])

    def close(self) -> None:
        """Close all connections and the port, also in a forked process. The selector is not changed."""
        for client in self._clients:
            client.connection.close()
        self._listener.close()

    def drop_silent(self) -> None:
        """Close connections that have been open for too long."""
        now = time.monotonic()
        for client in [each for each in self._clients if now - each.since > PATIENCE_SECONDS]:
            self._drop(client)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        if len(self._clients) >= MOST_CLIENTS:
            connection.close()
            return
        connection.setblocking(False)
        client = _Client(connection)
        self._clients.add(client)
        self._selector.register(connection, selectors.EVENT_READ, partial(self._serve, client))

    def _serve(self, client: _Client) -> None:
        try:
            if client.answer:
                client.answer = client.answer[client.connection.send(client.answer) :]
                if not client.answer:
                    self._drop(client)
                return
            received = client.connection.recv(LARGEST_REQUEST)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._drop(client)
            return
        client.received += received
        if not received or len(client.received) > LARGEST_REQUEST:
            self._drop(client)
        elif b"\r\n\r\n" in client.received:
            client.answer = render(self._answer(client.received))
            self._selector.modify(client.connection, selectors.EVENT_WRITE, partial(self._serve, client))

    def _answer(self, request: bytes) -> Answer:
        method, _, rest = request.split(b"\r\n", 1)[0].decode("latin-1").partition(" ")
        page = self._pages.get(rest.partition(" ")[0].partition("?")[0])
        if page is None:
            return Answer(404, f"There are {', '.join(self._pages)}.\n")
        if method not in {"GET", "HEAD"}:
            return Answer(405, "Use GET.\n")
        answer = page()
        return answer if method == "GET" else Answer(answer.status, "")

    def _drop(self, client: _Client) -> None:
        self._clients.discard(client)
        self._selector.unregister(client.connection)
        client.connection.close()


def render(answer: Answer) -> bytes:
    """Build a complete HTTP response, after which the connection is closed."""
    body = answer.text.encode()
    head = (
        f"HTTP/1.1 {answer.status} {REASONS[answer.status]}\r\n"
        "Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


def _listen(port: int) -> socket.socket:
    """Listen on all addresses, for both IP versions if the machine has both."""
    dual = socket.has_dualstack_ipv6()
    try:
        listener = socket.create_server(
            ("::" if dual else "0.0.0.0", port),  # noqa: S104
            family=socket.AF_INET6 if dual else socket.AF_INET,
            dualstack_ipv6=dual,
            backlog=MOST_CLIENTS,
        )
    except OSError:
        if not dual:
            raise
        listener = socket.create_server(("0.0.0.0", port), backlog=MOST_CLIENTS)  # noqa: S104
    listener.setblocking(False)
    return listener
