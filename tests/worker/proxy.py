"""A TCP proxy that fails like networks: it drops, delays and resets, at any byte of a request or answer.

It knows no protocol. What a client sends until the server speaks is a request, and what comes until the
client speaks again is its answer: PostgreSQL's and MySQL's drivers both wait for an answer before they go on.
"""

from __future__ import annotations

import contextlib
import enum
import math
import selectors
import socket
import struct
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable

CHUNK = 65536
# How soon a connection that nothing passes through notices that the proxy is closed or told to be silent.
TICK_S = 0.1
# The answer is never this long: the fault comes with the first byte that the other side says.
TO_THE_END = 2**31


class How(enum.Enum):
    """What happens to a connection."""

    RESET = "both sides are told at once"
    CLOSE = "both sides read to the end of what passed, and then that there is no more"
    SILENCE = "nothing passes any more and neither side is told: packets are dropped"
    HALF_OPEN = "the server is told, the client is not"
    DELAY = "what follows comes late"


class Part(enum.Enum):
    """The half of a turn."""

    REQUEST = 0
    ANSWER = 1


@dataclass(frozen=True, order=True)
class Place:
    """A point of a connection: ``after`` so many bytes of one part of its ``turn``.

    Turn 1 begins with the first byte of the client. A server that speaks first does so in turn 0.
    """

    turn: int
    part: int
    after: int


@dataclass(frozen=True)
class Fault:
    """What happens to a connection, and where."""

    how: How
    turn: int
    part: Part = Part.REQUEST
    after: int = 0
    seconds: float = 0.0
    """How long a delay takes, and a silence at the server's side; 0: for ever."""

    @property
    def place(self) -> Place:
        return Place(self.turn, self.part.value, self.after)


def honest(_number: int) -> None:
    """No fault, for every connection."""


class Proxy:
    """Passes connections on to a local port.

    ``faults`` is called for each connection, with its number, and again after a delay.
    """

    def __init__(self, port: int, faults: Callable[[int], Fault | None] = honest) -> None:
        self.faults = faults
        self.fired: list[Fault] = []
        self.closed = False
        self._behind = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._passages: list[_Passage] = []
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    @property
    def connections(self) -> int:
        """How many connections there were."""
        return len(self._passages)

    def silence(self) -> int:
        """Let nothing more pass on the existing connections; return how many they are."""
        living = [passage for passage in self._passages if passage.is_alive()]
        for passage in living:
            passage.silent = True
        return len(living)

    def reset(self) -> None:
        """Cut the existing connections."""
        for passage in self._passages:
            passage.doomed = True

    def close(self) -> None:
        self.closed = True
        # Wakes accept() up, which close() alone does not.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._acceptor.join()
        for passage in self._passages:
            passage.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while not self.closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._behind)
            except OSError:
                _reset(client)
                continue
            passage = _Passage(self, len(self._passages), client, server)
            self._passages.append(passage)
            passage.start()


class _Passage(threading.Thread):
    """One connection."""

    def __init__(self, proxy: Proxy, number: int, client: socket.socket, server: socket.socket) -> None:
        super().__init__(daemon=True)
        self.silent = False
        self.doomed = False
        self._proxy = proxy
        self._client = client
        self._server = server
        self._number = number
        self._fault = proxy.faults(number)
        self._place = Place(0, Part.ANSWER.value, 0)
        for each in (client, server):
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def run(self) -> None:
        with (
            self._client,
            self._server,
            selectors.DefaultSelector() as selector,
            contextlib.suppress(OSError),
        ):
            selector.register(self._client, selectors.EVENT_READ, Part.REQUEST)
            selector.register(self._server, selectors.EVENT_READ, Part.ANSWER)
            while not self._proxy.closed:
                ready = selector.select(TICK_S)
                if self.doomed:
                    self._reset_both()
                    return
                if self.silent:
                    self._swallow(0.0)
                    return
                for key, _ in ready:
                    if not self._pass_on(key.data):
                        return

    def _pass_on(self, part: Part) -> bool:
        """Pass on what one side sends, as far as the fault allows; False ends the connection."""
        source, target = self._client, self._server
        if part is Part.ANSWER:
            source, target = target, source
        said = source.recv(CHUNK)
        if not said:
            # Drivers never close one half alone.
            return False
        begins = self._place
        if part.value != begins.part:
            begins = Place(begins.turn + (part is Part.REQUEST), part.value, 0)
        self._place = Place(begins.turn, begins.part, begins.after + len(said))
        fault = self._fault
        # A fault that is due at the very end of what was said waits for more: the other side may answer.
        if fault is None or fault.place >= self._place:
            target.sendall(said)
            return True
        passes = max(0, fault.after - begins.after) if fault.place > begins else 0
        target.sendall(said[:passes])
        self._fault = None
        self._proxy.fired.append(fault)
        return self._strike(fault, target, said[passes:])

    def _strike(self, fault: Fault, target: socket.socket, rest: bytes) -> bool:
        match fault.how:
            case How.RESET:
                self._reset_both()
            case How.CLOSE:
                pass
            case How.SILENCE:
                self._swallow(fault.seconds)
            case How.HALF_OPEN:
                _reset(self._server)
                self._swallow(0.0)
            case How.DELAY:
                threading.Event().wait(fault.seconds)
                target.sendall(rest)
                # What comes after it is counted from here.
                self._place = Place(0, self._place.part, 0)
                self._fault = self._proxy.faults(self._number)
                return True
        return False

    def _reset_both(self) -> None:
        _reset(self._client)
        _reset(self._server)

    def _swallow(self, seconds: float) -> None:
        """Keep both sides open and read what the client sends, until the proxy is closed.

        The server is not told when the client is gone: in a network that drops packets it would not be. After
        ``seconds``, if any, its own system notices.
        """
        self._client.settimeout(TICK_S)
        until = time.monotonic() + seconds if seconds else math.inf
        gone = False
        while not self._proxy.closed and not self.doomed:
            try:
                gone = gone or not self._client.recv(CHUNK)
            except TimeoutError:
                pass
            except OSError:
                gone = True
            if gone:
                threading.Event().wait(TICK_S)
            if time.monotonic() > until:
                until = math.inf
                _reset(self._server)


def _reset(end: socket.socket) -> None:
    # https://man7.org/linux/man-pages/man7/socket.7.html: with SO_LINGER of no seconds, close sends RST.
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    end.close()
