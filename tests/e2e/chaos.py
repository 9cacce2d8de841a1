"""A steady load of tasks while things break, with a record of how each task ended."""

from __future__ import annotations

import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psycopg
from django.db import DatabaseError, InterfaceError
from tests.e2e.harness import Unavailable, eventually
from tests.e2e.postgres import chores
from tests.e2e.release import in_node

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.harness import Manifest, TaskWorker
    from tests.e2e.postgres import Database
    from tests.e2e.release import Release

# The same image under two names: two versions.
IMAGES = ("docker.io/library/shop:dev", "shop:dev")
LONGEST_TASK_SECONDS = 3.0
DATABASE_AWAY_SECONDS = 3.0
API_PAUSED_SECONDS = 8.0
TICK_SECONDS = 0.2


@dataclass(frozen=True)
class Books:
    """How often each task ran, and how it ended."""

    statuses: Counter[str]
    runs: Counter[int]
    troubles: Counter[str]
    seconds: float

    @property
    def tasks(self) -> int:
        return sum(self.statuses.values())

    @property
    def more_than_once(self) -> int:
        return sum(tasks for times, tasks in self.runs.items() if times > 1)

    def report(self) -> str:
        """Write the tables of the benchmark's result."""
        troubles = [f"| {what} | {times} |" for what, times in sorted(self.troubles.items())]
        rows = [
            ("minutes", f"{self.seconds / 60:.0f}"),
            ("tasks", f"{self.tasks:,}"),
            ("ended SUCCESSFUL", f"{self.statuses['SUCCESSFUL']:,}"),
            ("ended otherwise, or not", f"{self.tasks - self.statuses['SUCCESSFUL']:,}"),
            ("never ran", f"{self.runs[0]:,}"),
            ("ran once", f"{self.runs[1]:,}"),
            ("ran more than once, because their pod was killed", f"{self.more_than_once:,}"),
        ]
        lines = ["## Trouble over a steady load, with orphans.policy Requeue", "", "| | |", "|---|---|"]
        lines += [f"| {what} | {value} |" for what, value in rows]
        return "\n".join([*lines, "", "| trouble | times |", "|---|---|", *troubles, ""])


@dataclass
class Chaos:
    """Breaks one worker, its database, its operator or its API server, one after the other."""

    worker: TaskWorker
    database: Database
    operator: Release
    node: str
    dice: random.Random = field(default_factory=lambda: random.Random(6))
    made: Counter[str] = field(default_factory=Counter)
    _rolled: int = 0

    def run(self, tasks: int, seconds: float, *, trouble_every: float = 15.0) -> Books:
        """Enqueue tasks at a steady rate, break things meanwhile, and wait until all tasks have ended."""
        self.database.execute("CREATE TABLE ran (task uuid, pod text, started timestamptz DEFAULT now())")
        troubles: list[Callable[[], None]] = []
        started = time.monotonic()
        enqueued, next_trouble = 0, trouble_every
        while (now := time.monotonic() - started) < seconds or enqueued < tasks:
            due = min(tasks, int(tasks * now / seconds))
            enqueued += self._enqueue(due - enqueued)
            if next_trouble <= now < seconds:
                if not troubles:
                    troubles = [
                        self.kill_a_pod,
                        self.delete_a_pod,
                        self.kill_the_operator,
                        self.restart_the_database,
                        self.pause_the_api_server,
                        self.roll_the_image,
                    ]
                    self.dice.shuffle(troubles)
                trouble = troubles.pop()
                trouble()
                self.made[trouble.__name__.replace("_", " ")] += 1
                next_trouble = time.monotonic() - started + trouble_every
            time.sleep(TICK_SECONDS)
        eventually(self._all_ended, "every task has ended")
        return self._books(time.monotonic() - started)

    def kill_a_pod(self) -> None:
        """Kill its first process, and with it the container, which the kubelet starts again."""
        if pod := self._any_pod():
            (status,) = pod["status"]["containerStatuses"]
            container = status["containerID"].removeprefix("containerd://")
            kill = f"ctr --namespace=k8s.io tasks kill -s SIGKILL {container} || true"
            # It may have ended by itself meanwhile.
            in_node(pod["spec"]["nodeName"], "sh", "-c", kill)

    def delete_a_pod(self) -> None:
        """Kill it and remove the pod, as if its node had been lost."""
        if pod := self._any_pod():
            name = pod["metadata"]["name"]
            self.worker.kubectl("delete", "pod", name, "--force", "--grace-period=0", "--wait=false")

    def kill_the_operator(self) -> None:
        self.operator.kill()

    def restart_the_database(self) -> None:
        self.database.server.stop()
        time.sleep(DATABASE_AWAY_SECONDS)
        self.database.server.go_on()

    def pause_the_api_server(self) -> None:
        """Make it answer no requests, without closing connections."""
        pause, go_on = (f"kill -{signal} $(pidof kube-apiserver)" for signal in ("STOP", "CONT"))
        in_node(self.node, "sh", "-c", pause)
        try:
            time.sleep(API_PAUSED_SECONDS)
        finally:
            in_node(self.node, "sh", "-c", go_on)
        eventually(self._api_answers, "the API server answers")

    def roll_the_image(self) -> None:
        self.worker.patch(image=IMAGES[self._rolled % 2])
        self._rolled += 1

    def _any_pod(self) -> Manifest | None:
        """A pod whose container runs; None if there is none at the moment."""
        running = [
            pod
            for pod in self.worker.pods
            if any("running" in each["state"] for each in pod["status"].get("containerStatuses", ()))
        ]
        return self.dice.choice(running) if running else None

    def _api_answers(self) -> bool:
        return self.worker.manifest is not None

    def _enqueue(self, tasks: int) -> int:
        for number in range(tasks):
            try:
                self.database.enqueue(chores.keep_books, self.dice.uniform(0.1, LONGEST_TASK_SECONDS))
            except (DatabaseError, InterfaceError):
                # Away: the rest is enqueued later. One that was stored all the same is in the books too.
                return number
        return tasks

    def _all_ended(self) -> bool:
        try:
            return not self._statuses().keys() - {"SUCCESSFUL", "FAILED"}
        except psycopg.OperationalError as away:
            raise Unavailable from away

    def _statuses(self) -> Counter[str]:
        with self.database.server.connect(self.database.name) as connection:
            counted = connection.execute(
                "SELECT status, count(*) FROM django_tasks_database_dbtaskresult GROUP BY status"
            )
            return Counter(dict(counted.fetchall()))

    def _books(self, seconds: float) -> Books:
        with self.database.server.connect(self.database.name) as connection:
            counted = connection.execute(
                "SELECT runs, count(*) FROM ("
                "SELECT count(ran.task) AS runs FROM django_tasks_database_dbtaskresult AS result "
                "LEFT JOIN ran ON ran.task = result.id GROUP BY result.id) AS each GROUP BY runs"
            )
            runs: Counter[int] = Counter(dict(counted.fetchall()))
        return Books(self._statuses(), runs, self.made, seconds)
