"""The key of the hashes: created once, the same for all operators, and not essential."""

from __future__ import annotations

import asyncio
import base64
import logging

import pytest
from tests.unit.fakes import Clock, FakeKube, refusal

from django_task_operator.cluster.hash_key import RETRY_SECONDS, HashKey
from django_task_operator.spec import Key

PLACE = Key(namespace="ops", name="hash-key")


@pytest.fixture
def kube() -> FakeKube:
    return FakeKube()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def hash_key_of(kube: FakeKube, clock: Clock, place: Key | None = PLACE) -> HashKey:
    return HashKey(kube, place, clock)  # type: ignore[arg-type]


def stored(kube: FakeKube) -> bytes:
    secret = kube.read("secrets", "ops", "hash-key")
    assert secret
    return base64.b64decode(secret["data"]["key"])


async def test_it_is_made_once_and_read_once(kube: FakeKube, clock: Clock) -> None:
    hash_key = hash_key_of(kube, clock)

    keys = await asyncio.gather(*(hash_key.get() for _ in range(50)))

    assert keys == [stored(kube)] * 50
    assert len(keys[0] or b"") == 32
    assert kube.requests == ["get secret", "create secret"]


async def test_the_next_operator_has_the_same(kube: FakeKube, clock: Clock) -> None:
    first = await hash_key_of(kube, clock).get()

    assert await hash_key_of(kube, clock).get() == first


async def test_two_replicas_that_start_together_have_the_same(kube: FakeKube, clock: Clock) -> None:
    keys = await asyncio.gather(*(hash_key_of(kube, clock).get() for _ in range(2)))

    assert kube.requests.count("create secret") == 2, "both found none"
    assert set(keys) == {stored(kube)}


async def test_two_clusters_have_different_ones(clock: Clock) -> None:
    assert await hash_key_of(FakeKube(), clock).get() != await hash_key_of(FakeKube(), clock).get()


async def test_without_a_place_there_is_none(kube: FakeKube, clock: Clock) -> None:
    assert await hash_key_of(kube, clock, None).get() is None
    assert kube.requests == []


@pytest.mark.parametrize("request_", ["get secret", "create secret"])
async def test_one_that_cannot_be_had_is_looked_for_later(
    kube: FakeKube, clock: Clock, caplog: pytest.LogCaptureFixture, request_: str
) -> None:
    kube.refuse[request_] = [refusal(403, "secrets is forbidden")]
    hash_key = hash_key_of(kube, clock)

    assert await hash_key.get() is None
    assert [record.message for record in caplog.records] == ["hash key not available"]
    clock.advance(RETRY_SECONDS - 1)
    asked = len(kube.requests)
    assert await hash_key.get() is None
    assert len(kube.requests) == asked, "not with every turn"
    clock.advance(1)
    assert await hash_key.get() == stored(kube)


@pytest.mark.parametrize("data", [None, {}, {"key": "c2hvcnQ="}, {"key": "no base64!"}, {"other": "a" * 44}])
async def test_one_that_is_damaged_is_left_alone_and_said(
    kube: FakeKube, clock: Clock, caplog: pytest.LogCaptureFixture, data: dict[str, str] | None
) -> None:
    kube.create("secrets", {"metadata": {"name": "hash-key", "namespace": "ops"}, "data": data})
    caplog.set_level(logging.ERROR)

    assert await hash_key_of(kube, clock).get() is None
    assert [record.message for record in caplog.records] == ["hash key damaged"]
    assert kube.requests == ["get secret"]
