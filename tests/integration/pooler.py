"""A pooler, such as PgBouncer, that refuses or drops a new client's session settings."""

from __future__ import annotations

import contextlib
import re
import socket
import socketserver
import struct
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# SSLRequest and GSSENCRequest
ENCRYPTION = {80877103, 80877104}
REFUSAL = b"SFATAL\0VFATAL\0C08P01\0Munsupported startup parameter: options\0\0"


class Refusing(socketserver.ThreadingTCPServer):
    """Passes everything on to a PostgreSQL, except for clients with options."""

    daemon_threads = True

    def __init__(self, port: int, *, drops: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Client)
        self.behind = ("127.0.0.1", port)
        self.drops = drops
        self.refused = 0
        self.dropped = 0


class _Client(socketserver.BaseRequestHandler):
    server: Refusing

    def handle(self) -> None:
        message = self._message()
        while struct.unpack("!I", message[:4])[0] in ENCRYPTION:
            self.request.sendall(b"N")
            message = self._message()
        if self.server.drops:
            message, dropped = re.subn(rb"(?<=\0)options\0[^\0]*\0", b"", message)
            self.server.dropped += dropped
        if b"\0options\0" in message:
            self.server.refused += 1
            self.request.sendall(b"E" + struct.pack("!I", len(REFUSAL) + 4) + REFUSAL)
            return
        with socket.create_connection(self.server.behind) as behind:
            behind.sendall(struct.pack("!I", len(message) + 4) + message)
            back = threading.Thread(target=_pass_on, args=(behind, self.request), daemon=True)
            back.start()
            _pass_on(self.request, behind)
            back.join()

    def _message(self) -> bytes:
        (length,) = struct.unpack("!I", self.request.recv(4, socket.MSG_WAITALL))
        message: bytes = self.request.recv(length - 4, socket.MSG_WAITALL)
        return message


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while chunk := source.recv(65536):
            target.sendall(chunk)
        target.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def refusing(port: int, *, drops: bool = False) -> Iterator[Refusing]:
    """Between client and server; ``drops`` is PgBouncer's ``ignore_startup_parameters = options``."""
    with Refusing(port, drops=drops) as pooler:
        threading.Thread(target=pooler.serve_forever, daemon=True).start()
        yield pooler
        pooler.shutdown()
