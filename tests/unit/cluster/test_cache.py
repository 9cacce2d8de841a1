"""The cache that a watch fills."""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from tests.unit.fakes import refusal
from tests.unit.simulation import simulated

from django_task_operator import telemetry
from django_task_operator.cluster.api_errors import API_ERRORS, describe, has_status
from django_task_operator.cluster.cache import Watched
from django_task_operator.cluster.kube import CLUSTER_ROLES, DEPLOYMENTS, PODS, Kind
from django_task_operator.observed.objects import owner_of
from django_task_operator.spec import Key

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

EMAILS = Key(namespace="shop", name="emails")


def pod(
    name: str, version: int, *, value: str = "", namespace: str = "shop", worker: str = "emails"
) -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "namespace": namespace,
            "resourceVersion": str(version),
            "labels": {"djangotasks.dev/worker": worker},
        },
        "value": value,
    }


class Script:
    """A server with prepared lists and watches; an exception breaks the watch."""

    def __init__(self, **watches: list[list[Any]]) -> None:
        self.watches = watches
        self.asked: list[tuple[str, str]] = []

    async def list_and_watch(
        self, path: str, label_selector: str, *, field_selector: str
    ) -> AsyncIterator[tuple[str, Any]]:
        assert not field_selector
        self.asked.append((path, label_selector))
        waiting = self.watches[path.split("/")[4] if "namespaces" in path else "all"]
        if not waiting:
            await asyncio.sleep(1_000_000)
        for step in waiting.pop(0):
            if isinstance(step, BaseException):
                raise step
            yield ("LIST", {"items": step}) if isinstance(step, list) else step
            await asyncio.sleep(1)


class Cache:
    """A cache, and the workers that it has reported as changed."""

    def __init__(self, *namespaces: str, **watches: list[list[Any]]) -> None:
        self.woken: list[Key] = []
        self.server = Script(**watches)
        self.watched: Watched[str] = Watched(
            self.server,  # type: ignore[arg-type]
            PODS,
            "a=b",
            namespaces=namespaces,
            digest=lambda manifest: manifest["value"],
            owner=owner_of,
            changed=self.woken.append,
        )

    def news(self) -> list[str]:
        told, self.woken[:] = [key.name for key in self.woken], []
        return told


def test_put_and_drop() -> None:
    cache = Cache()
    cache.watched.put(pod("a", 1, value="x"))
    cache.watched.put(pod("b", 2, value="y"))
    assert sorted(cache.watched.of(EMAILS)) == ["x", "y"]
    assert cache.news() == ["emails", "emails"]

    cache.watched.drop(pod("a", 3))
    assert cache.watched.of(EMAILS) == ["y"]
    assert cache.news() == ["emails"]
    cache.watched.drop(pod("a", 3))
    assert cache.news() == []


def test_the_last_state_of_what_is_gone_is_known_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_task_operator.cluster.cache.MOST_DEPARTED", 2)
    cache = Cache()
    cache.watched.put(pod("a", 1, value="x"))
    assert cache.watched.departed(EMAILS, "a") is None
    for version, name in enumerate("abca", start=2):
        cache.watched.drop(pod(name, version, value=f"last of {name}"))
    assert [cache.watched.departed(EMAILS, name) for name in "abc"] == ["last of a", None, "last of c"]


def test_what_does_not_matter_wakes_nobody() -> None:
    cache = Cache()
    cache.watched.put(pod("a", 1, value="x"))
    cache.news()

    cache.watched.put(pod("a", 2, value="x"))
    assert cache.news() == []


def test_an_older_state_is_not_taken_back() -> None:
    cache = Cache()
    cache.watched.put(pod("a", 10, value="new"))
    cache.news()

    cache.watched.put(pod("a", 9, value="old"))
    cache.watched.put(pod("a", 10, value="the same version"))
    assert cache.watched.of(EMAILS) == ["new"]
    assert cache.news() == []
    cache.watched.put(pod("a", 11, value="newer"))
    assert cache.watched.of(EMAILS) == ["newer"]


def test_versions_are_numbers() -> None:
    cache = Cache()
    cache.watched.put(pod("a", 9, value="old"))
    cache.watched.put(pod("a", 10, value="new"))

    assert cache.watched.of(EMAILS) == ["new"]


