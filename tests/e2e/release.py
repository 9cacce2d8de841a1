"""The operator as users install it: a release of the chart, with the image that has been built."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prometheus_client.parser import text_string_to_metric_families
from tests.conftest import ROOT, tool
from tests.e2e.harness import Api, eventually
from tests.waiting import PATIENCE_S, PATIENTLY

if TYPE_CHECKING:
    from tests.conftest import Kubectl

NAME = NAMESPACE = "django-task-operator"
LEADER_LABEL = "djangotasks.dev/leader"


@dataclass(frozen=True)
class Release:
    """The installed operator; ``kubectl`` is in its namespace."""

    kubectl: Kubectl
    api: Api

    def install(self) -> None:
        """Do what `make install` does. It takes seconds, and keeps the pod if its image is current."""
        # The nodes are busier than they should be: this keeps the operator's Lease from running out.
        here = os.environ | {"CLUSTER_KUBECONFIG": str(self.kubectl.kubeconfig), "OPERATOR_CPU": "200m"}
        command = [ROOT / "cluster" / "install"]
        done = subprocess.run(command, env=here, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def uninstall(self) -> None:
        self.helm("uninstall", NAME, "--wait", PATIENTLY)

    def helm(self, *args: str) -> str:
        where = [f"--kubeconfig={self.kubectl.kubeconfig}", f"--namespace={NAMESPACE}"]
        done = subprocess.run(
            [tool("helm"), *where, *args], capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
        assert done.returncode == 0, f"helm {' '.join(args)}: {done.stderr}"
        return done.stdout

    @property
    def pods(self) -> list[dict[str, Any]]:
        selector = f"labelSelector=app.kubernetes.io/name={NAME}"
        return self.api.items(f"/api/v1/namespaces/{NAMESPACE}/pods?{selector}")

    @property
    def pod(self) -> dict[str, Any] | None:
        """The pod that is the leader, and ready."""
        return next((pod for pod in self.ready_pods if LEADER_LABEL in pod["metadata"]["labels"]), None)

    @property
    def ready_pods(self) -> list[dict[str, Any]]:
        """The ready pods that are not being deleted."""

        def is_ready(pod: dict[str, Any]) -> bool:
            conditions = pod["status"].get("conditions", ())
            return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)

        return [pod for pod in self.pods if "deletionTimestamp" not in pod["metadata"] and is_ready(pod)]

    @property
    def incarnation(self) -> tuple[str, int]:
        """A value that changes when the operator is restarted."""
        pod = eventually(lambda: self.pod, "the operator is ready")
        assert pod
        return pod["metadata"]["uid"], pod["status"]["containerStatuses"][0]["restartCount"]

    def stop(self) -> None:
        self.kubectl("scale", f"deployment/{NAME}", "--replicas=0")
        eventually(lambda: not self.pods, "the operator's pod is gone")

    def start(self) -> None:
        self.kubectl("scale", f"deployment/{NAME}", "--replicas=1")
        eventually(lambda: self.pod, "the operator is ready")

    def kill(self) -> None:
        """Kill it with SIGKILL, so that it cannot clean up; another pod replaces it."""
        pod = eventually(lambda: self.pod, "the operator is ready")
        assert pod
        container = pod["status"]["containerStatuses"][0]["containerID"].removeprefix("containerd://")
        in_node(
            pod["spec"]["nodeName"], "ctr", "--namespace=k8s.io", "tasks", "kill", "-s", "SIGKILL", container
        )
        # The container's own restart would wait ten seconds from the second time on.
        self.kubectl("delete", "pod", pod["metadata"]["name"], "--force", "--grace-period=0", "--wait=false")

    def log(self) -> str:
        return self.kubectl("logs", f"--selector=app.kubernetes.io/name={NAME}", "--tail=-1")

    def requests(self) -> dict[tuple[str, str], float]:
        """The number of its requests to the API server so far, by method and resource."""
        port = f"services/{NAME}-metrics:8080/proxy/metrics"
        text = self.kubectl("get", "--raw", f"/api/v1/namespaces/{NAMESPACE}/{port}")
        made: dict[tuple[str, str], float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == "django_task_operator_api_requests_total":
                    kind = sample.labels["method"], sample.labels["resource"]
                    made[kind] = made.get(kind, 0.0) + sample.value
        return made


def in_node(node: str, *command: str) -> str:
    """Run a command in the container that is a kind cluster's node."""
    done = subprocess.run(
        [tool("docker"), "exec", node, *command],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout


def is_kind(node: str) -> bool:
    """Whether a node is a container on this machine, so that tests can run commands in it."""
    found = subprocess.run(
        [tool("docker"), "inspect", "--type=container", node], capture_output=True, check=False
    )
    return found.returncode == 0


def conditions(manifest: dict[str, Any]) -> str:
    """A worker's conditions as text, one per line."""
    lines = [
        f"{c['type']}={c['status']} {c['reason']}: {c['message']}"
        for c in manifest.get("status", {}).get("conditions", ())
    ]
    return "\n".join(lines) or json.dumps(manifest.get("status"))
