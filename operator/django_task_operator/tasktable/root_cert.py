"""Certificates of authorities, as stored in a Secret."""

from __future__ import annotations

import re
import ssl

from django_task_operator.tasktable.errors import InvalidRootCert

# RFC 7468, section 5.1. The operator ignores anything around them, such as comments or a key.
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----")


def root_cert(text: str, *, secret: str, key: str) -> str:
    """Return the certificates in ``text``, the value of a Secret's key, with which TLS can verify a server.

    Raises:
        InvalidRootCert: there is no certificate, or a damaged one.
    """
    found = "".join(f"{certificate}\n" for certificate in _CERTIFICATE.findall(text))
    try:
        # ssl takes an empty text for the system's own authorities.
        if found:
            ssl.create_default_context(cadata=found)
            return found
    except (ssl.SSLError, ValueError):
        pass
    raise InvalidRootCert(secret=secret, key=key)
