from __future__ import annotations

import selectors
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from django_db_worker import health
from django_db_worker.health import Answer, HealthServer

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def serving(pages: dict[str, health.Page]) -> Iterator[int]:
    """The server in a separate thread, driven as its owner does it."""
    with selectors.DefaultSelector() as selector:
        server = HealthServer(0, pages, selector)
        ended = threading.Event()

        def turn() -> None:
            while not ended.is_set():
                for key, _ in selector.select(0.02):
                    key.data()
                server.drop_silent()

        thread = threading.Thread(target=turn)
        thread.start()
        try:
            yield server.port
        finally:
            ended.set()
            thread.join()
            server.close()


def ask(port: int, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(request)
        received = b""
        while part := connection.recv(65536):
            received += part
        return received


def test_pages_and_their_status() -> None:
    large = "x" * 2_000_000
    pages: dict[str, health.Page] = {
        "/healthz": lambda: Answer(503, "stuck\n"),
        "/metrics": lambda: Answer(200, large),
    }
    with serving(pages) as port:
        answer = ask(port, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert answer.endswith(b"\r\n\r\nstuck\n")
        assert ask(port, b"GET /metrics?a=b HTTP/1.1\r\n\r\n").endswith(b"\r\n\r\n" + large.encode())
        assert ask(port, b"HEAD /metrics HTTP/1.1\r\n\r\n").endswith(b"\r\n\r\n")
        assert b" 404 " in ask(port, b"GET / HTTP/1.1\r\n\r\n")
        assert b" 405 " in ask(port, b"POST /healthz HTTP/1.1\r\n\r\n")


def test_a_silent_client_holds_up_nobody_and_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "PATIENCE_SECONDS", 0.3)
    with (
        serving({"/": lambda: Answer(200, "ok")}) as port,
        socket.create_connection(("127.0.0.1", port), timeout=5) as silent,
    ):
        silent.sendall(b"GET / HT")
        assert ask(port, b"GET / HTTP/1.1\r\n\r\n").endswith(b"ok")
        assert silent.recv(1) == b""


def test_a_request_without_end_is_dropped() -> None:
    with serving({"/": lambda: Answer(200, "ok")}) as port:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as endless:
            endless.sendall(b"x" * (health.LARGEST_REQUEST + 1))
            try:
                received = endless.recv(1)
            except ConnectionResetError:
                received = b""
            assert received == b""
        assert ask(port, b"GET / HTTP/1.1\r\n\r\n").endswith(b"ok")


def test_a_port_that_is_taken_is_an_error() -> None:
    with serving({}) as port, selectors.DefaultSelector() as selector, pytest.raises(OSError, match="in use"):
        HealthServer(port, {}, selector)
