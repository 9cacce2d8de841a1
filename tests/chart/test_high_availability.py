"""The chart with more than one operator: what is rendered, and what an election may do."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from tests.chart.test_chart import helm, one, render

if TYPE_CHECKING:
    from tests.conftest import Kubectl

NAME = "django-task-operator"


def test_one_operator_needs_no_more_than_a_lease() -> None:
    manifests = render()
    deployment = one(manifests, "Deployment")["spec"]

    assert deployment["replicas"] == 1
    assert "affinity" not in deployment["template"]["spec"]
    assert "PodDisruptionBudget" not in Counter(manifest["kind"] for manifest in manifests)
    assert f"--lease={NAME}" in deployment["template"]["spec"]["containers"][0]["args"]


def test_several_keep_apart_and_are_not_evicted_together() -> None:
    manifests = render({"replicas": 3})
    deployment = one(manifests, "Deployment")["spec"]
    (term,) = deployment["template"]["spec"]["affinity"]["podAntiAffinity"][
        "preferredDuringSchedulingIgnoredDuringExecution"
    ]
    budget = one(manifests, "PodDisruptionBudget")["spec"]

    assert deployment["replicas"] == 3
    assert term["podAffinityTerm"] == {
        "topologyKey": "kubernetes.io/hostname",
        "labelSelector": deployment["selector"],
    }
    assert budget == {"maxUnavailable": 1, "selector": deployment["selector"]}


def test_an_affinity_of_the_users_own_is_all_there_is() -> None:
    own = {"nodeAffinity": {"a": "b"}}
    pod = one(render({"replicas": 2, "affinity": own}), "Deployment")["spec"]["template"]["spec"]

    assert pod["affinity"] == own


def test_a_new_pod_is_ready_before_the_old_one_goes() -> None:
    assert one(render(), "Deployment")["spec"]["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
    }


@pytest.mark.parametrize("replicas", [0, -1, 1.5, "2"])
def test_names_a_wrong_number_of_replicas(replicas: Any) -> None:
    done = helm("template", "a", "charts/django-task-operator", values={"replicas": replicas})

    assert done.returncode != 0
    assert "at '/replicas'" in done.stderr


@pytest.mark.parametrize("release", [NAME, "shop"])
def test_metrics_are_those_of_the_leader(release: str) -> None:
    manifests = render(release=release)
    deployment = one(manifests, "Deployment")
    services = [manifest["spec"] for manifest in manifests if manifest["kind"] == "Service"]

    leader = {
        **deployment["spec"]["selector"]["matchLabels"],
        "djangotasks.dev/leader": deployment["metadata"]["name"],
    }
    # Prometheus' and the HPAs'.
    assert [service["selector"] for service in services] == [leader, leader]
    # No pod is born with it.
    assert "djangotasks.dev/leader" not in deployment["spec"]["template"]["metadata"]["labels"]


def test_refuses_a_label_that_says_who_leads() -> None:
    done = helm(
        "template", "a", "charts/django-task-operator", values={"podLabels": {"djangotasks.dev/leader": "a"}}
    )

    assert "invalid propertyName 'djangotasks.dev/leader'" in done.stderr


@pytest.fixture
def namespaces(kubectl: Kubectl, namespace: str) -> tuple[str, str]:
    """The namespace of the release and another one, with the rights for the election applied."""
    manifests = render({"watchNamespaces": ["default"]}, "election", "serviceaccount", namespace=namespace)
    kubectl("apply", "-f", "-", manifest={"apiVersion": "v1", "kind": "List", "items": manifests})
    return namespace, "default"


def test_an_election_may_touch_its_own_lease_and_namespace_alone(
    kubectl: Kubectl, namespaces: tuple[str, str]
) -> None:
    own, other = namespaces

    def may(verb: str, what: str, namespace: str = own) -> bool:
        user = f"system:serviceaccount:{own}:{NAME}"
        done = kubectl.run("auth", "can-i", verb, what, f"--as={user}", f"--namespace={namespace}")
        return done.stdout.strip() == "yes"

    assert all(may(verb, f"leases/{NAME}") for verb in ("get", "update"))
    assert may("create", "leases")
    assert all(may(verb, "pods") for verb in ("list", "patch"))
    assert not any(may(verb, f"leases/{NAME}") for verb in ("patch", "delete", "watch"))
    assert not any(may(verb, "leases/another") for verb in ("get", "update"))
    assert not any(may(verb, "pods") for verb in ("get", "watch", "create", "update", "delete"))
    assert not any(may(verb, f"leases/{NAME}", other) for verb in ("get", "update", "create"))
    assert not may("patch", "pods", other)
