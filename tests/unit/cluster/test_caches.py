"""Which kinds are watched."""

from __future__ import annotations

from tests.unit.fakes import FakeKube

from django_task_operator.cluster.caches import Caches


def test_nothing_is_watched_twice() -> None:
    caches = Caches(FakeKube(), (), lambda _key: None)  # type: ignore[arg-type]
    watches = [(cache.kind, cache.selector) for cache in caches.all]
    assert len(watches) == len(set(watches))
    assert {id(cache) for cache in caches.children.values()} <= {id(cache) for cache in caches.all}
