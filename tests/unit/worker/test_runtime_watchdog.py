"""How a statement without an answer is ended, on real sockets."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from django_db_worker import watchdog
from django_db_worker.watchdog import Watchdog, cut, has_hung_up, keep_alive, socket_of
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE_S = 20.0


class Driver:
    """A driver's connection, with the attributes that the watchdog uses."""

    def __init__(self, end: socket.socket) -> None:
        self.end = end
        self.thread = threading.current_thread()
        self.asked_to_cancel = threading.Event()

    def fileno(self) -> int:
        if threading.current_thread() is not self.thread:
            # As mysqlclient 2.3 does.
            raise RuntimeError("already in use from another thread")
        return self.end.fileno()

    def cancel_safe(self, *, timeout: float) -> None:
        assert timeout > 0
        self.asked_to_cancel.set()


class PyMySQL:
    def __init__(self, end: socket.socket) -> None:
        self._sock = end


class Wrapper:
    """Django's connection, with the attributes that the watchdog uses."""

    def __init__(self, driver: Driver | None) -> None:
        self.connection: Driver | PyMySQL | None = driver


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname(), PATIENCE_S) as client,
    ):
        server, _ = listener.accept()
        with server:
            yield client, server


def kernel(end: socket.socket) -> dict[str, int]:
    return {
        "keepalives": end.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
        "keepalives_idle": end.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
        "keepalives_interval": end.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL),
        "keepalives_count": end.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT),
        "tcp_user_timeout": end.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
    }


OURS = {
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 15_000,
}


def test_the_kernel_watches(ends: tuple[socket.socket, socket.socket]) -> None:
    keep_alive(Driver(ends[0]), {})
    assert kernel(ends[0]) == OURS


@pytest.mark.parametrize("name", [name for name in OURS if name != "keepalives"])
def test_what_the_project_says_of_it_counts(ends: tuple[socket.socket, socket.socket], name: str) -> None:
    before = kernel(ends[0])
    keep_alive(Driver(ends[0]), {name: "99"})
    assert kernel(ends[0]) == OURS | {name: before[name]}


@pytest.mark.parametrize("no", [0, "0"])
def test_a_project_may_not_want_it(ends: tuple[socket.socket, socket.socket], no: object) -> None:
    before = kernel(ends[0])
    keep_alive(Driver(ends[0]), {"keepalives": no})
    assert kernel(ends[0]) == before


def test_a_system_that_has_less(
    ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = kernel(ends[0])
    with monkeypatch.context() as macos:
        macos.delattr("socket.TCP_KEEPIDLE")
        macos.delattr("socket.TCP_USER_TIMEOUT")
        macos.delattr("select.POLLRDHUP")
        keep_alive(Driver(ends[0]), {})
        assert not has_hung_up(Driver(ends[0]))
    left = ("keepalives_idle", "tcp_user_timeout")
    assert kernel(ends[0]) == OURS | {name: before[name] for name in left}


def test_a_socket_that_has_no_such_thing() -> None:
    one, other = socket.socketpair()
    with one, other:
        keep_alive(Driver(one), {})
        assert not has_hung_up(Driver(one))
        other.close()
        assert has_hung_up(Driver(one))


@pytest.mark.parametrize("raw", [None, object()])
def test_no_socket_at_all(raw: Any) -> None:
    assert socket_of(raw) is None
    assert not has_hung_up(raw)
    keep_alive(raw, {})
    cut(socket_of(raw))


def test_who_hangs_up_is_noticed_before_anything_is_sent(ends: tuple[socket.socket, socket.socket]) -> None:
    client, server = ends
    server.sendall(b"FATAL: why")
    assert not has_hung_up(Driver(client)), "data is no end"
    server.close()
    deadline = time.monotonic() + PATIENCE_S
    while not has_hung_up(Driver(client)):
        assert time.monotonic() < deadline
    assert client.recv(100) == b"FATAL: why"


def test_a_statement_without_an_answer_is_ended(
    ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "TICK_SECONDS", 0.05)
    driver = Driver(ends[0])
    dog, wrapper = Watchdog(), Wrapper(driver)
    for _ in range(2):
        with dog.limit(wrapper, PATIENCE_S, PATIENCE_S):  # type: ignore[arg-type]
            assert not driver.asked_to_cancel.is_set()
    with dog.limit(wrapper, 0.1, 0.5):  # type: ignore[arg-type]
        # First, the server is asked to cancel.
        assert driver.asked_to_cancel.wait(PATIENCE_S)
        assert ends[0].recv(1) == b"", "cut"
    assert ends[1].recv(1) == b"", "the other end is told"


def test_signals_are_for_other_threads(ends: tuple[socket.socket, socket.socket]) -> None:
    with Watchdog().limit(Wrapper(Driver(ends[0])), PATIENCE_S, PATIENCE_S):  # type: ignore[arg-type]
        thread = [each for each in threading.enumerate() if each.name == "watchdog"][-1]
        status = Path(f"/proc/self/task/{thread.native_id}/status")
        # Bit 14 is SIGTERM, the fifteenth signal.
        eventually(lambda: _blocked(status.read_text()) >> 14 & 1, "blocked")
    assert (
        not _blocked(Path(f"/proc/self/task/{threading.main_thread().native_id}/status").read_text()) >> 14
        & 1
    )


def _blocked(status: str) -> int:
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("SigBlk:")), 16)


def test_a_connection_that_is_still_being_made(
    ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "TICK_SECONDS", 0.05)
    wrapper = Wrapper(None)
    with Watchdog().limit(wrapper, 0.0, 0.0):  # type: ignore[arg-type]
        # Django has the connection before it is set up. With PyMySQL, every thread can see its socket.
        wrapper.connection = PyMySQL(ends[0])
        assert ends[0].recv(1) == b""


def test_another_threads_statement_is_left_alone(
    ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "TICK_SECONDS", 0.05)
    dog = Watchdog()
    one, other = socket.socketpair()
    ended = threading.Event()

    def impatient() -> None:
        # Made here: it is this thread's.
        with dog.limit(Wrapper(Driver(ends[0])), 0.0, 0.0):  # type: ignore[arg-type]
            ends[0].recv(1)
        ended.set()

    with one, other, dog.limit(Wrapper(Driver(one)), PATIENCE_S, PATIENCE_S):  # type: ignore[arg-type]
        threading.Thread(target=impatient, daemon=True).start()
        assert ended.wait(PATIENCE_S)
        assert not has_hung_up(Driver(one))
