"""The HTTPS server: authentication, authorization, and the response."""

from __future__ import annotations

import logging
import ssl
import tempfile
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from aiohttp import web

from django_task_operator.cluster.api_errors import API_ERRORS, describe
from django_task_operator.metrics_api import answers
from django_task_operator.metrics_api.figures import NotKnown
from django_task_operator.metrics_api.identity import MASTERS, NotAuthenticated
from django_task_operator.metrics_api.paths import GROUP, Document, Metric, wanted
from django_task_operator.metrics_api.selector import BadSelector, Selector

if TYPE_CHECKING:
    from django_task_operator.metrics_api.access import Access
    from django_task_operator.metrics_api.certificates import ServingCertificate
    from django_task_operator.metrics_api.figures import Figures
    from django_task_operator.metrics_api.identity import FrontProxy, User

log = logging.getLogger(__name__)

# Longer than the 90 seconds after which the API server closes an idle connection: if we closed it first,
# the API server would sometimes send a request on a connection that is being closed.
KEEP_ALIVE_SECONDS = 120.0


class Refused(Exception):
    """An error response."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        """``message`` says why, for people."""
        super().__init__(message)
        self.status = status


class Listener:
    """Serves the metrics over TLS. Its certificate and trusted authorities can change while it runs."""

    def __init__(
        self, figures: Figures, access: Access, certificate: ServingCertificate, front_proxy: FrontProxy
    ) -> None:
        """Accept no connections before ``start``."""
        self._figures = figures
        self._access = access
        self._certificate = certificate
        self._front_proxy = front_proxy
        self._server = web.Server(self._handle, access_log=None, keepalive_timeout=KEEP_ALIVE_SECONDS)
        self._runner = web.ServerRunner(self._server)
        # Each connection uses the current context at its handshake: the socket's own context only requests
        # the certificate.
        self._door = _empty_context()
        self._door.sni_callback = self._say_hello
        # The authorities that may have verified the clients of each context.
        self._authorities: WeakKeyDictionary[ssl.SSLContext, frozenset[str]] = WeakKeyDictionary()
        self._renew()

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """The addresses on which it listens."""
        return [(address[0], address[1]) for address in self._runner.addresses]

    async def start(self, port: int) -> None:
        """Listen on all addresses."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, None, port, ssl_context=self._door)
        await site.start()

    async def close(self) -> None:
        """Stop listening, and close all connections."""
        await self._runner.cleanup()

    def present(self, certificate: ServingCertificate) -> None:
        """Present another certificate on new connections; existing ones remain open."""
        self._certificate = certificate
        self._renew()

    def trust(self, front_proxy: FrontProxy) -> None:
        """Trust another front proxy. Clients verified only by a previous authority have to reconnect."""
        self._front_proxy = front_proxy
        self._renew()

    def _renew(self) -> None:
        self._context = _context(self._certificate, self._front_proxy)
        self._authorities[self._context] = self._front_proxy.authorities

    def _say_hello(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._context

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await self._answer(request)
        except Refused as refused:
            status, message = refused.status, str(refused)
        except NotAuthenticated as error:
            status, message = HTTPStatus.UNAUTHORIZED, f"Unauthorized: {error}"
        except Exception:
            # The API server's clients only understand a Status, whatever went wrong.
            log.exception("metrics answer failed")
            status, message = HTTPStatus.INTERNAL_SERVER_ERROR, "internal error"
        answer = web.json_response(answers.status(status, message), status=status)
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            answer.headers["Allow"] = "GET"
        if status == HTTPStatus.UNAUTHORIZED:
            answer.force_close()
        return answer

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        what = wanted(request.path)
        if what is Document.HEALTH and request.method == "GET":
            return web.Response(text="ok")
        user = self._front_proxy.user(self._peer(request), request.headers)
        if what is None:
            raise Refused(HTTPStatus.NOT_FOUND, "the server could not find the requested resource")
        if isinstance(what, Metric):
            await self._authorize(user, what)
        if request.method != "GET" or request.query.get("watch") in {"1", "true"}:
            raise Refused(
                HTTPStatus.METHOD_NOT_ALLOWED,
                "the server does not allow this method on the requested resource",
            )
        if isinstance(what, Metric):
            return self._values(what, request.query.get("labelSelector", ""))
        # The same for all users, so no authorization is needed.
        return web.json_response(answers.DOCUMENTS[what])

    def _peer(self, request: web.BaseRequest) -> Any:
        """Return the client's certificate, if a currently trusted authority has verified it."""
        transport = request.transport
        connection: Any = transport and transport.get_extra_info("ssl_object")
        if connection is None or not self._authorities[connection.context] <= self._front_proxy.authorities:
            raise NotAuthenticated("the front proxy's authority has changed: connect again")
        return connection.getpeercert()

    async def _authorize(self, user: User, metric: Metric) -> None:
        if MASTERS in user.groups:
            return  # as the API server itself does
        try:
            verdict = await self._access.may_list(user, metric.namespace, metric.name)
        except API_ERRORS as error:
            problem = f"the API server does not say whether this is allowed: {describe(error)}"
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, problem) from None
        if not verdict.allowed:
            raise Refused(
                HTTPStatus.FORBIDDEN,
                f'{metric.name}.{GROUP} is forbidden: User "{user.name}" cannot list resource "{metric.name}"'
                f' in API group "{GROUP}" in the namespace "{metric.namespace}"'
                + (f": {verdict.reason}" if verdict.reason else ""),
            )

    def _values(self, metric: Metric, label_selector: str) -> web.Response:
        try:
            items = self._figures.items(metric.namespace, metric.name, Selector.parse(label_selector))
        except BadSelector as error:
            raise Refused(HTTPStatus.BAD_REQUEST, str(error)) from None
        except NotKnown as error:
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, str(error)) from None
        return web.json_response(answers.metric_values(metric.name, items))


def _empty_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_OPTIONAL
    # A resumed session would not present its certificate again, not even to another authority: without
    # tickets TLS 1.3 resumes no sessions, but TLS 1.2 has other ways.
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    return context


def _context(certificate: ServingCertificate, front_proxy: FrontProxy) -> ssl.SSLContext:
    context = _empty_context()
    context.load_verify_locations(cadata=front_proxy.ca)
    # OpenSSL reads keys only from files.
    with tempfile.TemporaryDirectory() as directory:
        pair = Path(directory, "pair.pem")
        pair.touch(mode=0o600)
        pair.write_text(certificate.key + certificate.certificate)
        context.load_cert_chain(pair)
    return context
