"""The serving certificate: creating, checking and loading it. Pure.

Each certificate has its own authority, which signs only this one and whose key is discarded immediately: no
stored key can sign another. So a new certificate has a new authority, and the API server is told to trust
both for a while.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# For API servers whose clock is behind.
SKEW = timedelta(minutes=5)
CERTIFICATE_KEY, PRIVATE_KEY_KEY, AUTHORITY_KEY = "tls.crt", "tls.key", "ca.crt"


class BadCertificate(ValueError):
    """The stored data is not a certificate with its key and authority; the message says what is wrong."""


@dataclass(frozen=True, slots=True)
class ServingCertificate:
    """PEM texts: a certificate, its private key, and the authority that signed it."""

    certificate: str
    key: str = field(repr=False)
    authority: str

    @classmethod
    def make(cls, names: Sequence[str], validity: timedelta, now: datetime) -> Self:
        """Create one for a server with any of these ``names``."""
        authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        issuer = _name(f"{names[0]} authority {now:%Y-%m-%dT%H:%M:%SZ}")
        signed_by = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
        authority_id = x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key())
        alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
        authority = (
            _builder(issuer, issuer, authority_key.public_key(), now, validity)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(key_cert_sign=True), critical=True)
            .add_extension(authority_id, critical=False)
            .sign(authority_key, hashes.SHA256())
        )
        certificate = (
            _builder(_name(names[0]), issuer, key.public_key(), now, validity)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(key_cert_sign=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(alternatives, critical=False)
            .add_extension(signed_by, critical=False)
            .sign(authority_key, hashes.SHA256())
        )
        encoding, clear = serialization.Encoding.PEM, serialization.NoEncryption()
        return cls(
            certificate.public_bytes(encoding).decode(),
            key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, clear).decode(),
            authority.public_bytes(encoding).decode(),
        )

    @classmethod
    def read(cls, data: Mapping[str, str]) -> Self:
        """Read one from the keys of a Secret, or from files of the same names.

        Raises:
            BadCertificate: a key is missing or has unsuitable content.
        """
        for name in (CERTIFICATE_KEY, PRIVATE_KEY_KEY, AUTHORITY_KEY):
            if not data.get(name, "").strip():
                raise BadCertificate(f"{name} is missing")
        found = cls(data[CERTIFICATE_KEY], data[PRIVATE_KEY_KEY], data[AUTHORITY_KEY])
        try:
            key = serialization.load_pem_private_key(found.key.encode(), password=None)
            x509.load_pem_x509_certificates(found.authority.encode())
            if found._leaf.public_key() != key.public_key():
                raise BadCertificate(f"{PRIVATE_KEY_KEY} is not the key of {CERTIFICATE_KEY}")
        except (TypeError, ValueError) as error:
            raise BadCertificate(str(error)) from None
        return found

    @property
    def data(self) -> dict[str, str]:
        """The data that ``read`` accepts."""
        return {
            CERTIFICATE_KEY: self.certificate,
            PRIVATE_KEY_KEY: self.key,
            AUTHORITY_KEY: self.authority,
        }

    @property
    def expires(self) -> datetime:
        """When it expires."""
        return self._leaf.not_valid_after_utc

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the server that it is for."""
        alternatives = self._leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return tuple(alternatives.get_values_for_type(x509.DNSName))

    def renewal(self, names: Sequence[str], validity: timedelta) -> datetime:
        """Return when to create the next one: after two thirds of its validity.

        That is immediately (a time long past) if it is for another server, or is valid for longer than the
        current setting.
        """
        leaf = self._leaf
        lasts = leaf.not_valid_after_utc - leaf.not_valid_before_utc - SKEW
        if not set(names) <= set(self.names) or lasts > validity + timedelta(seconds=1):
            return datetime.min.replace(tzinfo=UTC)
        return self.expires - validity / 3

    @property
    def _leaf(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate(self.certificate.encode())


def _name(common_name: str) -> x509.Name:
    # No more than 64 characters are allowed.
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[-64:])])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, validity: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + validity)
    )


def _usage(*, key_cert_sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not key_cert_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
