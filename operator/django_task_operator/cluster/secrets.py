"""Reads the database URLs from Secrets: rarely, and once for all workers that refer to the same one."""

from __future__ import annotations

import asyncio
import base64
import binascii
import codecs
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING

from django_task_operator.cluster.api_errors import API_ERRORS, describe, has_status
from django_task_operator.errors import (
    ApiUnavailable,
    SecretForbidden,
    SecretKeyMissing,
    SecretMissing,
    SecretValueInvalid,
    WorkerError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from django_task_operator.cluster.kube import Kube
    from django_task_operator.spec import SecretKeyRef

# A rotated Secret takes effect within a minute, and sooner if the old value no longer works.
MAX_AGE_SECONDS = 60.0
MAX_AGE_IN_TROUBLE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Named:
    """The fields of the spec that name a Secret and its key: an error says what to change."""

    secret: str
    key: str


@dataclass(slots=True)
class _Cached:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    read_at: float = float("-inf")
    data: dict[str, str] | None = field(default=None, repr=False)
    # The error that keeps it from being read, for workers that name it in that field of the spec.
    error: Callable[[str], WorkerError] | None = None


class Secrets:
    """A cache in front of ``get secret``, the operator's only right to Secrets."""

    def __init__(self, kube: Kube, clock: Callable[[], float]) -> None:
        """Read through ``kube``; ``clock`` returns monotonic seconds."""
        self._kube = kube
        self._clock = clock
        self._cache: dict[tuple[str, str], _Cached] = {}

    async def read(self, namespace: str, ref: SecretKeyRef, named: Named, *, in_trouble: bool) -> str:
        """Read one key.

        Args:
            namespace: the worker's.
            ref: the Secret and its key.
            named: the fields of the spec that name them.
            in_trouble: whether the value last read does not work, so that it is read again sooner.

        Raises:
            SecretMissing, SecretKeyMissing, SecretValueInvalid, SecretForbidden: the user must fix it.
            ApiUnavailable: it cannot be read now, and never was.
        """
        cached = self._cache.setdefault((namespace, ref.name), _Cached())
        async with cached.lock:
            trouble = in_trouble or cached.error is not None or ref.key not in (cached.data or {})
            max_age = MAX_AGE_IN_TROUBLE_SECONDS if trouble else MAX_AGE_SECONDS
            if self._clock() - cached.read_at >= max_age:
                await self._refresh(cached, namespace, ref.name)
                cached.read_at = self._clock()
        if cached.error:
            raise cached.error(named.secret)
        encoded = (cached.data or {}).get(ref.key)
        if encoded is None:
            raise SecretKeyMissing(secret=ref.name, key=ref.key, field=named.key)
        value = base64.b64decode(encoded)
        if problem := _problem(value):
            raise SecretValueInvalid(secret=ref.name, key=ref.key, problem=problem)
        return value.decode()

    async def _refresh(self, cached: _Cached, namespace: str, name: str) -> None:
        try:
            secret = await self._kube.get_secret(namespace, name)
        except API_ERRORS as error:
            if has_status(error, HTTPStatus.NOT_FOUND):
                cached.data = None
                cached.error = lambda field: SecretMissing(secret=name, namespace=namespace, field=field)
            elif has_status(error, HTTPStatus.FORBIDDEN):
                cached.data = None
                cached.error = lambda _: SecretForbidden(secret=name, namespace=namespace)
            elif cached.data is None:
                # What was read before stays good while the API server is away.
                problem = describe(error)
                cached.error = lambda _: ApiUnavailable(action="reading of the Secret", problem=problem)
        else:
            cached.data, cached.error = secret.get("data") or {}, None


def _problem(value: bytes) -> str | None:
    """Why a Secret's value is no text that the pods could use either, without quoting any of it."""
    if not value.strip():
        return "it is empty"
    if value.startswith(codecs.BOM_UTF8):
        return "it begins with a byte order mark: store it as UTF-8 without one"
    if value.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in value:
        return "it seems to be encoded as UTF-16, as PowerShell and Notepad do: store it as UTF-8"
    try:
        value.decode()
    except UnicodeDecodeError:
        return "it is no text in UTF-8"
    if _is_encoded_url(value):
        return (
            "it is in base64 once more: a manifest has base64 in data and the text itself in stringData, "
            "and kubectl create secret encodes by itself"
        )
    return None


def _is_encoded_url(value: bytes) -> bool:
    compact = b"".join(value.split()).rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
    try:
        return b"://" in base64.b64decode(compact + b"=" * (-len(compact) % 4), validate=True)[:64]
    except binascii.Error:
        return False
