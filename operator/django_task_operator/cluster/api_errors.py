"""What errors of the API server mean."""

from __future__ import annotations

import json
from contextlib import suppress
from http import HTTPStatus
from typing import Any

import aiohttp
from kubernetes.aio.client.exceptions import ApiException

from django_task_operator.redaction import Foreign, without_credentials

# Everything that a request can raise: an error response, or no response.
API_ERRORS = (ApiException, aiohttp.ClientError, TimeoutError, OSError)


def has_status(error: BaseException, *statuses: HTTPStatus) -> bool:
    """Whether an error is a response of the API server with one of these statuses."""
    return _status_of(error) in statuses


def describe(error: BaseException) -> str:
    """What an API error says to people, in one line."""
    if isinstance(error, ApiException):
        body: Any = {}
        with suppress(TypeError, ValueError):
            body = json.loads(error.body or "")
        message = body.get("message") if isinstance(body, dict) else None
        return Foreign(without_credentials(str(message or error.reason or f"status {error.status}")))
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return Foreign(without_credentials(str(error) or type(error).__name__))


def is_passing(error: BaseException) -> bool:
    """Whether the same request may succeed later, without any change."""
    status = _status_of(error)
    passing = (
        status is None
        or status in {HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS}
        or status >= HTTPStatus.INTERNAL_SERVER_ERROR
    )
    # The API server answers 500 to an apply whose fields it does not know.
    return passing and "field not declared in schema" not in describe(error)


def says_no(error: BaseException) -> bool:
    """Whether the API server has answered, other than that it is not ready.

    Then the same request should only be retried later. An unavailable API server may be back at any moment,
    and a watch reports that.
    """
    return isinstance(error, ApiException) and error.status != HTTPStatus.SERVICE_UNAVAILABLE


def _status_of(error: BaseException) -> int | None:
    """Return the status of the API server's response; None if there was no response."""
    return error.status if isinstance(error, ApiException) else None
