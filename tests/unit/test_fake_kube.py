"""The fake API server fulfils the contract; otherwise tests that use it would prove nothing."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, cast

import pytest
from tests.contract.kube import KubeContract
from tests.unit.fakes import FakeKube, refusal

from django_task_operator.cluster.kube import WORKERS, Kind

if TYPE_CHECKING:
    from tests.contract.kube import Manifest

    from django_task_operator.cluster.kube import Kube


class FakeCluster:
    """A namespace of the fake API server."""

    namespace = "shop"

    def __init__(self) -> None:
        self._fake = FakeKube()
        self.kube = cast("Kube", self._fake)

    async def create(self, kind: Kind, manifest: Manifest) -> Manifest:
        return self._fake.create(_name(kind), manifest)

    async def edit(self, kind: Kind, name: str, change: Manifest) -> Manifest:
        return self._fake.edit(_name(kind), self.namespace, name, change)

    async def delete(self, kind: Kind, name: str) -> None:
        self._fake.delete(_name(kind), self.namespace, name)

    async def without_rights(self) -> Kube:
        theirs = copy.copy(self._fake)
        theirs.down = refusal(403, 'it is forbidden: User "somebody" cannot do that')
        return cast("Kube", theirs)


def _name(kind: Kind) -> str:
    return "worker" if kind == WORKERS else kind.plural


class TestFake(KubeContract):
    @pytest.fixture
    def cluster(self) -> FakeCluster:
        return FakeCluster()
