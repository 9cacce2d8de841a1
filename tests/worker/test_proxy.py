"""The proxy itself, between a client and a server that answers each line in upper case."""

from __future__ import annotations

import contextlib
import queue
import socket
import socketserver
import threading
import time
from typing import TYPE_CHECKING

import pytest
from tests.waiting import eventually
from tests.worker.proxy import TO_THE_END, Fault, How, Part, Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

# For what must come.
PATIENCE_S = 20.0
# For what must not: nothing else is waited for meanwhile.
SILENT_S = 0.5


class Shouter(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Shout)
        self.heard: queue.Queue[bytes] = queue.Queue()
        """What was read, and how it ended."""


class Shout(socketserver.BaseRequestHandler):
    server: Shouter

    def handle(self) -> None:
        line = b""
        try:
            while chunk := self.request.recv(4096):
                line += chunk
                if line.endswith(b"\n"):
                    self.server.heard.put(line)
                    self.request.sendall(line.upper())
                    line = b""
            self.server.heard.put(line + b"<end>")
        except ConnectionResetError:
            self.server.heard.put(line + b"<reset>")


@pytest.fixture
def shouter() -> Iterator[Shouter]:
    with Shouter() as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.shutdown()


@contextlib.contextmanager
def between(shouter: Shouter, fault: Fault | None) -> Iterator[tuple[Proxy, socket.socket]]:
    with (
        Proxy(shouter.server_address[1], lambda _: fault) as proxy,
        socket.create_connection(("127.0.0.1", proxy.port), PATIENCE_S) as client,
    ):
        yield proxy, client


def ask(client: socket.socket, line: bytes) -> bytes:
    client.sendall(line)
    return client.recv(4096)


def heard(shouter: Shouter) -> bytes:
    return shouter.heard.get(timeout=PATIENCE_S)


def rest(client: socket.socket) -> bytes:
    """What is still received, and how the connection ends."""
    read = b""
    try:
        while chunk := client.recv(4096):
            read += chunk
    except ConnectionResetError:
        return read + b"<reset>"
    except TimeoutError:
        return read + b"<silence>"
    return read + b"<end>"


def test_without_a_fault_all_passes(shouter: Shouter) -> None:
    with between(shouter, None) as (proxy, client):
        long = b"x" * 1_000_000 + b"\n"
        client.sendall(long)
        read = b""
        while len(read) < len(long):
            read += client.recv(65536)
        assert read == long.upper()
        assert [ask(client, b"two\n"), ask(client, b"three\n")] == [b"TWO\n", b"THREE\n"]
        assert proxy.fired == []
        assert proxy.connections == 1


@pytest.mark.parametrize(
    ("part", "after", "server_hears", "client_reads"),
    [
        pytest.param(Part.REQUEST, 0, b"", b"", id="before the request"),
        pytest.param(Part.REQUEST, 2, b"tw", b"", id="within the request"),
        pytest.param(Part.REQUEST, TO_THE_END, b"two\n", b"", id="after the request"),
        pytest.param(Part.ANSWER, 0, b"two\n", b"", id="before the answer"),
        pytest.param(Part.ANSWER, 2, b"two\n", b"TW", id="within the answer"),
        pytest.param(Part.ANSWER, TO_THE_END, b"two\n", b"TWO\n", id="after the answer"),
    ],
)
@pytest.mark.parametrize("how", [How.CLOSE, How.SILENCE, How.HALF_OPEN])
def test_a_fault_comes_where_it_was_asked_for(
    shouter: Shouter, how: How, part: Part, after: int, server_hears: bytes, client_reads: bytes
) -> None:
    with between(shouter, Fault(how, 2, part, after)) as (proxy, client):
        assert ask(client, b"one\n") == b"ONE\n"
        assert heard(shouter) == b"one\n"
        client.sendall(b"two\n")
        if part is Part.ANSWER and after == TO_THE_END:
            # The whole answer: the fault comes with what the client says next.
            assert client.recv(4096) == client_reads
            client_reads = b""
            client.sendall(b"three\n")
        client.settimeout(PATIENCE_S if how is How.CLOSE else SILENT_S)
        assert rest(client) == client_reads + (b"<end>" if how is How.CLOSE else b"<silence>")
        eventually(lambda: proxy.fired, "the fault")
        if server_hears.endswith(b"\n"):
            assert heard(shouter) == server_hears
            server_hears = b""
        if how is How.SILENCE:
            client.close()
            with pytest.raises(queue.Empty):
                # Not even that the client is gone.
                shouter.heard.get(timeout=SILENT_S)
        else:
            end = b"<end>" if how is How.CLOSE else b"<reset>"
            assert heard(shouter) in {server_hears + end, server_hears + b"<reset>"}


def test_a_reset(shouter: Shouter) -> None:
    with between(shouter, Fault(How.RESET, 1)) as (_, client):
        client.sendall(b"one\n")
        assert rest(client) == b"<reset>"
        assert heard(shouter) == b"<reset>"


def test_a_delay(shouter: Shouter) -> None:
    with between(shouter, Fault(How.DELAY, 1, Part.ANSWER, 1, seconds=0.5)) as (_, client):
        begun = time.monotonic()
        for line in (b"one\n", b"two\n"):
            # The next fault is counted from there: it comes in the next turn.
            client.sendall(line)
            assert client.recv(1) == line[:1].upper()
            assert client.recv(4096) == line[1:].upper()
        assert time.monotonic() - begun >= 1.0


def test_a_silence_that_the_server_notices(shouter: Shouter) -> None:
    with between(shouter, Fault(How.SILENCE, 2, seconds=0.3)) as (_, client):
        assert ask(client, b"one\n") == b"ONE\n"
        assert heard(shouter) == b"one\n"
        client.sendall(b"two\n")
        assert heard(shouter) == b"<reset>"
        client.settimeout(SILENT_S)
        assert rest(client) == b"<silence>"


def test_silence_on_demand_leaves_later_connections_alone(shouter: Shouter) -> None:
    with between(shouter, None) as (proxy, client):
        assert ask(client, b"one\n") == b"ONE\n"
        assert proxy.silence() == 1
        client.settimeout(SILENT_S)
        with pytest.raises(TimeoutError):
            ask(client, b"two\n")
        with socket.create_connection(("127.0.0.1", proxy.port), PATIENCE_S) as another:
            assert ask(another, b"three\n") == b"THREE\n"
            proxy.reset()
            assert rest(another) == b"<reset>"


def test_a_server_that_is_not_there(shouter: Shouter) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    # Connecting or reading, whichever meets it.
    with (
        Proxy(port) as proxy,
        pytest.raises(ConnectionResetError),
        socket.create_connection(("127.0.0.1", proxy.port), PATIENCE_S) as client,
    ):
        client.recv(1)
