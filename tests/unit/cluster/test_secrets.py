"""Secrets are read rarely, once for all workers, and errors are explained."""

from __future__ import annotations

import asyncio
import base64

import pytest
from tests.unit.fakes import Clock, FakeKube, refusal

from django_task_operator.cluster.secrets import Named, Secrets
from django_task_operator.errors import (
    ApiUnavailable,
    SecretForbidden,
    SecretKeyMissing,
    SecretMissing,
    SecretValueInvalid,
)
from django_task_operator.spec import SecretKeyRef

REF = SecretKeyRef(name="shop-db", key="DATABASE_URL")
FIELD = Named("spec.database.urlSecretRef.name", "spec.database.urlSecretRef.key")


def secret(**values: str) -> dict[str, object]:
    data = {name: base64.b64encode(value.encode()).decode() for name, value in values.items()}
    return {"kind": "Secret", "metadata": {"name": "shop-db", "namespace": "shop"}, "data": data}


@pytest.fixture
def kube() -> FakeKube:
    kube = FakeKube()
    kube.create("secrets", secret(DATABASE_URL="postgres://one", OTHER="two"))
    return kube


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def secrets(kube: FakeKube, clock: Clock) -> Secrets:
    return Secrets(kube, clock)  # type: ignore[arg-type]


async def test_one_request_for_fifty_workers(kube: FakeKube, secrets: Secrets) -> None:
    values = await asyncio.gather(*(secrets.read("shop", REF, FIELD, in_trouble=False) for _ in range(50)))

    assert values == ["postgres://one"] * 50
    assert kube.requests == ["get secret"]
    assert (
        await secrets.read("shop", SecretKeyRef(name="shop-db", key="OTHER"), FIELD, in_trouble=False)
        == "two"
    )
    assert kube.requests == ["get secret"], "another key of the same Secret"


async def test_a_rotated_value_is_seen_within_a_minute(
    kube: FakeKube, secrets: Secrets, clock: Clock
) -> None:
    await secrets.read("shop", REF, FIELD, in_trouble=False)
    kube.edit("secrets", "shop", "shop-db", secret(DATABASE_URL="postgres://new"))

    clock.advance(59)
    assert await secrets.read("shop", REF, FIELD, in_trouble=False) == "postgres://one"
    clock.advance(1)
    assert await secrets.read("shop", REF, FIELD, in_trouble=False) == "postgres://new"
    assert len(kube.requests) == 2


async def test_in_trouble_it_is_seen_in_five_seconds(kube: FakeKube, secrets: Secrets, clock: Clock) -> None:
    await secrets.read("shop", REF, FIELD, in_trouble=False)
    kube.edit("secrets", "shop", "shop-db", secret(DATABASE_URL="postgres://new"))

    clock.advance(4)
    assert await secrets.read("shop", REF, FIELD, in_trouble=True) == "postgres://one"
    clock.advance(1)
    assert await secrets.read("shop", REF, FIELD, in_trouble=True) == "postgres://new"


async def test_a_missing_secret_is_looked_for_every_five_seconds(
    kube: FakeKube, secrets: Secrets, clock: Clock
) -> None:
    kube.delete("secrets", "shop", "shop-db")
    for _ in range(3):
        with pytest.raises(SecretMissing, match="shop-db does not exist in namespace shop"):
            await secrets.read("shop", REF, FIELD, in_trouble=False)
    assert len(kube.requests) == 1

    kube.create("secrets", secret(DATABASE_URL="postgres://back"))
    clock.advance(5)
    assert await secrets.read("shop", REF, FIELD, in_trouble=False) == "postgres://back"


async def test_a_missing_key(kube: FakeKube, secrets: Secrets, clock: Clock) -> None:
    wanted = SecretKeyRef(name="shop-db", key="url")
    with pytest.raises(SecretKeyMissing, match="shop-db has no key url"):
        await secrets.read("shop", wanted, FIELD, in_trouble=False)

    kube.edit("secrets", "shop", "shop-db", secret(url="postgres://three"))
    clock.advance(5)
    assert await secrets.read("shop", wanted, FIELD, in_trouble=False) == "postgres://three"


async def test_who_names_the_same_secret_in_another_field_is_told_of_that_field(
    kube: FakeKube, secrets: Secrets
) -> None:
    kube.delete("secrets", "shop", "shop-db")
    for named in (
        FIELD,
        Named("spec.database.connection.secretRef.name", "spec.database.connection.host.key"),
    ):
        with pytest.raises(SecretMissing, match=rf"change {named.secret}\.$"):
            await secrets.read("shop", REF, named, in_trouble=False)
    assert len(kube.requests) == 1