def test_a_late_answer_brings_nothing_back() -> None:
    cache = Cache()
    cache.watched.put(pod("a", 10, value="x"))
    cache.watched.drop(pod("a", 12, value="x"))
    cache.news()

    cache.watched.put(pod("a", 11, value="the answer to a write"))
    assert cache.watched.of(EMAILS) == []
    assert cache.news() == []
    cache.watched.put(pod("a", 13, value="made again"))
    assert cache.watched.of(EMAILS) == ["made again"]


def test_nobody_knows_of_a_stranger() -> None:
    assert Cache().watched.of(EMAILS) == []


@simulated
async def test_a_watch_feeds_it() -> None:
    first = [pod("a", 1, value="x"), pod("b", 2, value="y")]
    cache = Cache(
        all=[[first, ("MODIFIED", pod("a", 3, value="z")), ("DELETED", pod("b", 4)), ("ADDED", pod("c", 5))]]
    )
    running = asyncio.create_task(cache.watched.run())
    assert not cache.watched.synced.is_set()
    await cache.watched.synced.wait()
    assert sorted(cache.watched.of(EMAILS)) == ["x", "y"]
    await asyncio.sleep(5)
    assert sorted(cache.watched.of(EMAILS)) == ["", "z"]
    assert cache.server.asked == [("/api/v1/pods", "a=b")] * 2
    running.cancel()


@simulated
async def test_what_went_while_nobody_watched_is_gone_after_the_next_list() -> None:
    first = [pod("a", 1, value="x"), pod("b", 2, value="y"), pod("m", 3, worker="mails")]
    cache = Cache(all=[[first, refusal(410)], [[pod("b", 2, value="y")]]])
    running = asyncio.create_task(cache.watched.run())
    await asyncio.sleep(0.5)
    cache.news()
    await asyncio.sleep(3)

    assert cache.watched.of(EMAILS) == ["y"]
    assert cache.watched.of(Key(namespace="shop", name="mails")) == []
    assert sorted(cache.news()) == ["emails", "mails"]
    running.cancel()


@simulated
async def test_a_broken_watch_is_taken_up_again_ever_more_slowly(caplog: pytest.LogCaptureFixture) -> None:
    away = aiohttp.ClientConnectionError("away")
    cache = Cache(all=[*[[away]] * 7, [[pod("a", 1, value="x")]]])
    running = asyncio.create_task(cache.watched.run())
    await cache.watched.synced.wait()

    # 0.5, 1, 2, and then 4 each
    assert asyncio.get_running_loop().time() == pytest.approx(19.5)
    assert [record.message for record in caplog.records] == ["watch broken"] * 7
    running.cancel()


@simulated
async def test_an_api_server_that_is_back_wakes_every_worker() -> None:
    first = [pod("a", 1, value="x")]
    cache = Cache(all=[[first, aiohttp.ClientConnectionError("away")], [first]])
    running = asyncio.create_task(cache.watched.run())
    await asyncio.sleep(0.5)
    assert cache.news() == ["emails"]
    await asyncio.sleep(3)

    assert cache.news() == ["emails"]
    running.cancel()


@simulated
async def test_it_is_synced_when_every_namespace_is() -> None:
    cache = Cache(
        "shop",
        "web",
        shop=[[[pod("a", 1, value="x")]]],
        web=[[TimeoutError()], [[pod("a", 2, value="y", namespace="web")]]],
    )
    running = asyncio.create_task(cache.watched.run())
    await asyncio.sleep(0.1)
    assert cache.watched.of(EMAILS) == ["x"]
    assert not cache.watched.synced.is_set()
    await cache.watched.synced.wait()
    assert cache.watched.of(EMAILS) == ["x"], "another namespace's list says nothing of it"
    assert cache.watched.of(Key(namespace="web", name="emails")) == ["y"]
    running.cancel()


@simulated
async def test_it_is_current_while_every_watch_is() -> None:
    cache = Cache(all=[[[pod("a", 1, value="x")], TimeoutError()], [TimeoutError()], [[]]])
    running = asyncio.create_task(cache.watched.run())
    assert not cache.watched.is_current("shop")
    await asyncio.sleep(0.5)
    assert cache.watched.is_current("shop")
    await asyncio.sleep(1)
    assert not cache.watched.is_current("shop")
    assert cache.watched.of(EMAILS) == ["x"], "what was known"
    await asyncio.sleep(60)
    assert cache.watched.is_current("shop")
    assert cache.watched.of(EMAILS) == []
    running.cancel()


