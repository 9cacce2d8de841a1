"""The server, over real TLS: who may connect, its answers, and what can change while it runs."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.unit.fakes import Clock, refusal

from django_task_operator.metrics_api.access import Access
from django_task_operator.metrics_api.certificates import ServingCertificate
from django_task_operator.metrics_api.figures import Figures
from django_task_operator.metrics_api.identity import FrontProxy
from django_task_operator.metrics_api.listener import Listener
from django_task_operator.metrics_api.paths import ROOT
from django_task_operator.spec import Key
from django_task_operator.tasktable import Observation, QueueDemand, Selection, SelectionDemand

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

NAME = "operator-metrics-api.ops.svc"
NOW = datetime(2026, 1, 1, 12, 30, 15, 700_000, tzinfo=UTC)
PATH = f"{ROOT}/namespaces/shop/django_tasks_pending"
HPA = "system:serviceaccount:kube-system:horizontal-pod-autoscaler"


class Authority:
    """The request-header CA of a cluster."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "front-proxy-ca")])
        self.certificate = self._signed("front-proxy-ca", self._key, ca=True)

    def client(self, directory: Path, name: str = "front-proxy-client") -> Path:
        """A file with a client certificate and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        clear = serialization.NoEncryption()
        text = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, clear
        ).decode()
        path = directory / f"{name}-{id(self)}.pem"
        path.write_text(text + self._signed(name, key, ca=False))
        return path

    def _signed(self, name: str, key: ec.EllipticCurvePrivateKey, *, ca: bool) -> str:
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            # Two authorities of one name are told apart by it.
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM).decode()


class Bench:
    """A listener with the figures of one worker, and its clients."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority = Authority()
        self.proxy = self.authority.client(directory)
        self.front_proxy = FrontProxy(
            ca=self.authority.certificate,
            allowed_names=("front-proxy-client",),
            user_headers=("X-Remote-User",),
            group_headers=("X-Remote-Group",),
            uid_headers=(),
            extra_prefixes=("X-Remote-Extra-",),
        )
        self.clock = Clock()
        self.figures = Figures(self.clock)
        self.reviews: list[dict[str, Any]] = []
        self.api_error: Exception | None = None
        self.serving = self.certificate()
        self.listener = Listener(
            self.figures, Access(self.review, self.clock), self.serving, self.front_proxy
        )
        self.port = 0

    def certificate(self) -> ServingCertificate:
        return ServingCertificate.make((NAME,), timedelta(days=1), datetime.now(UTC))

    async def review(self, spec: dict[str, Any]) -> dict[str, Any]:
        """Review access as the API server does: the HPA's controller may read the namespace shop."""
        self.reviews.append(spec)
        await asyncio.sleep(0)
        if self.api_error:
            raise self.api_error
        where = spec["resourceAttributes"]["namespace"]
        return {"allowed": spec["user"] == HPA and where == "shop", "reason": "by the rules"}

    @asynccontextmanager
    async def client(self, proxy: Path | None, authority: str = "") -> AsyncIterator[Client]:
        context = ssl.create_default_context(cadata=authority or self.serving.authority)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        if proxy:
            context.load_cert_chain(proxy)
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context), timeout=aiohttp.ClientTimeout(total=20)
        ) as session:
            yield Client(session, self.port)


class Client:
    def __init__(self, session: aiohttp.ClientSession, port: int) -> None:
        self._session = session
        self._url = f"https://127.0.0.1:{port}"

    async def __call__(
        self, path: str, user: str | None = HPA, method: str = "GET", groups: tuple[str, ...] = ()
    ) -> tuple[int, Any]:
        headers = [("X-Remote-User", user)] if user else []
        headers += [("X-Remote-Group", group) for group in groups]
        async with self._session.request(
            method, self._url + path, headers=headers, server_hostname=NAME
        ) as answer:
            is_json = answer.content_type == "application/json"
            return answer.status, await answer.json() if is_json else await answer.text()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path)
    part = QueueDemand(42, 1, NOW - timedelta(seconds=1.5))
    observation = Observation(SelectionDemand(42, 1, part.oldest_ready, {"default": part}), None, NOW)

    class Polled:
        selection = Selection("default", ("default",))

    Polled.observation = observation  # type: ignore[attr-defined]
    bench.figures.follow(Key(namespace="shop", name="emails"), Polled(), "shop-db")  # type: ignore[arg-type]
    await bench.listener.start(0)
    # With port 0, each of the addresses has a port of its own.
    (bench.port,) = (port for address, port in bench.listener.addresses if address == "0.0.0.0")
    yield bench
    await bench.listener.close()


