"""Connections to the API server over which no request arrives late."""

from __future__ import annotations

import socket
import struct
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import aiohttp
from kubernetes.aio.client.rest import RESTClientObject

if TYPE_CHECKING:
    from collections.abc import Callable

# A check that must still succeed when a request has its connection and is about to be sent.
BEFORE_SENDING: ContextVar[Callable[[], None]] = ContextVar("BEFORE_SENDING")


class NotLeading(ConnectionError):
    """Another operator may be the leader, so this one does not write."""


class TooLateToSend(NotLeading):
    """Getting a connection took so long that this request may take effect too late. It was not sent."""


class _Connector(aiohttp.TCPConnector):
    """Checks again before a request is sent, because getting a connection may take time."""

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Any],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109
    ) -> Any:
        """Get a connection, as the base class does."""
        connection = await super().connect(req, traces, timeout)
        try:
            BEFORE_SENDING.get(lambda: None)()
        except TooLateToSend:
            # For the next one, which then need not wait for it.
            connection.release()
            raise
        except NotLeading:
            connection.close()
            raise
        return connection


class RestClient(RESTClientObject):
    """The client library's REST client, with these connections."""

    def _create_connector(self) -> aiohttp.TCPConnector:
        return _Connector(limit=self.maxsize, ssl=self.ssl_context, socket_factory=_abrupt_socket)


def _abrupt_socket(address: Any) -> socket.socket:
    """Create a socket that discards unsent data when it is closed or its process is killed.

    Otherwise the kernel would keep sending a dead process's data to an API server that was unreachable,
    even after another operator has become the leader.
    """
    family, kind, protocol, *_ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return made
