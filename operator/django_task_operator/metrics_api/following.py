"""One object of the API, followed by a watch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django_task_operator.cluster.cache import BROKEN, EXPIRED, keep_watching

if TYPE_CHECKING:
    from collections.abc import Callable

    from django_task_operator.cluster.kube import Kube
    from django_task_operator.spec import Manifest


async def follow(kube: Kube, path: str, name: str, seen: Callable[[Manifest | None], None]) -> None:
    """Tell of the object ``name`` of a collection now and whenever it changes, None while it is missing.

    Runs until cancelled.
    """
    async for kind, found in keep_watching(kube, path, field_selector=f"metadata.name={name}"):
        if kind == "LIST":
            seen(next(iter(found["items"]), None))
        elif kind not in {BROKEN, EXPIRED}:
            seen(None if kind == "DELETED" else found)
