"""Turns with a scale-in: which pods are marked, how far replicas are reduced, and the messages."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from tests.unit.bench import Bench
from tests.unit.fakes import refusal

from django_task_operator.keepers.victims import AGAIN_SECONDS, REFUSED_REST_SECONDS
from django_task_operator.observed.pods import DELETION_COST
from django_task_operator.tasktable.errors import ConnectionRefused

if TYPE_CHECKING:
    from django_task_operator.reconcile.reconciler import Reconciler

DELAY = 60.1


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def five_pods(bench: Bench) -> tuple[Reconciler, list[str]]:
    reconciler = await bench.running(42)
    pods = bench.kube.run_pods("shop", "emails", 5)
    bench.databases.max_ages.clear()
    return reconciler, pods


async def fall(bench: Bench, reconciler: Reconciler, *, ready: int = 0, running: int = 0) -> float:
    """Let there be fewer tasks, for long enough to reduce the replicas."""
    bench.databases.sample(ready, running)
    await bench.turn(reconciler)
    bench.kube.requests.clear()
    bench.clock.advance(DELAY)
    bench.databases.sample(ready, running)
    return await bench.turn(reconciler)


def marked(bench: Bench) -> list[str]:
    return [
        pod
        for pod in sorted(name for kind, _, name in bench.kube._objects if kind == "pods")
        if DELETION_COST in (bench.kube.read("pods", "shop", pod) or {})["metadata"].get("annotations", {})
    ]


async def test_idle_pods_are_marked_before_the_replicas_go_down(bench: Bench) -> None:
    reconciler, (a, b, c, d, e) = await five_pods(bench)
    bench.databases.run(a)
    bench.databases.run(f"{c}/1.1")
    bench.databases.run("somebody-elses-worker")
    await fall(bench, reconciler, running=21)

    assert bench.replicas() == 3
    assert marked(bench) == [b, d]
    writes = [request for request in bench.kube.requests if request.startswith(("annotate", "apply depl"))]
    assert writes == [f"annotate {b}", f"annotate {d}", "apply deployment"]
    assert bench.databases.max_ages[:2] == [0, 0], "once more after the marks were set"
    assert bench.told()[-1] == "ScaledDown: 0 ready and 21 running, 10 per replica: 5 -> 3"
    assert e not in marked(bench)


async def test_busy_pods_are_kept_and_go_when_they_are_idle(bench: Bench) -> None:
    reconciler, (a, b, c, d, _) = await five_pods(bench)
    rows = [bench.databases.run(f"{pod}/1.{slot}") for pod in (a, b, c, d) for slot in (1, 2)]
    wait = await fall(bench, reconciler, running=8)

    assert bench.replicas() == 4
    assert wait <= AGAIN_SECONDS
    assert bench.condition("ScalingActive") == "True BusyPodsKept"
    assert bench.told()[-1] == "ScaledDown: 1 wanted; 3 more pods kept because they run tasks: 5 -> 4"

    bench.databases.rows = rows[:1]
    bench.kube.delete("pods", "shop", marked(bench)[0])
    bench.clock.advance(wait)
    await bench.turn(reconciler)
    assert bench.replicas() == 1
    assert bench.condition("ScalingActive") == "True ScaledDown"


async def test_a_victim_that_begins_a_task_is_spared(bench: Bench) -> None:
    reconciler, (a, b, _, _, _) = await five_pods(bench)
    bench.kube.after_annotating = [lambda: bench.databases.run(a)]
    await fall(bench, reconciler, ready=31)

    assert bench.replicas() == 4
    assert marked(bench) == [b], "and not the first choice any more"


async def test_pods_that_begin_tasks_faster_than_they_are_marked_hold_the_replicas(bench: Bench) -> None:
    reconciler, pods = await five_pods(bench)
    bench.kube.after_annotating = [functools.partial(bench.databases.run, pod) for pod in pods]
    wait = await fall(bench, reconciler, ready=31)

    assert bench.replicas() == 5
    assert wait <= AGAIN_SECONDS
    assert bench.condition("ScalingActive") == "True Held"


async def test_marks_of_pods_that_stayed_are_taken_off(bench: Bench) -> None:
    reconciler, (a, *_) = await five_pods(bench)
    bench.kube.refuse["apply deployment"] = [refusal(503)]
    await fall(bench, reconciler, ready=31)
    assert bench.replicas() == 5
    assert marked(bench) == [a]

    bench.databases.sample(50)
    await bench.turn(reconciler)
    assert marked(bench) == []
    bench.kube.requests.clear()
    await bench.turn(reconciler)
    assert bench.kube.requests == []


async def test_marks_of_pods_that_are_about_to_go_stay(bench: Bench) -> None:
    reconciler, (a, *_) = await five_pods(bench)
    await fall(bench, reconciler, ready=31)
    assert bench.replicas() == 4
    await bench.turn(reconciler)
    assert marked(bench) == [a]


@pytest.mark.parametrize("running", [0, 9])
async def test_nothing_goes_while_it_cannot_be_seen_who_is_busy(bench: Bench, running: int) -> None:
    reconciler, _ = await five_pods(bench)
    bench.databases.trouble = ConnectionRefused()
    wait = await fall(bench, reconciler, running=running)

    assert bench.replicas() == 5
    assert wait <= AGAIN_SECONDS
    assert bench.condition("ScalingActive") == "True Held"
    bench.databases.trouble = None
    await bench.turn(reconciler)
    assert bench.replicas() == (1 if running else 0)


async def test_pods_that_never_started_go_even_while_nobody_is_seen(bench: Bench) -> None:
    reconciler, pods = await five_pods(bench)
    waiting: dict[str, Any] = {"phase": "Pending", "conditions": [], "containerStatuses": None}
    for pod in pods[1:4]:
        bench.kube.edit("pods", "shop", pod, {"status": waiting})
    bench.databases.trouble = ConnectionRefused()
    await fall(bench, reconciler)

    assert bench.replicas() == 2
    assert bench.condition("ScalingActive") == "True Held"


@pytest.mark.parametrize("error", [refusal(403), refusal(503), aiohttp.ClientError("away"), TimeoutError()])
async def test_nothing_goes_while_pods_cannot_be_marked(bench: Bench, error: BaseException) -> None:
    reconciler, (a, *_) = await five_pods(bench)
    bench.kube.refuse[f"annotate {a}"] = [error]
    await fall(bench, reconciler, ready=31)
    assert bench.replicas() == 5
    assert bench.condition("ScalingActive") == "True Held"

    bench.clock.advance(REFUSED_REST_SECONDS)
    await bench.turn(reconciler)
    assert bench.replicas() == 4


async def test_nothing_goes_while_the_pods_are_not_known(bench: Bench) -> None:
    reconciler, _ = await five_pods(bench)
    bench.world.caches.pods._broken.add(None)
    await fall(bench, reconciler)
    assert bench.replicas() == 5

    bench.world.caches.pods._broken.clear()
    await bench.turn(reconciler)
    assert bench.replicas() == 0


async def test_nothing_goes_when_a_listing_is_cut_off(bench: Bench) -> None:
    reconciler, _ = await five_pods(bench)
    bench.databases.complete = False
    await fall(bench, reconciler)

    assert bench.replicas() == 5


async def test_a_change_of_the_template_takes_effect_while_nothing_goes(bench: Bench) -> None:
    reconciler, _ = await five_pods(bench)
    bench.databases.trouble = ConnectionRefused()
    bench.kube.edit("worker", "shop", "emails", {"spec": {"image": "shop:2"}})
    await fall(bench, reconciler)

    deployment = bench.kube.read("deployments", "shop", "emails")
    assert deployment
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == "shop:2"
    assert deployment["spec"]["replicas"] == 5


async def test_in_a_rollout_nothing_goes_while_a_pod_is_busy(bench: Bench) -> None:
    reconciler, (a, *_) = await five_pods(bench)
    bench.kube.run_pods("shop", "emails", 2, revision="77aa")
    bench.databases.run(a)
    await fall(bench, reconciler, running=1)
    assert bench.replicas() == 5
    assert bench.condition("ScalingActive") == "True BusyPodsKept"

    bench.databases.rows.clear()
    bench.databases.sample(0)
    await bench.turn(reconciler)
    bench.clock.advance(DELAY)
    await bench.turn(reconciler)
    assert bench.replicas() == 0


async def test_pods_that_end_already_keep_nobody(bench: Bench) -> None:
    reconciler, (a, b, *_) = await five_pods(bench)
    bench.kube.edit("pods", "shop", a, {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}})
    bench.databases.run(a)
    bench.databases.run(b)
    await fall(bench, reconciler, running=2)

    assert bench.replicas() == 1


async def test_only_pods_of_the_deployments_own_replica_sets_are_marked(bench: Bench) -> None:
    reconciler, pods = await five_pods(bench)
    stranger = bench.kube.read("pods", "shop", pods[0])
    assert stranger
    stranger["metadata"] |= {"name": "aaa", "ownerReferences": [], "uid": "x"}
    bench.kube.create("pods", stranger)
    await fall(bench, reconciler, ready=31)

    assert bench.replicas() == 4
    assert marked(bench) == [pods[0]]


async def test_to_zero_takes_no_marks(bench: Bench) -> None:
    reconciler, _ = await five_pods(bench)
    await fall(bench, reconciler)

    assert bench.replicas() == 0
    assert not [request for request in bench.kube.requests if request.startswith("annotate")]
    assert 0 in bench.databases.max_ages


async def test_what_somebody_else_added_goes_when_it_is_idle(bench: Bench) -> None:
    reconciler, pods = await five_pods(bench)
    bench.kube.edit("deployments", "shop", "emails", {"spec": {"replicas": 6}})
    sixth = bench.kube.run_pods("shop", "emails", 1, revision="5d9f6")
    for pod in (*pods, *sixth):
        bench.databases.run(pod)
    bench.kube.events.clear()
    bench.databases.sample(42, 6)
    await bench.turn(reconciler)
    assert bench.replicas() == 6
    assert bench.told() == []

    bench.databases.rows.clear()
    await bench.turn(reconciler)
    assert bench.replicas() == 5


async def test_a_slow_listing_is_followed_by_a_rest(bench: Bench) -> None:
    reconciler, pods = await five_pods(bench)
    bench.databases.listing_seconds = 1.0
    bench.databases.run(pods[0])
    bench.databases.run(pods[1])
    assert await fall(bench, reconciler, running=2) == pytest.approx(4)
    seen = bench.databases.listings
    bench.clock.advance(1)
    assert await bench.turn(reconciler) == pytest.approx(3)
    assert bench.databases.listings == seen


async def test_a_deployment_that_is_taken_over_keeps_its_busy_pods(bench: Bench) -> None:
    reconciler, pods = await five_pods(bench)
    reconciler.close()
    bench.kube.edit("deployments", "shop", "emails", {"metadata": {"ownerReferences": None}})
    for pod in pods:
        bench.databases.run(pod)
    again = bench.reconciler()
    await bench.turn(again)
    await fall(bench, again, running=5)

    assert bench.replicas() == 5
    assert bench.condition("ScalingActive") == "True BusyPodsKept"