async def test_an_hpa_gets_its_figures(bench: Bench) -> None:
    async with bench.client(bench.proxy) as get:
        assert await get(f"{PATH}?labelSelector=worker%3Demails%2Cqueue+in+%28default%29") == (
            200,
            {
                "kind": "ExternalMetricValueList",
                "apiVersion": "external.metrics.k8s.io/v1beta1",
                "metadata": {},
                "items": [
                    {
                        "metricName": "django_tasks_pending",
                        "metricLabels": {"worker": "emails", "database": "shop-db", "queue": "default"},
                        "timestamp": "2026-01-01T12:30:15Z",
                        "value": "42",
                    }
                ],
            },
        )
        oldest = await get(PATH.replace("pending", "oldest_pending_seconds"))
        assert oldest[1]["items"][0]["value"] == "1500m"
        assert (await get(f"{PATH}?labelSelector=worker%3Dother"))[1]["items"] == []


async def test_the_api_server_is_asked_who_may(bench: Bench) -> None:
    async with bench.client(bench.proxy) as get:
        await get(PATH, groups=("system:serviceaccounts",))
    assert bench.reviews == [
        {
            "user": HPA,
            "uid": "",
            "groups": ["system:authenticated", "system:serviceaccounts"],
            "extra": {},
            "resourceAttributes": {
                "namespace": "shop",
                "verb": "list",
                "group": "external.metrics.k8s.io",
                "version": "v1beta1",
                "resource": "django_tasks_pending",
            },
        }
    ]


async def test_answers_are_remembered_for_ten_seconds(bench: Bench) -> None:
    async with bench.client(bench.proxy) as get:
        await asyncio.gather(*(get(PATH) for _ in range(20)))
        assert len(bench.reviews) == 1
        assert (await get(PATH, "ada"))[0] == 403
        assert (await get(PATH, "ada"))[0] == 403
        assert len(bench.reviews) == 2
        bench.clock.advance(10)
        await get(PATH)
        assert len(bench.reviews) == 3


async def test_whoever_may_not_is_told_so(bench: Bench) -> None:
    async with bench.client(bench.proxy) as get:
        code, status = await get(PATH, "ada")
        assert code == status["code"] == 403
        assert status["reason"] == "Forbidden"
        assert 'User "ada" cannot list resource "django_tasks_pending"' in status["message"]
        # One namespace's right is not another's.
        assert (await get(PATH.replace("shop", "other")))[0] == 403
        assert (await get(PATH, "root", groups=("system:masters",)))[0] == 200


async def test_without_an_answer_of_the_api_server_nobody_gets_anything(bench: Bench) -> None:
    async with bench.client(bench.proxy) as get:
        bench.api_error = refusal(500, "etcdserver: leader changed")
        code, status = await get(PATH)
        assert (code, status["reason"]) == (503, "ServiceUnavailable")
        assert "etcdserver: leader changed" in status["message"]
        bench.api_error = None
        assert (await get(PATH))[0] == 200, "a failure is not remembered"


async def test_the_unknown_are_401(bench: Bench) -> None:
    stranger = Authority()
    async with bench.client(None) as get:
        code, status = await get(PATH)
        assert (code, status["kind"], status["reason"]) == (401, "Status", "Unauthorized")
        assert (await get("/apis"))[0] == 401
        assert await get("/healthz", None) == (200, "ok")
        assert (await get("/nothing"))[0] == 401
    async with bench.client(bench.authority.client(bench.directory, "kubelet")) as get:
        assert (await get(PATH))[0] == 401
    async with bench.client(bench.proxy) as get:
        assert (await get(PATH, None))[0] == 401
    async with bench.client(stranger.client(bench.directory)) as get:
        with pytest.raises(aiohttp.ClientError):
            await get(PATH)
    assert bench.reviews == []