async def test_a_secret_without_data(kube: FakeKube, secrets: Secrets) -> None:
    kube.edit("secrets", "shop", "shop-db", {"data": None})

    with pytest.raises(SecretKeyMissing):
        await secrets.read("shop", REF, FIELD, in_trouble=False)


URL = b"postgres://u:hunter2@db/shop"


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (b"", "it is empty"),
        (b" \n", "it is empty"),
        (b"\xef\xbb\xbf" + URL, "it begins with a byte order mark"),
        (URL.decode().encode("utf-16"), "as UTF-16"),
        (URL.decode().encode("utf-16-le"), "as UTF-16"),
        (URL.decode().encode("utf-16-be"), "as UTF-16"),
        (b"postgres://u:hunter\xfc@db/shop", "it is no text in UTF-8"),
        (base64.b64encode(URL), "it is in base64 once more"),
        (base64.b64encode(URL) + b"\n", "it is in base64 once more"),
        (base64.b64encode(URL).rstrip(b"="), "it is in base64 once more"),
        (base64.encodebytes(URL * 3), "it is in base64 once more"),
        (base64.urlsafe_b64encode(URL + b"?a=\xff\xfe\xfd"), "it is in base64 once more"),
    ],
)
async def test_a_value_that_no_pod_could_use_is_named(
    kube: FakeKube, secrets: Secrets, clock: Clock, value: bytes, problem: str
) -> None:
    kube.edit("secrets", "shop", "shop-db", {"data": {"DATABASE_URL": base64.b64encode(value).decode()}})

    with pytest.raises(SecretValueInvalid) as raised:
        await secrets.read("shop", REF, FIELD, in_trouble=False)
    assert raised.value.message.startswith("The value of key DATABASE_URL in Secret shop-db cannot be used: ")
    assert problem in raised.value.message
    assert "hunter" not in raised.value.message
    assert raised.value.__context__ is None

    kube.edit("secrets", "shop", "shop-db", secret(DATABASE_URL="postgres://mended"))
    clock.advance(5)
    assert await secrets.read("shop", REF, FIELD, in_trouble=True) == "postgres://mended"


@pytest.mark.parametrize(
    "value", ["hunter2", "aGVsbG8=", "deadbeef", "deadbeef1", "a", "postgres://u:p@h/n\n", "é"]
)
async def test_other_values_are_given_as_they_are(kube: FakeKube, secrets: Secrets, value: str) -> None:
    kube.edit("secrets", "shop", "shop-db", secret(DATABASE_URL=value))

    assert await secrets.read("shop", REF, FIELD, in_trouble=False) == value


async def test_forbidden(kube: FakeKube, secrets: Secrets) -> None:
    kube.forbidden_secrets.add(("shop", "shop-db"))

    with pytest.raises(SecretForbidden, match="watchNamespaces"):
        await secrets.read("shop", REF, FIELD, in_trouble=False)


async def test_what_was_read_stays_good_while_the_api_is_away(
    kube: FakeKube, secrets: Secrets, clock: Clock
) -> None:
    await secrets.read("shop", REF, FIELD, in_trouble=False)
    kube.down = refusal(503)

    clock.advance(3600)
    assert await secrets.read("shop", REF, FIELD, in_trouble=True) == "postgres://one"


async def test_what_never_was_read_is_unavailable(kube: FakeKube, secrets: Secrets, clock: Clock) -> None:
    kube.down = TimeoutError()
    with pytest.raises(ApiUnavailable, match="no answer in time"):
        await secrets.read("shop", REF, FIELD, in_trouble=False)

    kube.down = None
    clock.advance(5)
    assert await secrets.read("shop", REF, FIELD, in_trouble=False) == "postgres://one"


async def test_namespaces_do_not_mix(kube: FakeKube, secrets: Secrets) -> None:
    await secrets.read("shop", REF, FIELD, in_trouble=False)

    with pytest.raises(SecretMissing):
        await secrets.read("other", REF, FIELD, in_trouble=False)


async def test_the_cache_does_not_show_what_it_holds(secrets: Secrets) -> None:
    await secrets.read("shop", REF, FIELD, in_trouble=False)

    assert base64.b64encode(b"postgres://one").decode() not in repr(secrets._cache)
