"""Where the operator may connect to databases."""

from __future__ import annotations

import socket
from ipaddress import ip_address
from typing import Any

import pytest

from django_task_operator.tasktable import DatabaseURL, Networks, TaskTable, errors
from django_task_operator.tasktable.networks import addresses_of

CHARTS = Networks.parse([], ["127.0.0.0/8", "::1/128", "169.254.0.0/16", "fe80::/10", "10.96.0.1"])


@pytest.mark.parametrize(
    ("networks", "address", "permitted"),
    [
        (Networks(), "127.0.0.1", True),
        (CHARTS, "10.0.0.7", True),
        (CHARTS, "fd00::7", True),
        (CHARTS, "127.0.0.2", False),
        (CHARTS, "::1", False),
        (CHARTS, "::ffff:127.0.0.1", False),
        (CHARTS, "169.254.169.254", False),
        (CHARTS, "fe80::1", False),
        (CHARTS, "10.96.0.1", False),
        (CHARTS, "10.96.0.2", True),
        (Networks.parse(["10.0.0.0/8"], []), "10.1.2.3", True),
        (Networks.parse(["10.0.0.0/8"], []), "192.168.0.1", False),
        (Networks.parse(["10.0.0.0/8"], []), "fd00::7", False),
        (Networks.parse(["10.0.0.0/8"], ["10.96.0.0/12"]), "10.96.0.2", False),
    ],
)
def test_which_addresses_are_permitted(networks: Networks, address: str, permitted: bool) -> None:
    assert networks.permit(ip_address(address)) is permitted


@pytest.mark.parametrize("network", ["", "10.0.0.0/33", "10.0.0.1/8", "db.shop.svc", "postgres://u:p@h/n"])
def test_what_is_no_network_is_refused(network: str) -> None:
    with pytest.raises(ValueError, match=r"network|host bits"):
        Networks.parse([network], [])


def test_a_name_without_an_address_is_left_to_the_driver() -> None:
    assert addresses_of(f"nothing.invalid,{'x' * 300},127.0.0.1") == [ip_address("127.0.0.1")]


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("postgres://u:p@127.0.0.1:1/n", errors.HostIsLoopback),
        ("postgres://u:p@localhost:1/n", errors.HostIsLoopback),
        ("mysql://u:p@127.0.0.1:1/n", errors.HostIsLoopback),
        ("mysql://u:p@169.254.169.254:80/n", errors.HostNotAllowed),
        ("postgres://u:p@[fe80::1]:80/n", errors.HostNotAllowed),
        ("postgres://u:p@10.0.0.7,169.254.169.254:80/n", errors.HostNotAllowed),
        ("postgres://u:p@db.shop.svc/n?hostaddr=169.254.169.254", errors.HostNotAllowed),
        # How else an address may be written.
        ("postgres://u:p@2852039166:80/n", errors.HostNotAllowed),
        ("mysql://u:p@0xa9fea9fe:80/n", errors.HostNotAllowed),
    ],
)
def test_nothing_is_sent_to_a_host_that_is_not_allowed(
    url: str, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def connect(*_: Any) -> None:
        pytest.fail("it connects")

    monkeypatch.setattr(socket.socket, "connect", connect)
    table = TaskTable(DatabaseURL.parse(url), networks=CHARTS, connect_timeout=2)
    with pytest.raises(error):
        table.sample({})
