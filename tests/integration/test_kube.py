"""A real API server fulfils the same contract as the fake."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from tests.contract.kube import KubeContract
from tests.waiting import PATIENTLY

from django_task_operator.cluster.kube import Kind, Kube
from django_task_operator.cluster.transport import MERGE_PATCH, Request
from django_task_operator.spec import Key

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.conftest import Kubectl
    from tests.contract.kube import Manifest


@dataclass
class RealCluster:
    """A namespace of the cluster."""

    kube: Kube
    kubectl: Kubectl
    namespace: str
    directory: Path
    opened: list[Kube] = field(default_factory=list)

    async def create(self, kind: Kind, manifest: Manifest) -> Manifest:
        return await self.kube._transport.write(Request("POST", kind.path(self.namespace), body=manifest))

    async def edit(self, kind: Kind, name: str, change: Manifest) -> Manifest:
        path, query = kind.path(self.namespace, name), {"fieldManager": "somebody"}
        return await self.kube._transport.write(Request("PATCH", path, query, change, MERGE_PATCH))

    async def delete(self, kind: Kind, name: str) -> None:
        found = await self.kube.get_object(kind, Key(namespace=self.namespace, name=name))
        assert found
        await self.kube.delete_object(
            kind, Key(namespace=self.namespace, name=name), found["metadata"]["uid"]
        )

    async def without_rights(self) -> Kube:
        config: dict[str, Any] = yaml.safe_load(self.kubectl("config", "view", "--minify", "--raw"))
        token = self.kubectl.within(self.namespace)("create", "token", "default").strip()
        config["users"] = [{"name": user["name"], "user": {"token": token}} for user in config["users"]]
        path = self.directory / "without-rights"
        path.write_text(yaml.safe_dump(config))
        self.opened.append(await Kube.connect(str(path)))
        return self.opened[-1]


@pytest.mark.usefixtures("crd")
class TestReal(KubeContract):
    @pytest.fixture
    async def cluster(
        self, kubectl: Kubectl, kubeconfig: Path, namespace: str, tmp_path: Path
    ) -> AsyncIterator[RealCluster]:
        kubectl.within(namespace)("wait", "--for=create", "serviceaccount/default", PATIENTLY)
        kube = await Kube.connect(str(kubeconfig))
        cluster = RealCluster(kube, kubectl, namespace, tmp_path)
        yield cluster
        for each in (kube, *cluster.opened):
            await each.close()
        # A TLS connection that was closed ends when the server has said so, too. One that the end of the
        # loop overtakes would be called a leak.
        transports = list(vars(asyncio.get_running_loop())["_transports"].values())
        async with asyncio.timeout(60):
            while any(each._sock for each in transports):  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.01)