@simulated
async def test_a_namespace_that_is_refused_keeps_no_other_waiting(caplog: pytest.LogCaptureFixture) -> None:
    no = [[refusal(403)] for _ in range(10)]
    cache = Cache(
        "shop", "web", shop=[[[pod("a", 1, value="x")]]], web=[*no, [[pod("b", 2, namespace="web")]]]
    )
    running = asyncio.create_task(cache.watched.run())
    await asyncio.sleep(0.4)
    assert not cache.watched.synced.is_set(), "an API server that has just started says no for a moment"
    await cache.watched.synced.wait()
    assert cache.watched.is_current("shop")
    assert not cache.watched.is_current("web")
    assert not cache.watched.listed["web"].is_set()
    (said,) = (each for each in caplog.records if each.message == "namespace not served")
    assert said.namespace == "web"  # type: ignore[attr-defined]
    assert [watching(each) for each in ("shop", "web")] == [1, 0]

    await asyncio.sleep(600)
    assert cache.watched.is_current("web")
    assert watching("web") == 1
    running.cancel()


@simulated
async def test_a_namespace_that_is_refused_is_asked_for_seldom() -> None:
    cache = Cache("shop", "web", shop=[[[]]], web=[[refusal(404)] for _ in range(1000)])
    running = asyncio.create_task(cache.watched.run())
    await asyncio.sleep(3600)
    asked = [path for path, _ in cache.server.asked if "web" in path]
    assert len(asked) < 2 * 60 + 10
    running.cancel()


@simulated
async def test_rights_that_are_taken_away_later_leave_what_is_known(caplog: pytest.LogCaptureFixture) -> None:
    cache = Cache(
        "shop", shop=[[[pod("a", 1, value="x")], refusal(403)], *([refusal(403)] for _ in range(9))]
    )
    running = asyncio.create_task(cache.watched.run())
    await asyncio.sleep(60)
    assert cache.watched.synced.is_set()
    assert not cache.watched.is_current("shop")
    assert cache.watched.of(EMAILS) == ["x"]
    assert "namespace not served" in caplog.messages
    running.cancel()


def watching(namespace: str) -> float | None:
    labels = {"namespace": namespace, "resource": "pods"}
    return telemetry.REGISTRY.get_sample_value("django_task_operator_watching", labels)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (refusal(422, "spec.x: Required value"), "spec.x: Required value"),
        (refusal(404), "NotFound"),
        (TimeoutError(), "no answer in time"),
        (aiohttp.ClientError("cannot connect"), "cannot connect"),
        (ConnectionResetError(), "ConnectionResetError"),
    ],
)
def test_errors_in_words(error: BaseException, said: str) -> None:
    assert isinstance(error, API_ERRORS)
    assert describe(error) == said


@pytest.mark.parametrize("body", [None, "", "<html>", "[]", json.dumps({"message": None})])
def test_an_answer_that_is_no_status_object(body: str | None) -> None:
    error = refusal(502)
    error.body, error.reason = body, "Bad Gateway"

    assert describe(error) == "Bad Gateway"


@pytest.mark.parametrize(
    ("kind", "namespace", "name", "path"),
    [
        (PODS, None, None, "/api/v1/pods"),
        (PODS, "shop", None, "/api/v1/namespaces/shop/pods"),
        (PODS, "shop", "a", "/api/v1/namespaces/shop/pods/a"),
        (DEPLOYMENTS, None, None, "/apis/apps/v1/deployments"),
        (DEPLOYMENTS, "shop", None, "/apis/apps/v1/namespaces/shop/deployments"),
        (CLUSTER_ROLES, None, "a", "/apis/rbac.authorization.k8s.io/v1/clusterroles/a"),
    ],
)
def test_paths(kind: Kind, namespace: str | None, name: str | None, path: str) -> None:
    assert kind.path(namespace, name) == path
    if namespace and name:
        assert kind.path_of(Key(namespace=namespace, name=name)) == path


def test_statuses_of_errors() -> None:
    assert has_status(refusal(404), HTTPStatus.CONFLICT, HTTPStatus.NOT_FOUND)
    assert not has_status(refusal(404), HTTPStatus.CONFLICT)
    assert not has_status(TimeoutError(), HTTPStatus.NOT_FOUND)
