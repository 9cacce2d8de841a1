"""`helm upgrade` from the previous version, and back, while workers run tasks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.conftest import ROOT
from tests.e2e.harness import eventually
from tests.e2e.postgres import chores
from tests.e2e.release import NAME, in_node
from tests.waiting import PATIENTLY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.e2e.harness import TaskWorker
    from tests.e2e.postgres import Database
    from tests.e2e.release import Release

pytestmark = pytest.mark.alone

type MakeWorker = Callable[..., TaskWorker]

CHART = ROOT / "charts" / NAME
# Made by the script next to them.
PREVIOUS = Path(__file__).parent.parent / "previous"
# The code of the previous version runs in the current image, whose own code comes later on the path.
MOUNTED = (
    "--set=extraVolumes[0].name=previous",
    "--set=extraVolumes[0].configMap.name=previous",
    "--set=extraVolumeMounts[0].name=previous",
    "--set=extraVolumeMounts[0].mountPath=/previous",
    "--set=extraEnv[0].name=PYTHONPATH",
    "--set=extraEnv[0].value=/previous/operator.zip",
)
NOT_MOUNTED = tuple(f"--set-json={value}=[]" for value in ("extraVolumes", "extraVolumeMounts", "extraEnv"))
OLD, NEW = "django-task-worker:dev", "django-task-worker:next"


def upgrade(release: Release, chart: Path, *values: str) -> None:
    """Upgrade the release, or downgrade it."""
    release.helm(
        "upgrade",
        NAME,
        str(chart),
        "--reset-then-reuse-values",
        "--set=workerImage.revision=",
        *values,
        "--wait",
        PATIENTLY,
    )


@pytest.fixture
def previous(operator: Release, kind_node: str) -> Iterator[Release]:
    """The release in its previous version; the node has its worker image under a newer tag, too."""
    images = [f"docker.io/library/{image}" for image in (OLD, NEW)]
    in_node(kind_node, "ctr", "--namespace=k8s.io", "images", "tag", "--force", *images)
    # An interrupted run leaves it.
    operator.kubectl("delete", "configmap", "previous", "--ignore-not-found")
    operator.kubectl("create", "configmap", "previous", f"--from-file={PREVIOUS / 'operator.zip'}")
    upgrade(operator, PREVIOUS / "chart.tgz", *MOUNTED)
    yield operator
    operator.install()
    operator.kubectl("delete", "configmap", "previous")


def incarnations(worker: TaskWorker) -> set[tuple[str, int]]:
    """The pods, and how often their containers were restarted."""

    def restarts(pod: dict[str, Any]) -> int:
        # Those of a new pod come later.
        kinds = ("initContainerStatuses", "containerStatuses")
        statuses = [status for kind in kinds for status in pod["status"].get(kind, ())]
        return sum(status["restartCount"] for status in statuses)

    return {(pod["metadata"]["uid"], restarts(pod)) for pod in worker.pods}


def runtimes(worker: TaskWorker) -> set[str]:
    """The images from which the pods have their runtime."""
    return {
        container["image"]
        for pod in worker.pods
        for container in pod["spec"]["initContainers"]
        if container["name"] == "django-db-worker"
    }


def test_an_upgrade_under_load_and_back_restarts_no_pod_and_loses_no_task(
    make_worker: MakeWorker, database: Database, previous: Release
) -> None:
    worker = make_worker(scaling={"minReplicas": 2})
    staged = make_worker(
        "staged", queues=["others"], runtimeUpgrade="Staged", scaling={"minReplicas": 1, "maxReplicas": 1}
    )
    staged.scales_to(1)
    database.close_gate(1)
    running = database.enqueue(chores.wait_at, 1, times=3)
    eventually(lambda: database.statuses(running) == ["RUNNING"] * 3, "all pods have something to do")
    pods, names = incarnations(worker), worker.pod_names
    waiting = database.enqueue(chores.add, 1, 2, times=20)
    eventually(lambda: worker.status.get("pendingTasks"), "and more waits")
    assert (worker.status["runtime"], worker.status.get("pendingRuntime")) == (OLD, None)

    upgrade(previous, CHART, *NOT_MOUNTED, "--set=workerImage.tag=next")
    eventually(lambda: worker.status.get("pendingRuntime") == NEW, "the new version has seen the worker")
    assert incarnations(worker) == pods

    previous.helm("rollback", NAME, "--wait", PATIENTLY)
    eventually(lambda: not worker.status.get("pendingRuntime"), "the previous version has seen it again")
    assert incarnations(worker) == pods

    upgrade(previous, CHART, *NOT_MOUNTED, "--set=workerImage.tag=next")
    eventually(lambda: worker.status.get("pendingRuntime") == NEW, "the new version has seen it again")
    assert incarnations(worker) == pods
    assert worker.status["runtime"] == OLD
    (told, *_) = staged.tells("RuntimeUpgraded")
    assert told["note"].endswith(f"their runtime was {OLD}, and will be {NEW}.")
    eventually(lambda: runtimes(staged) == {NEW}, "the worker that asks for it has the new runtime soon")
    assert incarnations(worker) == pods, "and no other"

    database.open_gate(1)
    results = database.finish(running + waiting)
    assert set(database.statuses(results)) == {"SUCCESSFUL"}
    assert all(len(result.worker_ids) == 1 and result.worker_ids[0] in names for result in results)

    worker.scales_to(2)
    kept = incarnations(worker)
    assert kept <= pods
    worker.patch(verbosity=2)
    eventually(lambda: worker.status["runtime"] == NEW, "the next rollout takes the new runtime")
    eventually(lambda: runtimes(worker) == {NEW} and len(worker.pods) == 2, "in all pods")
    assert not incarnations(worker) & kept
    assert "pendingRuntime" not in worker.status
    database.finish(database.enqueue(chores.add, 1, 2))


@pytest.mark.usefixtures("kind_node")
def test_the_definition_may_go_before_the_release(
    make_worker: MakeWorker, database: Database, operator: Release
) -> None:
    """It takes all workers with it; the release can be removed and installed again all the same.

    Not on a cluster that may be somebody's own: all workers there would be deleted.
    """
    worker = make_worker(scaling={"minReplicas": 1})
    worker.scales_to(1)
    operator.kubectl("delete", "crd", "djangotaskworkers.djangotasks.dev", PATIENTLY)
    eventually(lambda: worker.deployment is None, "the worker's objects are gone")
    operator.uninstall()
    operator.install()

    again = make_worker(scaling={"minReplicas": 1})
    again.scales_to(1)
    database.finish(database.enqueue(chores.add, 1, 2))
