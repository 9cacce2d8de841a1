"""Who sends a request, according to the API server's front proxy: pure.

The API server puts the authenticated user into headers, and proves with a client certificate that it is the
API server ("Configure the Aggregation Layer" in the Kubernetes documentation).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from cryptography import x509

if TYPE_CHECKING:
    from collections.abc import Mapping

    from multidict import MultiMapping

AUTHENTICATED = "system:authenticated"
MASTERS = "system:masters"
_END = "-----END CERTIFICATE-----"


class NotAuthenticated(Exception):
    """The request is not authenticated by the cluster's front proxy; the message says why."""


class BadConfiguration(ValueError):
    """The ConfigMap does not say whom to trust."""


@dataclass(frozen=True, slots=True)
class User:
    """The user that the API server has authenticated."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()


@dataclass(frozen=True, slots=True)
class FrontProxy:
    """How to recognize the cluster's front proxy, and in which headers it names the user.

    ``ca`` is PEM; without ``allowed_names`` every name is accepted.
    """

    ca: str
    allowed_names: tuple[str, ...]
    user_headers: tuple[str, ...]
    group_headers: tuple[str, ...]
    uid_headers: tuple[str, ...]
    extra_prefixes: tuple[str, ...]

    @classmethod
    def of(cls, data: Mapping[str, str]) -> FrontProxy:
        """Read the data of ConfigMap kube-system/extension-apiserver-authentication.

        Raises:
            BadConfiguration: the cluster has no aggregation layer, or does not describe it.
        """

        def names(key: str) -> tuple[str, ...]:
            return tuple(json.loads(data.get(key) or "[]"))

        try:
            found = cls(
                ca=data.get("requestheader-client-ca-file", ""),
                allowed_names=names("requestheader-allowed-names"),
                user_headers=names("requestheader-username-headers"),
                group_headers=names("requestheader-group-headers"),
                uid_headers=names("requestheader-uid-headers"),
                extra_prefixes=names("requestheader-extra-headers-prefix"),
            )
            if found.ca:
                x509.load_pem_x509_certificates(found.ca.encode())
        except (TypeError, ValueError) as error:
            raise BadConfiguration(str(error)) from None
        if not found.ca or not found.user_headers:
            raise BadConfiguration(
                "the API server has no request-header client CA: its aggregation layer is off"
            )
        return found

    @property
    def authorities(self) -> frozenset[str]:
        """Each certificate of ``ca``."""
        return frozenset(part.strip() for part in self.ca.split(_END) if part.strip())

    def user(self, certificate: Mapping[str, Any] | None, headers: MultiMapping[str]) -> User:
        """Return who sends the request; ``certificate`` is verified, and from ``SSLSocket.getpeercert``.

        Raises:
            NotAuthenticated: no certificate, one of another name, or no user.
        """
        if not certificate:
            raise NotAuthenticated("no client certificate of the API server's front proxy")
        subject = [pair for part in certificate.get("subject", ()) for pair in part]
        name = next((value for kind, value in subject if kind == "commonName"), "")
        if self.allowed_names and name not in self.allowed_names:
            raise NotAuthenticated(f"the client certificate is of {name!r}, which is no front proxy")
        user = next((headers[header] for header in self.user_headers if headers.get(header)), "")
        if not user:
            raise NotAuthenticated("the front proxy does not say who asks")
        groups = [group for header in self.group_headers for group in headers.getall(header, ())]
        uid = next((headers[header] for header in self.uid_headers if headers.get(header)), "")
        # The front proxy omits this group, and expects extension API servers to add it.
        return User(user, tuple(sorted({*groups, AUTHENTICATED})), uid, self._extra(headers))

    def _extra(self, headers: MultiMapping[str]) -> tuple[tuple[str, tuple[str, ...]], ...]:
        found: dict[str, list[str]] = {}
        for header, value in headers.items():
            for prefix in self.extra_prefixes:
                if header.lower().startswith(prefix.lower()):
                    found.setdefault(unquote(header[len(prefix) :].lower()), []).append(value)
        return tuple(sorted((key, tuple(values)) for key, values in found.items()))
