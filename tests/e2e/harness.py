"""Helpers for tests in the cluster: cheap reads, waits with a deadline, and a worker."""

from __future__ import annotations

import json
import logging
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
import urllib3
from kubernetes import config
from tests.conftest import tool
from tests.waiting import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import Kubectl

type Manifest = dict[str, Any]

log = logging.getLogger(__name__)

STEP_SECONDS = 0.2


class Unavailable(Exception):
    """The API server does not answer, or answers with an error."""


def eventually[T](probe: Callable[[], T | None], what: str, *, within: float = PATIENCE_S) -> T:
    """Return the first true result of ``probe``; the test fails without one ``within`` so many seconds."""
    started = time.monotonic()
    deadline = started + within
    while True:
        try:
            seen = probe()
        except Unavailable as error:
            last: object = error
        else:
            if seen:
                log.info("%.1f s for: %s", time.monotonic() - started, what)
                return seen
            last = seen
        if time.monotonic() > deadline:
            _give_up(f"not within {within:g} s: {what} (last seen: {last!r})")
        time.sleep(STEP_SECONDS)


def always(probe: Callable[[], object], what: str, *, seconds: float) -> None:
    """Let the test fail if ``probe`` is false at any time within so many seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not (seen := probe()):
            _give_up(f"no longer: {what} (seen: {seen!r})")
        time.sleep(STEP_SECONDS)


def _give_up(message: str) -> NoReturn:
    __tracebackhide__ = True
    pytest.fail(message)


class Api:
    """Reads objects in a few milliseconds; kubectl would take a hundred."""

    def __init__(self, kubeconfig: Path) -> None:
        self._client = config.new_client_from_config(config_file=str(kubeconfig))

    def get(self, path: str) -> Manifest | None:
        """The object or list at a path; None if there is none."""
        request = self._client.param_serialize(
            "GET", path, header_params={"Accept": "application/json"}, auth_settings=["BearerToken"]
        )
        try:
            answer = self._client.call_api(*request, _request_timeout=10)
            data = answer.response.data
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Unavailable(path) from error
        if answer.status == 404:
            return None
        if answer.status != 200:
            # One that has just started answers 403 until it has read its roles.
            raise Unavailable(f"{path}: {answer.status} {data!r}")
        found: Manifest = json.loads(data)
        return found

    def post(self, path: str, manifest: Manifest) -> int:
        """Send a request; return the status of the answer."""
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        request = self._client.param_serialize(
            "POST", path, header_params=headers, body=manifest, auth_settings=["BearerToken"]
        )
        try:
            return int(self._client.call_api(*request, _request_timeout=10).response.status)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Unavailable(path) from error

    def items(self, path: str) -> list[Manifest]:
        listed = self.get(path)
        assert listed is not None, path
        found: list[Manifest] = listed["items"]
        return found


@dataclass(frozen=True)
class TaskWorker:
    """A DjangoTaskWorker in a test's namespace, and what was made for it."""

    kubectl: Kubectl
    api: Api
    namespace: str
    name: str

    @property
    def manifest(self) -> Manifest | None:
        path = f"/apis/djangotasks.dev/v1alpha1/namespaces/{self.namespace}/djangotaskworkers/{self.name}"
        return self.api.get(path)

    @property
    def status(self) -> Manifest:
        status: Manifest = (self.manifest or {}).get("status", {})
        return status

    @property
    def deployment(self) -> Manifest | None:
        return self.api.get(f"/apis/apps/v1/namespaces/{self.namespace}/deployments/{self.name}")

    @property
    def replicas(self) -> int | None:
        """The Deployment's ``spec.replicas``; None without a Deployment."""
        deployment = self.deployment
        return deployment["spec"]["replicas"] if deployment else None

    @property
    def pods(self) -> list[Manifest]:
        """The pods that are not being deleted."""
        selector = f"labelSelector=djangotasks.dev/worker={self.name}"
        pods = self.api.items(f"/api/v1/namespaces/{self.namespace}/pods?{selector}")
        return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]

    @property
    def pod_names(self) -> set[str]:
        return {pod["metadata"]["name"] for pod in self.pods}

    def events(self, reason: str) -> list[Manifest]:
        events = self.api.items(f"/apis/events.k8s.io/v1/namespaces/{self.namespace}/events")
        return [e for e in events if e["regarding"].get("name") == self.name and e["reason"] == reason]

    def evict(self, pod: str) -> bool:
        """Have a pod evicted, as ``kubectl drain`` does; whether its budget allows it by now."""
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}}
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}/eviction"
        # 429 until the budget has been counted.
        return self.api.post(path, eviction) in {200, 201}

    def patch(self, **spec: object) -> None:
        """Change fields of the spec as a user does."""
        self.kubectl("patch", "djtw", self.name, "--type=merge", "--patch", json.dumps({"spec": spec}))

    def becomes(self, condition: str, status: str, reason: str | None = None) -> str:
        """Wait for a condition, and return its message."""

        def seen() -> Manifest | None:
            for found in self.status.get("conditions", ()):
                if (found["type"], found["status"]) == (condition, status) and reason in {
                    None,
                    found["reason"],
                }:
                    return dict(found)
            return None

        return str(eventually(seen, f"{self.name}: {condition}={status} {reason or ''}")["message"])

    def tells(self, reason: str, words: str = "", *, times: int = 1) -> list[Manifest]:
        """Wait for events with these words, and return them: they are written after what they are about."""

        def told() -> list[Manifest] | None:
            found = [event for event in self.events(reason) if words in event["note"]]
            return found if len(found) >= times else None

        return eventually(told, f"event {reason} {words}")

    def warns(self, reason: str) -> str:
        """Wait for a warning event, and return its note."""
        (event, *_) = self.tells(reason)
        assert event["type"] == "Warning", event
        note: str = event["note"]
        return note

    def scales_to(self, replicas: int) -> None:
        """Wait until the Deployment wants so many pods, and has exactly these."""

        def settled() -> bool:
            deployment = self.deployment or {"spec": {}, "status": {}}
            status = deployment["status"]
            return bool(
                deployment["spec"].get("replicas") == replicas
                and status.get("replicas", 0) == status.get("readyReplicas", 0) == replicas
                and status.get("observedGeneration") == deployment["metadata"]["generation"]
            )

        eventually(settled, f"{self.name}: {replicas} replicas")


@contextmanager
def deployment_writes(kubectl: Kubectl) -> Iterator[Callable[[], list[tuple[int, int]]]]:
    """Watch the only Deployment of a namespace; returns (generation, replicas) of every write so far."""
    columns = '{.metadata.generation} {.spec.replicas}{"\\n"}'
    command = [
        tool("kubectl"),
        f"--kubeconfig={kubectl.kubeconfig}",
        f"--namespace={kubectl.namespace}",
        "get",
        "deployments",
        "--watch",
        f"--output=jsonpath={columns}",
    ]
    with tempfile.TemporaryFile("w+") as output, subprocess.Popen(command, stdout=output) as watch:

        def watched() -> list[tuple[int, int]]:
            output.seek(0)
            lines = [line.split() for line in output.read().splitlines()]
            return sorted({(int(generation), int(replicas)) for generation, replicas in lines})

        def writes() -> list[tuple[int, int]]:
            # What can be read already may reach the watch a moment later.
            latest = kubectl("get", "deployments", "--output=jsonpath={.items[*].metadata.generation}")
            if latest:
                caught_up = f"the watch has seen generation {latest}"
                eventually(lambda: any(number >= int(latest) for number, _ in watched()), caught_up)
            return watched()

        try:
            yield writes
        finally:
            watch.terminate()
