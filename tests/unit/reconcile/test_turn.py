"""The steps of a turn: their order, and when the next turn is due."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.bench import Bench
from tests.unit.fakes import refusal

from django_task_operator.reconcile.reconciler import LONGEST_WAIT_SECONDS
from django_task_operator.tasktable import UnservedQueue
from django_task_operator.tasktable.errors import ConnectionRefused, TableMissing

if TYPE_CHECKING:
    from collections.abc import Callable

REPORTS = {"create event", "apply status"}


@pytest.fixture
def bench() -> Bench:
    return Bench()


def edit(bench: Bench, **spec: object) -> None:
    bench.kube.edit("worker", "shop", "emails", {"spec": spec})


def delete_deployment(bench: Bench) -> None:
    if bench.kube.read("deployments", "shop", "emails"):
        bench.kube.delete("deployments", "shop", "emails")


def let_pods_run(bench: Bench) -> None:
    if bench.kube.read("deployments", "shop", "emails"):
        bench.kube.run_deployment("shop", "emails")


# What may have happened between two turns.
HAPPENINGS: list[Callable[[Bench], object]] = [
    lambda bench: bench.databases.sample(80),
    lambda bench: bench.databases.sample(3, 2),
    lambda bench: bench.databases.sample(0),
    lambda bench: bench.databases.fail(ConnectionRefused()),
    lambda bench: bench.databases.fail(TableMissing()),
    lambda bench: bench.databases.warn([UnservedQueue("default", "reports")]),
    lambda bench: edit(bench, image="shop:2"),
    lambda bench: edit(bench, migrations={"policy": "BeforeRollout"}),
    lambda bench: edit(bench, scaling={"driver": "HPA"}),
    lambda bench: edit(bench, scaling={"driver": "External"}, replicas=3),
    lambda bench: edit(bench, scaling={"driver": "Operator", "minReplicas": 2}),
    lambda bench: edit(bench, paused=True),
    lambda bench: edit(bench, paused=False),
    lambda bench: edit(bench, image=""),
    lambda bench: bench.clock.advance(11),
    lambda bench: bench.clock.advance(70),
    lambda bench: bench.kube.refuse.update({"apply deployment": [refusal(503)]}),
    lambda bench: bench.kube.refuse.update({"apply status": [refusal(500)]}),
    delete_deployment,
    let_pods_run,
]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.sampled_from(HAPPENINGS), min_size=1, max_size=3), max_size=8))
def test_nothing_is_told_before_everything_is_applied(story: list[list[Callable[[Bench], object]]]) -> None:
    bench = Bench()

    async def turns() -> None:
        reconciler = await bench.running(42)
        for happenings in story:
            for happen in happenings:
                happen(bench)
            bench.kube.requests.clear()
            wait = await bench.turn(reconciler)

            told = [request in REPORTS for request in bench.kube.requests]
            assert told == sorted(told), bench.kube.requests
            assert 0 <= wait <= LONGEST_WAIT_SECONDS

    asyncio.run(turns())


async def test_events_come_in_the_order_in_which_things_happened(bench: Bench) -> None:
    reconciler = await bench.running(42)
    delete_deployment(bench)
    await bench.turn(reconciler)
    bench.databases.sample(80)
    bench.databases.warn([UnservedQueue("default", "reports")])
    edit(bench, paused=False)
    bench.kube.requests.clear()
    await bench.turn(reconciler)

    assert [told.partition(":")[0] for told in bench.told()] == [
        "DeploymentRestored",
        "ScaledUp",
        "QueueUnserved",
    ]
    assert bench.kube.requests == ["apply deployment", "create event", "apply status", "create event"]


def waiting(image: str) -> dict[str, object]:
    state = {"waiting": {"reason": "ErrImagePull", "message": "not found"}}
    return {"phase": "Pending", "containerStatuses": [{"name": "worker", "image": image, "state": state}]}


async def test_what_was_wrong_is_not_said_of_the_pods_that_correct_it(bench: Bench) -> None:
    reconciler = await bench.running(42, image="shop:typo")
    bench.kube.run_pods("shop", "emails", 1, revision="1", **waiting("shop:typo"))
    await bench.turn(reconciler)
    assert bench.condition("Stalled") == "True ImagePullFailed"

    # The broken pods stay until the new ones are ready, which takes a while.
    edit(bench, image="shop:2")
    await bench.turn(reconciler)
    before_there_are_new_pods = bench.condition("Stalled"), bench.condition("Reconciling")
    bench.kube.run_pods("shop", "emails", 1, revision="2")
    await bench.turn(reconciler)
    beside_new_pods = bench.condition("Stalled"), bench.condition("Reconciling")

    assert before_there_are_new_pods == beside_new_pods == ("False NotStalled", "True RollingOut")


async def test_what_is_wrong_is_said_of_the_newest_pods(bench: Bench) -> None:
    reconciler = await bench.running(42, image="shop:typo")
    bench.kube.run_pods("shop", "emails", 1, revision="1", **waiting("shop:typo"))
    await bench.turn(reconciler)
    edit(bench, image="shop:other")
    await bench.turn(reconciler)
    bench.kube.run_pods("shop", "emails", 1, revision="2", **waiting("shop:other"))
    await bench.turn(reconciler)

    worker = bench.kube.read("worker", "shop", "emails")
    assert worker
    said = {each["type"]: each["message"] for each in worker["status"]["conditions"]}["Stalled"]
    assert "shop:other (spec.image)" in said
    assert "typo" not in said


async def test_a_name_in_the_spec_is_not_hidden_where_it_is_quoted_from_there(bench: Bench) -> None:
    image = "registry.example/shop-user:typo"
    reconciler = await bench.running(42, image=image)
    bench.kube.run_pods("shop", "emails", 1, revision="1", **waiting(image))
    await bench.turn(reconciler)

    (told,) = bench.told()
    assert told.startswith(f"ImagePullFailed: The image cannot be pulled: {image} (spec.image)")


async def test_a_change_of_the_replicas_alone_replaces_no_pods(bench: Bench) -> None:
    reconciler = await bench.running(10, image="shop:typo")
    bench.kube.run_pods("shop", "emails", 1, revision="1", **waiting("shop:typo"))
    await bench.turn(reconciler)
    bench.databases.sample(42)
    await bench.turn(reconciler)

    assert bench.replicas() == 5
    assert bench.condition("Stalled") == "True ImagePullFailed"


def dues(caplog: pytest.LogCaptureFixture) -> list[tuple[float, str]]:
    return [
        (record.seconds, record.why)  # type: ignore[attr-defined]
        for record in caplog.records
        if record.getMessage() == "next turn"
    ]


async def test_when_and_why_the_next_turn_is_due_is_logged(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    reconciler = await bench.running(42)
    caplog.set_level(logging.DEBUG, "django_task_operator.reconcile.reconciler")

    assert (await bench.turn(reconciler), dues(caplog)[-1][1]) == (
        LONGEST_WAIT_SECONDS,
        "a Secret may have been rotated, or a crash be long ago",
    )
    bench.clock.advance(4)
    bench.databases.sample(43)
    assert (await bench.turn(reconciler), dues(caplog)[-1][1]) == (6, "the status has old counts")
    bench.databases.fail(ConnectionRefused())
    assert (await bench.turn(reconciler), dues(caplog)[-1][1]) == (5, "ConnectionRefused may be over")
    bench.databases.sample(80)
    bench.kube.refuse["apply deployment"] = [refusal(503)]
    assert (await bench.turn(reconciler), dues(caplog)[-1][1]) == (1, "ApiUnavailable may be over")
    bench.kube.refuse.clear()
    await bench.turn(reconciler)
    bench.clock.advance(11)
    bench.databases.sample(0)
    assert await bench.turn(reconciler) == pytest.approx(60, abs=0.01)
    bench.clock.advance(10)
    assert await bench.turn(reconciler) == pytest.approx(50, abs=0.01)
    assert dues(caplog)[-1][1] == "scaleDownDelaySeconds are over"
    edit(bench, image="")
    assert (await bench.turn(reconciler), dues(caplog)[-1][1]) == (5, "InvalidSpec may have been fixed")


async def test_a_turn_is_traced_at_debug(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "django_task_operator")
    bench = Bench()
    reconciler = await bench.running(42)
    caplog.clear()

    await bench.turn(reconciler)

    decided, due = (record for record in caplog.records if record.levelno == logging.DEBUG)
    assert (decided.message, due.message) == ("decided", "next turn")
    seen = {name: getattr(decided, name) for name in ("worker", "before", "replicas", "pending", "running")}
    assert seen == {"worker": "shop/emails", "before": 5, "replicas": 5, "pending": 42, "running": 0}
    assert vars(decided)["reason"]
    assert vars(due)["why"]


async def test_a_change_of_the_replicas_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "django_task_operator")
    bench = Bench()
    await bench.running(42)

    (scaled,) = (record for record in caplog.records if vars(record).get("reason") == "ScaledUp")
    assert (scaled.levelname, vars(scaled)["worker"]) == ("INFO", "shop/emails")
    assert scaled.message.endswith("0 -> 5")
