"""How kopf is run, with a fake in its place."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import aiohttp
import kopf
import pytest
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from django_task_operator.cluster import handlers


class Kopf:
    """Watches until it is stopped, but gives up in namespaces that it may not watch."""

    def __init__(self, *refused: str, error: Exception | None = None) -> None:
        self.refused = set(refused)
        self.error = error or PermissionError(*refused)
        self.asked: list[list[str]] = []
        self.stopped: list[list[str]] = []
        self.changed = threading.Condition()

    async def operator(
        self, *, namespaces: list[str], stop_flag: asyncio.Event, ready_flag: threading.Event, **_: Any
    ) -> None:
        with self.changed:
            self.asked.append(namespaces)
            self.changed.notify_all()
        ready_flag.set()
        if self.refused & set(namespaces or ["the cluster"]):
            raise self.error
        await stop_flag.wait()
        self.stopped.append(namespaces)

    async def asked_for(self, namespaces: list[str], times: int) -> None:
        """Wait until kopf has been asked for it."""

        def wait() -> bool:
            with self.changed:
                return self.changed.wait_for(lambda: self.asked.count(namespaces) >= times, timeout=60)

        assert await asyncio.to_thread(wait)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(handlers, "AGAIN_SECONDS", 0.01)

    def start(fake: Kopf, *namespaces: str) -> tuple[asyncio.Task[None], asyncio.Event]:
        monkeypatch.setattr(kopf, "operator", fake.operator)
        ready = asyncio.Event()
        watching = handlers.watch_workers(namespaces, lambda *_, **__: None, ready.set)
        return asyncio.ensure_future(watching), ready

    return start


async def test_a_namespace_that_cannot_be_watched_stops_no_other(
    run: Any, caplog: pytest.LogCaptureFixture
) -> None:
    fake = Kopf("gone")
    watching, ready = run(fake, "shop", "gone", "web")
    await asyncio.wait_for(ready.wait(), 60)
    await fake.asked_for(["gone"], 3)
    assert fake.asked.count(["shop"]) == fake.asked.count(["web"]) == 1
    assert not watching.done()
    assert {r.namespace for r in caplog.records if r.message == "workers not watched"} == {"gone"}  # type: ignore[attr-defined]

    fake.refused.clear()
    await fake.asked_for(["gone"], len(fake.asked) - 1)
    watching.cancel()
    await asyncio.wait([watching])
    assert sorted(fake.stopped) == [["gone"], ["shop"], ["web"]]


async def test_where_it_is_the_cluster_the_watch_ends(run: Any) -> None:
    watching, _ = run(Kopf("the cluster"))
    await asyncio.wait_for(watching, 60)


async def test_many_namespaces_are_watched_and_stop_at_once(run: Any) -> None:
    """More namespaces than the event loop's executor has threads."""
    names = [f"shop-{number}" for number in range(50)]
    fake = Kopf()
    watching, ready = run(fake, *names)
    await asyncio.wait_for(ready.wait(), 60)
    await fake.asked_for([names[-1]], 1)
    watching.cancel()
    await asyncio.wait([watching], timeout=60)
    assert sorted(fake.stopped) == sorted([name] for name in names)


def test_kopf_never_kills_the_process() -> None:
    assert handlers._settings().process.ultimate_exiting_timeout is None


def answered(status: int, message: str) -> Exception:
    """An error as kopf raises it for an answer of the API server."""
    error = Exception(message)
    request = aiohttp.RequestInfo(URL("http://api"), "GET", CIMultiDictProxy(CIMultiDict()))
    error.__cause__ = aiohttp.ClientResponseError(request, (), status=status)
    return error


@pytest.mark.parametrize(
    ("error", "has_traceback"), [(answered(404, "Not Found"), False), (ZeroDivisionError("a bug"), True)]
)
async def test_only_a_bug_is_logged_with_a_traceback(
    run: Any, caplog: pytest.LogCaptureFixture, error: Exception, has_traceback: bool
) -> None:
    watching, _ = run(Kopf("the cluster", error=error))
    await asyncio.wait_for(watching, 60)

    (record,) = [each for each in caplog.records if each.message == "watch of the workers ended"]
    assert record.error == str(error)  # type: ignore[attr-defined]
    assert bool(record.exc_info) is has_traceback
