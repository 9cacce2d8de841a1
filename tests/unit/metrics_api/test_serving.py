"""The metrics API in a cluster: in which order things happen, and what another adapter affects."""

from __future__ import annotations

import asyncio
import base64
import copy
import itertools
import json
import socket
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from tests.unit.fakes import Clock, refusal
from tests.waiting import PATIENCE_S

from django_task_operator.cluster.kube import API_SERVICES, CONFIG_MAPS, Kind
from django_task_operator.metrics_api import registration, serving
from django_task_operator.metrics_api.availability import State
from django_task_operator.metrics_api.certificates import ServingCertificate
from django_task_operator.metrics_api.figures import Figures
from django_task_operator.metrics_api.serving import ExternalMetrics, Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

API_SERVICES_PATH, CONFIG_MAPS_PATH = API_SERVICES.path(), CONFIG_MAPS.path("kube-system")
AUTHORITY = ServingCertificate.make(("front-proxy",), timedelta(days=1), datetime.now(UTC)).authority
FRONT_PROXY = {
    "requestheader-client-ca-file": AUTHORITY,
    "requestheader-username-headers": json.dumps(["X-Remote-User"]),
}
THEIRS = {"namespace": "keda", "name": "keda-operator-metrics-apiserver"}


class FakeApi:
    """An API server with the few objects that the metrics API uses."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.secret: dict[str, str] = {}
        self.api_service: dict[str, Any] | None = None
        self.config_map: dict[str, Any] | None = {"data": FRONT_PROXY}
        self.refuse_secret: Exception | None = None
        self._watches: list[tuple[str, asyncio.Queue[tuple[str, Any]]]] = []
        self._versions = itertools.count(1)

    async def list_and_watch(
        self, path: str, label_selector: str, *, field_selector: str
    ) -> AsyncIterator[tuple[str, Any]]:
        assert not label_selector
        assert field_selector.startswith("metadata.name=")
        events: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()
        self._watches.append((path, events))
        found = self.config_map if path == CONFIG_MAPS_PATH else self.api_service
        yield "LIST", {"items": [copy.deepcopy(found)] if found else []}
        while True:
            yield await events.get()

    async def get_secret(self, namespace: str, name: str) -> dict[str, Any]:
        self._secret(namespace, name)
        return {
            "data": {
                key: base64.b64encode(text.encode(errors="surrogateescape")).decode()
                for key, text in self.secret.items()
            }
        }

    async def apply_secret(self, namespace: str, name: str, data: dict[str, str]) -> None:
        self._secret(namespace, name)
        self.log.append("secret kept")
        self.secret = dict(data)

    async def get_cluster_role(self, name: str) -> dict[str, Any]:
        assert name == "role"
        return {"metadata": {"uid": "role-uid"}}

    async def apply_object(self, kind: Kind, manifest: dict[str, Any], *, uid: str | None) -> dict[str, Any]:
        assert kind == API_SERVICES
        found = self.api_service
        if found and not uid and found["spec"]["service"] != manifest["spec"]["service"]:
            raise refusal(409, "Apply failed with 1 conflict")
        self.log.append("registered")
        metadata = {**manifest["metadata"], "uid": uid or "uid"}
        self.put({**copy.deepcopy(manifest), "metadata": metadata, "status": (found or {}).get("status", {})})
        assert self.api_service
        return self.api_service

    async def review_access(self, spec: dict[str, Any]) -> dict[str, Any]:
        raise AssertionError(spec)

    # What others do.

    def put(self, api_service: dict[str, Any] | None) -> None:
        kind = "DELETED" if api_service is None else "MODIFIED" if self.api_service else "ADDED"
        seen = self.api_service if api_service is None else api_service
        assert seen
        seen["metadata"]["resourceVersion"] = str(next(self._versions))
        self.api_service = api_service
        self._tell(API_SERVICES_PATH, kind, seen)

    def put_config_map(self, data: dict[str, str]) -> None:
        self.config_map = {"data": data}
        self._tell(CONFIG_MAPS_PATH, "MODIFIED", self.config_map)

    def edit(self, **spec: Any) -> None:
        assert self.api_service
        changed = copy.deepcopy(self.api_service)
        changed["spec"] |= spec
        self.put(changed)

    def reach(self, status: str, message: str = "") -> None:
        """Set what the API server reports about the APIService's availability."""
        assert self.api_service
        changed = copy.deepcopy(self.api_service)
        changed["status"] = {"conditions": [{"type": "Available", "status": status, "message": message}]}
        self.put(changed)

    def _secret(self, namespace: str, name: str) -> None:
        assert (namespace, name) == ("ops", "certificate")
        if self.refuse_secret:
            raise self.refuse_secret

    def _tell(self, path: str, kind: str, seen: Any) -> None:
        for of, events in self._watches:
            if of == path:
                events.put_nowait((kind, copy.deepcopy(seen)))


