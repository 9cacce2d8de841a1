"""The metrics API in a cluster: certificate, server and registration, in this order."""

from __future__ import annotations

import asyncio
import base64
import logging
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from django_task_operator.cluster.api_errors import API_ERRORS, describe, has_status
from django_task_operator.cluster.kube import API_SERVICES, CONFIG_MAPS, Kube
from django_task_operator.metrics_api import registration
from django_task_operator.metrics_api.access import Access
from django_task_operator.metrics_api.availability import Availability, State
from django_task_operator.metrics_api.certificates import (
    AUTHORITY_KEY,
    CERTIFICATE_KEY,
    PRIVATE_KEY_KEY,
    ServingCertificate,
)
from django_task_operator.metrics_api.following import follow
from django_task_operator.metrics_api.identity import BadConfiguration, FrontProxy
from django_task_operator.metrics_api.listener import Listener

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from django_task_operator.metrics_api.figures import Figures
    from django_task_operator.spec import Manifest

log = logging.getLogger(__name__)

RETRY_SECONDS = 5.0
# How often the APIService is restored if something else keeps changing it.
RESTORE_SECONDS = 1.0
# How soon a renewed certificate in files is noticed.
FILES_SECONDS = 10.0
# The longest sleep, because clocks may jump.
LONGEST_SLEEP_SECONDS = 3600.0
# Where the API server publishes how extension API servers can recognize it.
AUTHENTICATION = ("kube-system", "extension-apiserver-authentication")
# How long a new certificate is held back, until all API servers of the cluster trust its authority.
SPREAD_SECONDS = 5.0
LONGEST_TRUST_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Settings:
    """How the metrics are served.

    Args:
        namespace: of the Service and the Secret.
        service: the name of the Service, which forwards port 443 to ``port``.
        port: what the server listens on.
        owner: the ClusterRole that owns the APIService, which is deleted with it; may be empty.
        secret: where the serving certificate is stored.
        directory: where a certificate is mounted that something else renews, instead of ``secret``.
        validity: how long new certificates are valid.
    """

    namespace: str
    service: str
    port: int
    owner: str
    secret: str
    directory: str
    validity: timedelta

    @property
    def names(self) -> tuple[str, ...]:
        """The names by which the API server addresses the server."""
        return (f"{self.service}.{self.namespace}.svc",)


