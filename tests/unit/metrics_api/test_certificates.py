"""The life of the serving certificate."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from django_task_operator.metrics_api.certificates import BadCertificate, ServingCertificate

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = ("operator-metrics-api.ops.svc",)
DAYS_90 = timedelta(days=90)


def made(validity: timedelta = DAYS_90) -> ServingCertificate:
    return ServingCertificate.make(NAMES, validity, NOW)


def test_what_is_kept_is_read_again() -> None:
    certificate = made()
    assert ServingCertificate.read(certificate.data) == certificate
    assert certificate.names == NAMES
    assert certificate.expires == NOW + DAYS_90
    assert "PRIVATE KEY" not in repr(certificate)


def test_each_has_an_authority_of_its_own_whose_key_is_nowhere() -> None:
    first, second = made(), made()
    assert first.authority != second.authority
    for certificate in (first, second):
        assert "".join(certificate.data.values()).count("PRIVATE KEY-----") == 2, "one key, begin and end"
        (authority,) = x509.load_pem_x509_certificates(certificate.authority.encode())
        (leaf,) = x509.load_pem_x509_certificates(certificate.certificate.encode())
        leaf.verify_directly_issued_by(authority)


def test_it_is_renewed_after_two_thirds() -> None:
    assert made().renewal(NAMES, DAYS_90) == NOW + timedelta(days=60)


@pytest.mark.parametrize(
    ("names", "validity"),
    [(("other.ops.svc",), DAYS_90), ((*NAMES, "other.ops.svc"), DAYS_90), (NAMES, timedelta(days=89))],
    ids=["another name", "one name more", "shorter by now"],
)
def test_it_is_renewed_at_once_where_it_does_not_fit(names: tuple[str, ...], validity: timedelta) -> None:
    assert made().renewal(names, validity) < NOW


def test_one_that_was_made_for_a_shorter_time_is_renewed_early() -> None:
    assert made(timedelta(days=10)).renewal(NAMES, DAYS_90) < NOW


def test_a_long_name_fits_into_the_certificate() -> None:
    names = ("a" * 60 + "." + "b" * 63 + ".svc",)
    assert ServingCertificate.make(names, DAYS_90, NOW).names == names


@pytest.mark.parametrize("missing", ["tls.crt", "tls.key", "ca.crt"])
@pytest.mark.parametrize("value", [None, "", "nonsense"])
def test_what_is_no_certificate_is_refused(missing: str, value: str | None) -> None:
    data = {**made().data}
    if value is None:
        del data[missing]
    else:
        data[missing] = value
    with pytest.raises(BadCertificate):
        ServingCertificate.read(data)


def test_a_key_of_another_certificate_is_refused() -> None:
    with pytest.raises(BadCertificate, match="is not the key of"):
        ServingCertificate.read({**made().data, "tls.key": made().key})
