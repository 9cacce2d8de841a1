"""Argo CD's health check in Lua, with the statuses that the operator itself writes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import lupa.lua51
import pytest
import yaml
from tests.unit.bench import Bench
from tests.unit.fakes import worker_manifest

from django_task_operator.tasktable.errors import ConnectionRefused

if TYPE_CHECKING:
    from collections.abc import Callable

EXAMPLE = Path(__file__).parents[3] / "examples" / "argocd" / "argocd-cm.yaml"
(SCRIPT,) = yaml.safe_load(EXAMPLE.read_text())["data"].values()
# Argo CD opens only these of Lua's libraries.
OPEN = {"_G", "ipairs", "pairs", "type", "tostring", "tonumber", "error", "pcall", "next", "select", "table"}


def health(manifest: dict[str, Any]) -> tuple[str, str]:
    lua = lupa.lua51.LuaRuntime(unpack_returned_tuples=True)
    for name in list(lua.globals()):
        if name not in OPEN:
            lua.globals()[name] = None
    lua.globals().obj = lua.table_from(manifest, recursive=True)
    found = lua.execute(SCRIPT)
    return found.status, found.message


def of(bench: Bench) -> tuple[str, str]:
    manifest = bench.kube.read("worker", "shop", "emails")
    assert manifest
    return health(manifest)


def test_the_name_of_the_key_is_the_one_of_the_kind() -> None:
    (key,) = yaml.safe_load(EXAMPLE.read_text())["data"]
    manifest = worker_manifest()
    group = manifest["apiVersion"].partition("/")[0]
    assert key == f"resource.customizations.health.{group}_{manifest['kind']}"


def test_one_that_no_operator_has_seen_is_progressing() -> None:
    assert health(worker_manifest())[0] == "Progressing"
    assert health(worker_manifest(status={}))[0] == "Progressing"
    assert health(worker_manifest(status={"observedGeneration": 1}))[0] == "Progressing"


async def test_before_the_first_sample_it_is_progressing() -> None:
    bench = Bench()
    bench.worker()
    await bench.turn(bench.reconciler())
    assert of(bench)[0] == "Progressing"


@pytest.mark.parametrize(("ready", "reason"), [(0, "ScaledToZero"), (42, "ReplicasReady")])
async def test_settled_it_is_healthy(ready: int, reason: str) -> None:
    bench = Bench()
    await bench.running(ready)
    status, message = of(bench)
    assert status == "Healthy"
    assert message.startswith(f"{reason}: ")


async def test_a_version_that_the_operator_has_not_seen_is_not_healthy_by_the_one_before() -> None:
    bench = Bench()
    await bench.running(42)
    bench.kube.edit("worker", "shop", "emails", {"spec": {"image": "shop:2"}})
    assert of(bench)[0] == "Progressing"


def pause(bench: Bench) -> None:
    bench.kube.edit("worker", "shop", "emails", {"spec": {"paused": True}})


def break_spec(bench: Bench) -> None:
    wrong = {"podTemplate": {"spec": {"containers": [{"name": "worker", "unknownField": 1}]}}}
    bench.kube.edit("worker", "shop", "emails", {"spec": wrong})


def lose_database(bench: Bench) -> None:
    bench.databases.fail(ConnectionRefused())


def need_more(bench: Bench) -> None:
    bench.kube.run_deployment("shop", "emails", ready=0)


@pytest.mark.parametrize(
    ("happens", "status", "begins"),
    [
        (pause, "Suspended", "Paused: "),
        (break_spec, "Degraded", "DeploymentRejected: "),
        (lose_database, "Degraded", "ConnectionRefused: "),
        (need_more, "Progressing", "PodsStarting: "),
    ],
)
async def test_what_happens_to_it_is_told(happens: Callable[[Bench], None], status: str, begins: str) -> None:
    bench = Bench()
    reconciler = await bench.running(42)
    happens(bench)
    await bench.turn(reconciler)
    told, message = of(bench)
    assert told == status, message
    assert message.startswith(begins)
