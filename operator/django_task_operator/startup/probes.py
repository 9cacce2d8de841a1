"""The HTTP server of the probes and of Prometheus' metrics."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from django_task_operator.telemetry import REGISTRY

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


async def serve(port: int, *, alive: Callable[[], bool], ready: Callable[[], bool]) -> web.AppRunner:
    """Serve /healthz, /readyz and /metrics on all addresses; the caller cleans up the runner."""
    app = web.Application()
    app.router.add_get("/metrics", _metrics)
    app.router.add_get("/healthz", _probe(alive))
    app.router.add_get("/readyz", _probe(ready))
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, None, port).start()
    return runner


async def _metrics(_: web.Request) -> web.Response:
    return web.Response(body=generate_latest(REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST})


def _probe(good: Callable[[], bool]) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def answer(_: web.Request) -> web.Response:
        if good():
            return web.Response(text="ok")
        return web.Response(status=HTTPStatus.SERVICE_UNAVAILABLE, text="not ready")

    return answer