async def test_everything_else_is_a_status(bench: Bench) -> None:
    async with bench.client(bench.proxy) as get:

        async def refused(path: str, method: str = "GET") -> tuple[int, str]:
            code, status = await get(path, method=method)
            assert (status["kind"], status["apiVersion"], status["status"]) == ("Status", "v1", "Failure")
            assert status["code"] == code
            return code, status["reason"]

        assert await refused("/nothing") == (404, "NotFound")
        assert await refused(f"{ROOT}/namespaces/shop/django_tasks") == (404, "NotFound")
        assert await refused(PATH, "POST") == (405, "MethodNotAllowed")
        assert await refused("/apis", "DELETE") == (405, "MethodNotAllowed")
        assert await refused(f"{PATH}?watch=true") == (405, "MethodNotAllowed")
        assert await refused(f"{PATH}?labelSelector=a+b") == (400, "BadRequest")
        bench.figures.fail(Key(namespace="shop", name="emails"), "shop-db", "no database")
        assert await refused(PATH) == (503, "ServiceUnavailable")


async def test_documents_need_no_review(bench: Bench) -> None:
    async with bench.client(bench.proxy) as get:
        for path in ("/", "/apis", "/apis/external.metrics.k8s.io", ROOT, "/openapi/v2", "/openapi/v3"):
            assert (await get(path, "anybody"))[0] == 200
    assert bench.reviews == []


async def test_a_new_certificate_is_presented_and_connections_stay(bench: Bench) -> None:
    async with bench.client(bench.proxy) as before:
        assert (await before(PATH))[0] == 200
        renewed = bench.certificate()
        bench.listener.present(renewed)
        assert (await before(PATH))[0] == 200, "over the connection that was there"
        async with bench.client(bench.proxy, renewed.authority) as get:
            assert (await get(PATH))[0] == 200
        async with bench.client(bench.proxy) as get:
            with pytest.raises(aiohttp.ClientConnectorCertificateError):
                await get(PATH)


async def test_a_certificate_changes_under_a_stream_of_requests(bench: Bench) -> None:
    certificates = [bench.serving, bench.certificate(), bench.certificate()]
    trusted = "".join(certificate.authority for certificate in certificates)
    codes: list[int] = []

    async def stream() -> None:
        for _ in range(20):
            # With a new connection for each, because the handshake could fail.
            async with bench.client(bench.proxy, trusted) as get:
                codes.append((await get(PATH))[0])

    async def rotate() -> None:
        while len(codes) < 50:
            bench.listener.present(certificates[len(codes) % 3])
            await asyncio.sleep(0.01)

    await asyncio.gather(stream(), stream(), stream(), rotate())
    assert codes == [200] * 60


async def test_another_front_proxy_is_believed_and_the_one_before_no_longer(bench: Bench) -> None:
    successor = Authority()
    async with bench.client(bench.proxy) as old, bench.client(successor.client(bench.directory)) as new:
        assert (await old(PATH))[0] == 200
        bench.listener.trust(replace(bench.front_proxy, ca=successor.certificate))
        assert (await new(PATH))[0] == 200
        assert (await old(PATH))[0] == 401, "over the connection that was there"
        with pytest.raises(aiohttp.ClientError):
            await old(PATH)


async def test_both_are_believed_while_they_change(bench: Bench) -> None:
    successor = Authority()
    both = bench.front_proxy.ca + successor.certificate
    async with bench.client(bench.proxy) as old, bench.client(successor.client(bench.directory)) as new:
        bench.listener.trust(replace(bench.front_proxy, ca=both))
        assert (await old(PATH))[0] == 200
        assert (await new(PATH))[0] == 200


async def test_other_names_are_believed_at_once(bench: Bench) -> None:
    async with bench.client(bench.proxy) as get:
        assert (await get(PATH))[0] == 200
        bench.listener.trust(replace(bench.front_proxy, allowed_names=("other",)))
        assert (await get(PATH))[0] == 401


async def test_an_unforeseen_error_is_a_status_too(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.figures, "items", lambda *_: 1 / 0)
    async with bench.client(bench.proxy) as get:
        code, status = await get(PATH)
    assert (code, status["message"]) == (500, "internal error")