class Bench:
    def __init__(self, **settings: Any) -> None:
        with socket.socket() as free:
            free.bind(("", 0))
            self.port = free.getsockname()[1]
        self.api = FakeApi()
        self.changes = 0
        given = {
            "namespace": "ops",
            "service": "operator",
            "port": self.port,
            "owner": "role",
            "secret": "certificate",
            "directory": "",
            "validity": timedelta(days=90),
        }
        self.metrics = ExternalMetrics(
            self.api,  # type: ignore[arg-type]
            Settings(**{**given, **settings}),
            Figures(Clock()),
            clock=Clock(),
            changed=self._changed,
        )
        self.task = asyncio.create_task(self.metrics.run())

    def _changed(self) -> None:
        self.changes += 1

    async def until(self, probe: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not probe():
                assert not self.task.done(), self.task
                await asyncio.sleep(0.01)

    async def becomes(self, state: State) -> None:
        await self.until(lambda: self.metrics.availability.state is state)

    @property
    def trusted(self) -> list[x509.Certificate]:
        assert self.api.api_service
        return x509.load_pem_x509_certificates(base64.b64decode(self.api.api_service["spec"]["caBundle"]))

    @property
    def answers(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RETRY_SECONDS", "FILES_SECONDS", "SPREAD_SECONDS", "RESTORE_SECONDS"):
        monkeypatch.setattr(serving, name, 0.05)


@pytest.fixture
async def make() -> AsyncIterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(**settings: Any) -> Bench:
        made.append(Bench(**settings))
        return made[-1]

    yield make
    for bench in made:
        bench.task.cancel()
    await asyncio.gather(*(bench.task for bench in made), return_exceptions=True)


async def test_it_keeps_its_certificate_and_answers_before_it_registers(make: Any) -> None:
    bench = make()
    assert bench.metrics.availability.state is State.STARTING
    await bench.until(lambda: bench.api.api_service)
    assert bench.answers
    assert bench.api.log == ["secret kept", "registered"]
    (authority,) = bench.trusted
    kept = ServingCertificate.read(bench.api.secret)
    assert kept.names == ("operator.ops.svc",)
    assert [authority] == x509.load_pem_x509_certificates(kept.authority.encode())
    assert bench.api.api_service["metadata"]["ownerReferences"][0]["uid"] == "role-uid"
    bench.api.reach("True")
    await bench.becomes(State.SERVING)
    assert bench.changes == 1
    bench.api.reach("False", "dial tcp: timeout")
    await bench.becomes(State.UNREACHABLE)
    assert bench.metrics.availability.detail == "dial tcp: timeout"


async def test_a_restart_presents_the_same_certificate(make: Any) -> None:
    first = make()
    await first.until(lambda: first.api.api_service)
    second = make()
    second.api.secret, second.api.api_service = first.api.secret, first.api.api_service
    second.api.reach("True")
    await second.becomes(State.SERVING)
    assert second.api.log == []


async def test_a_certificate_that_cannot_be_kept_serves_all_the_same(make: Any) -> None:
    bench = make()
    bench.api.refuse_secret = refusal(403, "forbidden")
    await bench.until(lambda: bench.api.api_service)
    assert bench.answers
    assert bench.api.secret == {}


async def test_both_authorities_are_trusted_before_a_new_certificate_is_presented(make: Any) -> None:
    bench = make(validity=timedelta(seconds=2))
    await bench.until(lambda: bench.api.api_service)
    (before,) = bench.trusted
    listener = bench.metrics._listener
    assert listener
    presented = listener._certificate
    await bench.until(lambda: len(bench.trusted) == 2)
    assert listener._certificate is presented
    assert before in bench.trusted
    await bench.until(lambda: listener._certificate is not presented)
    assert listener._certificate.authority in "".join(bench.api.secret.values())


@pytest.mark.parametrize("kept", ["nonsense", "\udcff"])
async def test_nonsense_in_the_secret_is_replaced(make: Any, kept: str) -> None:
    bench = make()
    bench.api.secret = {"tls.crt": kept, "tls.key": kept, "ca.crt": kept}
    await bench.until(lambda: bench.api.api_service)
    assert ServingCertificate.read(bench.api.secret)


async def test_a_port_that_is_taken_is_waited_for(make: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        bench = make(port=taken.getsockname()[1])
        await bench.until(lambda: bench.metrics.availability.detail)
        assert "registered" not in bench.api.log
    await bench.until(lambda: bench.api.api_service)


async def test_another_adapter_is_left_alone_until_it_is_gone(make: Any) -> None:
    bench = make()
    theirs = registration.build(registration.Service(**THEIRS), "PEM", None)
    bench.api.put({**theirs, "metadata": {"name": registration.NAME, "uid": "theirs"}})
    await bench.becomes(State.FOREIGN)
    assert bench.metrics.availability.service == "keda/keda-operator-metrics-apiserver"
    assert "registered" not in bench.api.log
    bench.api.put(None)
    await bench.until(lambda: bench.api.api_service)
    assert bench.api.api_service["spec"]["service"]["name"] == "operator"


async def test_what_somebody_changes_is_put_back(make: Any) -> None:
    bench = make()
    await bench.until(lambda: bench.api.api_service)
    wanted = bench.api.api_service["spec"]
    bench.api.edit(caBundle="")
    await bench.until(lambda: bench.api.api_service["spec"] == wanted)
    bench.api.put(None)
    await bench.until(lambda: bench.api.api_service)


async def test_one_that_another_takes_over_is_let_go(make: Any) -> None:
    bench = make()
    await bench.until(lambda: bench.api.api_service)
    bench.api.edit(service=THEIRS)
    await bench.becomes(State.FOREIGN)
    await bench.until(lambda: "ownerReferences" not in bench.api.api_service["metadata"])
    assert bench.api.api_service["spec"]["service"] == THEIRS


async def test_one_that_comes_in_between_is_not_overwritten(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make()
    apply = bench.api.apply_object

    async def late(kind: Kind, manifest: dict[str, Any], *, uid: str | None) -> dict[str, Any]:
        if bench.api.api_service is None:
            theirs = registration.build(registration.Service(**THEIRS), "PEM", None)
            bench.api.put({**theirs, "metadata": {"name": registration.NAME, "uid": "theirs"}})
        applied: dict[str, Any] = await apply(kind, manifest, uid=uid)
        return applied

    monkeypatch.setattr(bench.api, "apply_object", late)
    await bench.becomes(State.FOREIGN)
    assert bench.api.api_service["spec"]["service"] | {"port": 443} == THEIRS | {"port": 443}


def said(caplog: pytest.LogCaptureFixture, message: str) -> int:
    return [record.message for record in caplog.records].count(message)


async def test_a_cluster_without_aggregation_is_said_to_be_one(
    make: Any, caplog: pytest.LogCaptureFixture
) -> None:
    bench = make()
    bench.api.config_map = None
    await bench.until(lambda: bench.metrics.availability.detail)
    assert "aggregation layer is off" in bench.metrics.availability.detail
    assert not bench.answers
    bench.api.put_config_map(FRONT_PROXY)
    await bench.until(lambda: bench.api.api_service)
    refused = said(caplog, "front proxy not known")
    bench.api.put_config_map({})
    await bench.until(lambda: said(caplog, "front proxy not known") > refused)
    assert bench.answers, "what was known holds"


async def test_a_mounted_certificate_is_read_again_when_it_changes(
    make: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def mount(certificate: ServingCertificate) -> None:
        for name, value in certificate.data.items():
            (tmp_path / name).write_text(value)

    async def two_looks() -> None:
        """Wait for two checks, so that the second one has begun after now."""
        looks = said(caplog, "serving certificate not usable")
        await bench.until(lambda: said(caplog, "serving certificate not usable") >= looks + 2)

    now = datetime.now(UTC)
    first, second = (ServingCertificate.make(("operator.ops.svc",), timedelta(days=1), now) for _ in "12")
    bench = make(directory=str(tmp_path))
    await two_looks()
    assert not bench.answers, "it waits for the files"
    mount(first)
    await bench.until(lambda: bench.api.api_service)
    (tmp_path / "tls.key").write_text(second.key)
    await two_looks()
    mount(second)
    await bench.until(lambda: len(bench.trusted) == 2)
    await bench.until(lambda: bench.metrics._listener._certificate == second)
    assert "secret kept" not in bench.api.log
