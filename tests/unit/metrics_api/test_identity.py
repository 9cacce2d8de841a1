"""As which user a request is treated."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from multidict import CIMultiDict

from django_task_operator.metrics_api.certificates import ServingCertificate
from django_task_operator.metrics_api.identity import BadConfiguration, FrontProxy, NotAuthenticated, User

AUTHORITY = ServingCertificate.make(("front-proxy-ca",), timedelta(days=1), datetime.now(UTC)).authority
DATA = {
    "requestheader-client-ca-file": AUTHORITY,
    "requestheader-allowed-names": '["front-proxy-client"]',
    "requestheader-username-headers": '["X-Remote-User"]',
    "requestheader-group-headers": '["X-Remote-Group"]',
    "requestheader-extra-headers-prefix": '["X-Remote-Extra-"]',
}
HEADERS = CIMultiDict({"x-remote-user": "ada"})


def certificate(name: str) -> dict[str, Any]:
    return {"subject": ((("organizationName", "x"),), (("commonName", name),))}


def test_the_user_is_what_the_headers_say() -> None:
    headers = CIMultiDict(
        [
            ("X-Remote-User", "ada"),
            ("X-Remote-Group", "b"),
            ("X-Remote-Group", "a"),
            ("X-Remote-Extra-Scopes", "x"),
            ("X-Remote-Extra-Scopes", "y"),
            ("X-Remote-Extra-Example.org%2Fteam", "z"),
            ("X-Other", "no"),
        ]
    )
    user = FrontProxy.of(DATA).user(certificate("front-proxy-client"), headers)
    assert user == User(
        "ada",
        ("a", "b", "system:authenticated"),
        extra=(("example.org/team", ("z",)), ("scopes", ("x", "y"))),
    )


def test_other_names_of_headers() -> None:
    front_proxy = FrontProxy.of(
        {
            **DATA,
            "requestheader-username-headers": '["X-A", "X-B"]',
            "requestheader-uid-headers": '["X-Uid"]',
        }
    )
    user = front_proxy.user(
        certificate("front-proxy-client"), CIMultiDict({"X-B": "bob", "X-Uid": "7", "X-Remote-User": "ada"})
    )
    assert (user.name, user.uid) == ("bob", "7")


@pytest.mark.parametrize(
    ("peer", "headers", "why"),
    [
        (None, HEADERS, "no client certificate"),
        ({}, HEADERS, "no client certificate"),
        (certificate("somebody"), HEADERS, "of 'somebody', which is no front proxy"),
        ({"subject": ()}, HEADERS, "which is no front proxy"),
        (certificate("front-proxy-client"), CIMultiDict({"X-Remote-Group": "a"}), "does not say who"),
        (certificate("front-proxy-client"), CIMultiDict({"X-Remote-User": ""}), "does not say who"),
    ],
)
def test_nobody_else_is_believed(peer: Any, headers: CIMultiDict[str], why: str) -> None:
    with pytest.raises(NotAuthenticated, match=why):
        FrontProxy.of(DATA).user(peer, headers)


def test_without_allowed_names_every_name_is_good() -> None:
    front_proxy = FrontProxy.of({**DATA, "requestheader-allowed-names": "[]"})
    assert front_proxy.user(certificate("whoever"), HEADERS).name == "ada"


@pytest.mark.parametrize(
    "data",
    [
        {},
        {key: value for key, value in DATA.items() if key != "requestheader-client-ca-file"},
        {**DATA, "requestheader-username-headers": "[]"},
        {**DATA, "requestheader-allowed-names": "front-proxy-client"},
        {**DATA, "requestheader-allowed-names": "1"},
        {**DATA, "requestheader-client-ca-file": "-----BEGIN CERTIFICATE-----"},
    ],
)
def test_a_cluster_without_aggregation_is_not_trusted(data: dict[str, str]) -> None:
    with pytest.raises(BadConfiguration):
        FrontProxy.of(data)