class ExternalMetrics:
    """The leader's metrics API."""

    def __init__(
        self,
        kube: Kube,
        settings: Settings,
        figures: Figures,
        *,
        clock: Callable[[], float],
        changed: Callable[[], None],
    ) -> None:
        """Serve nothing before ``run``; ``changed`` is called when the availability changes."""
        self._kube = kube
        self._settings = settings
        self._figures = figures
        self._access = Access(kube.review_access, clock)
        self._changed = changed
        self._service = registration.Service(settings.namespace, settings.service)
        self._front_proxy: FrontProxy | None = None
        self._listener: Listener | None = None
        self._found: Manifest | None = None
        self._authorities = self._announced = ""
        self._front_proxy_known, self._listening = asyncio.Event(), asyncio.Event()
        self._due, self._settled = asyncio.Event(), asyncio.Event()
        self._availability = Availability(State.STARTING)

    @property
    def availability(self) -> Availability:
        """Whether an HPA can get the metrics."""
        return self._availability

    async def run(self) -> None:
        """Serve until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(
                    follow(self._kube, CONFIG_MAPS, *AUTHENTICATION, self._front_proxy_seen),
                    name="front proxy",
                )
                group.create_task(self._serve(), name="metrics server")
                await self._listening.wait()
                # If a Service does not answer, the API server stops trying for a while.
                group.create_task(
                    follow(self._kube, API_SERVICES, None, registration.NAME, self._registration_seen),
                    name="APIService",
                )
                group.create_task(self._register(), name="registration")
        finally:
            if self._listener:
                await self._listener.close()

    def _front_proxy_seen(self, config_map: Manifest | None) -> None:
        try:
            front_proxy = FrontProxy.of((config_map or {}).get("data") or {})
        except BadConfiguration as error:
            # The last known configuration remains in use until there is a valid one.
            log.warning("front proxy not known", extra={"error": str(error)})
            if self._front_proxy is None:
                self._become(Availability(State.STARTING, detail=str(error)))
            return
        self._front_proxy = front_proxy
        if self._listener:
            self._listener.trust(front_proxy)
        self._front_proxy_known.set()

    async def _serve(self) -> None:
        directory, listener, before = self._settings.directory, self._listener, ""
        async for certificate in _mounted(Path(directory)) if directory else self._kept():
            if listener is None:
                self._authorities = certificate.authority
                listener = self._listener = await self._listen(certificate)
                self._listening.set()
            else:
                await self._announce(before + certificate.authority)
                listener.present(certificate)
                log.info("serving certificate changed", extra={"expires": certificate.expires.isoformat()})
            before = certificate.authority

    async def _listen(self, certificate: ServingCertificate) -> Listener:
        port = self._settings.port
        while True:
            while self._front_proxy is None:
                await self._front_proxy_known.wait()
            listener = Listener(self._figures, self._access, certificate, self._front_proxy)
            try:
                await listener.start(port)
            except OSError as error:
                # The workers are scaled without it.
                await listener.close()
                log.warning("metrics API not listening", extra={"port": port, "error": str(error)})
                self._become(Availability(State.STARTING, detail=str(error)))
                await asyncio.sleep(RETRY_SECONDS)
            else:
                log.info("metrics API listening", extra={"port": port})
                return listener

    async def _kept(self) -> AsyncIterator[ServingCertificate]:
        """Yield the certificate in the Secret, and a new one each time before it expires."""
        names, validity = self._settings.names, self._settings.validity
        certificate = await self._read_kept()
        while True:
            if certificate and _seconds_until(certificate.renewal(names, validity)) > 0:
                yield certificate
                while (wait := _seconds_until(certificate.renewal(names, validity))) > 0:  # noqa: ASYNC110 - a clock
                    await asyncio.sleep(min(wait, LONGEST_SLEEP_SECONDS))
            certificate = ServingCertificate.make(names, validity, datetime.now(UTC))
            await self._keep(certificate)

    async def _read_kept(self) -> ServingCertificate | None:
        while True:
            try:
                secret = await self._kube.get_secret(self._settings.namespace, self._settings.secret)
                data = {
                    name: base64.b64decode(value).decode() for name, value in secret.get("data", {}).items()
                }
                return ServingCertificate.read(data)
            except ValueError as error:
                log.info("serving certificate not found", extra={"reason": str(error)})
                return None
            except API_ERRORS as error:
                log.warning("serving certificate not read", extra={"error": describe(error)})
                if has_status(error, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND):
                    return None
            await asyncio.sleep(RETRY_SECONDS)

    async def _keep(self, certificate: ServingCertificate) -> None:
        """Store it, so that a restart changes nothing. If that fails, it is used until then."""
        try:
            await self._kube.apply_secret(self._settings.namespace, self._settings.secret, certificate.data)
        except API_ERRORS as error:
            log.warning("serving certificate not kept", extra={"error": describe(error)})
        else:
            log.info("serving certificate made", extra={"expires": certificate.expires.isoformat()})

    async def _announce(self, authorities: str) -> None:
        """Make the API servers trust ``authorities``; return when they do, or when that is impossible."""
        self._authorities = authorities
        self._due.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(LONGEST_TRUST_SECONDS):
                while self._announced != authorities:
                    self._settled.clear()
                    await self._settled.wait()
        await asyncio.sleep(SPREAD_SECONDS)

    def _registration_seen(self, api_service: Manifest | None) -> None:
        self._found = api_service
        self._due.set()

    async def _register(self) -> None:
        owner = await self._owner()
        while True:
            await self._due.wait()
            self._due.clear()
            try:
                await self._settle(owner)
            except API_ERRORS as error:
                log.warning("APIService not registered", extra={"error": describe(error)})
                if not self._availability.is_serving:
                    self._become(Availability(State.STARTING, detail=describe(error)))
                await asyncio.sleep(RETRY_SECONDS)
                self._due.set()

    async def _settle(self, owner: registration.Owner | None) -> None:
        """Register, unless this is done or another adapter is registered."""
        found, authorities = self._found, self._authorities
        wanted = registration.build(self._service, authorities, owner)
        now = registration.availability(found, self._service)
        if found is not None and now.state is State.FOREIGN:
            if registration.is_held(found, owner):
                # Another adapter has taken ours over. Otherwise an uninstall of our release would delete it.
                given_up = registration.give_up(found, wanted)
                await self._kube.apply_object(API_SERVICES, given_up, uid=found["metadata"]["uid"])
        elif found is None or not registration.is_settled(found, wanted):
            uid = found["metadata"]["uid"] if found else None
            await self._kube.apply_object(API_SERVICES, wanted, uid=uid)
            log.info("APIService registered", extra={"service": self._settings.service})
            # The watch reports the outcome.
            await asyncio.sleep(RESTORE_SECONDS)
            now = self._availability
        self._announced = authorities
        self._settled.set()
        self._become(now)

    async def _owner(self) -> registration.Owner | None:
        while self._settings.owner:
            try:
                role = await self._kube.get_cluster_role(self._settings.owner)
            except API_ERRORS as error:
                log.warning("ClusterRole not read", extra={"error": describe(error)})
                if has_status(error, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND):
                    break
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return registration.Owner(self._settings.owner, role["metadata"]["uid"])
        return None

    def _become(self, availability: Availability) -> None:
        if availability != self._availability:
            log.info(
                "metrics API changed",
                extra={
                    "state": str(availability.state),
                    "service": availability.service,
                    "detail": availability.detail,
                },
            )
            self._availability = availability
            self._changed()


async def _mounted(directory: Path) -> AsyncIterator[ServingCertificate]:
    """Yield the certificate in the files of a Secret that something else renews, and each new one."""
    before: dict[str, str] = {}
    while True:
        try:
            data = {
                name: (directory / name).read_text()
                for name in (CERTIFICATE_KEY, PRIVATE_KEY_KEY, AUTHORITY_KEY)
            }
            if data != before:
                # The files are replaced one by one: a mismatched pair will match in a moment.
                certificate = ServingCertificate.read(data)
                before = data
                yield certificate
        except (OSError, ValueError) as error:
            log.warning("serving certificate not usable", extra={"error": str(error)})
        await asyncio.sleep(FILES_SECONDS)


def _seconds_until(moment: datetime) -> float:
    return (moment - datetime.now(UTC)).total_seconds()
