"""The key for hashing database URLs: random, made once, and stored in one of the operator's own Secrets."""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import secrets
from http import HTTPStatus
from typing import TYPE_CHECKING

from django_task_operator.cluster.api_errors import API_ERRORS, describe, has_status
from django_task_operator.cluster.kube import SECRETS

if TYPE_CHECKING:
    from collections.abc import Callable

    from django_task_operator.cluster.kube import Kube
    from django_task_operator.spec import Key, Manifest

log = logging.getLogger(__name__)

# The key in the Secret.
DATA_KEY = "key"
# The length of a SHA-256 hash: a longer key does not strengthen an HMAC (RFC 2104, section 3).
KEY_BYTES = 32
# If the key is not available, this is when the next attempt is made.
RETRY_SECONDS = 30.0


class HashKey:
    """Finds or makes the key when it is first needed; all replicas of the operator get the same one."""

    def __init__(self, kube: Kube, place: Key | None, clock: Callable[[], float]) -> None:
        """Store it in the Secret ``place``; without one, there is no key. ``clock`` returns seconds."""
        self._kube = kube
        self._place = place
        self._clock = clock
        self._lock = asyncio.Lock()
        self._key: bytes | None = None
        self._tried_at = float("-inf")

    async def get(self) -> bytes | None:
        """Return the key; None if there is none, or if it is not available now: the log says why."""
        if self._key or self._place is None:
            return self._key
        async with self._lock:
            if self._key is None and self._clock() - self._tried_at >= RETRY_SECONDS:
                self._key = await self._found_or_made(self._place)
                self._tried_at = self._clock()
        return self._key

    async def _found_or_made(self, place: Key) -> bytes | None:
        where = {"secret": str(place)}
        try:
            secret = await self._kube.get_object(SECRETS, place) or await self._make(place)
        except API_ERRORS as error:
            log.warning("hash key not available", extra={**where, "error": describe(error)})
            return None
        key = _read(secret)
        if key is None:
            log.error("hash key damaged", extra={**where, "advice": "delete this Secret"})
        return key

    async def _make(self, place: Key) -> Manifest:
        data = {DATA_KEY: base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()}
        try:
            return await self._kube.create_secret(place, data)
        except API_ERRORS as error:
            # Another replica was quicker: its key counts.
            found = (
                await self._kube.get_object(SECRETS, place)
                if has_status(error, HTTPStatus.CONFLICT)
                else None
            )
            if found is None:
                raise
            return found


def _read(secret: Manifest) -> bytes | None:
    try:
        key = base64.b64decode((secret.get("data") or {}).get(DATA_KEY, ""), validate=True)
    except binascii.Error:
        return None
    return key if len(key) >= KEY_BYTES else None
