"""A watch on a single object of the API."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django_task_operator.cluster.cache import BROKEN, EXPIRED, REFUSED, keep_watching

if TYPE_CHECKING:
    from collections.abc import Callable

    from django_task_operator.cluster.kube import Kind, Kube
    from django_task_operator.spec import Manifest


async def follow(
    kube: Kube, kind: Kind, namespace: str | None, name: str, seen: Callable[[Manifest | None], None]
) -> None:
    """Report one object now and whenever it changes, None while it does not exist.

    Runs until cancelled.
    """
    async for event, found in keep_watching(
        kube, kind.path(namespace), field_selector=f"metadata.name={name}"
    ):
        if event == "LIST":
            seen(next(iter(found["items"]), None))
        elif event not in {BROKEN, REFUSED, EXPIRED}:
            seen(None if event == "DELETED" else found)
