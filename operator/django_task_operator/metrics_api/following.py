"""One object of the API, followed by a watch."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from kubernetes.aio.client.exceptions import ApiException

from django_task_operator.kube import API_ERRORS, Kube, describe
from django_task_operator.watched import GONE, LONGEST_WATCH_DELAY

if TYPE_CHECKING:
    from collections.abc import Callable

    from django_task_operator.spec import Manifest

log = logging.getLogger(__name__)


async def follow(kube: Kube, path: str, name: str, seen: Callable[[Manifest | None], None]) -> None:
    """Tell of the object ``name`` of a collection now and whenever it changes, None while it is missing.

    Runs until cancelled; a broken watch is taken up again after a short delay.
    """
    delay = 0.0
    while True:
        try:
            async for kind, found in kube.list_and_watch(path, field_selector=f"metadata.name={name}"):
                delay = 0.0
                if kind == "LIST":
                    seen(next(iter(found["items"]), None))
                else:
                    seen(None if kind == "DELETED" else found)
        except API_ERRORS as error:
            # 410 is the ordinary end of a watch that fell behind.
            if not isinstance(error, ApiException) or error.status != GONE:
                delay = min(LONGEST_WATCH_DELAY, delay * 2 or 0.5)
                log.warning(
                    "watch broken",
                    extra={"path": f"{path}/{name}", "error": describe(error), "retry_in": delay},
                )
        await asyncio.sleep(delay)
