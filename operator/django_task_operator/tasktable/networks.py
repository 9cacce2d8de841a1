"""Which addresses the operator may connect to on behalf of a worker.

Whoever may create a worker chooses a host and reads in a condition what became of the connection. Without
limits that would make the operator a port scanner for networks that its users cannot reach.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterable

type Network = IPv4Network | IPv6Network
type Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Networks:
    """What may be connected to: everything in ``allowed`` (empty: everything) that is not in ``refused``."""

    allowed: tuple[Network, ...] = ()
    refused: tuple[Network, ...] = ()

    @classmethod
    def parse(cls, allowed: Iterable[str], refused: Iterable[str]) -> Self:
        """Read networks in CIDR notation, or single addresses.

        Raises:
            ValueError: one of them is neither.
        """
        return cls(tuple(map(ip_network, allowed)), tuple(map(ip_network, refused)))

    def permit(self, address: Address) -> bool:
        """Whether the operator may connect to ``address``."""
        if isinstance(address, IPv6Address) and address.ipv4_mapped:
            # The kernel connects to the IPv4 address.
            address = address.ipv4_mapped
        if any(address in network for network in self.refused):
            return False
        return not self.allowed or any(address in network for network in self.allowed)


def addresses_of(hosts: str) -> list[Address]:
    """Resolve hosts, joined by commas as in a URL; a name that cannot be resolved has no address.

    The driver reports such a name better, and resolves all of them once more when it connects.
    """
    found: list[Address] = []
    for host in filter(None, hosts.split(",")):
        try:
            answers = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            continue
        found += [ip_address(str(place[0]).partition("%")[0]) for *_, place in answers]
    return found
