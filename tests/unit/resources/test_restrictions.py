"""Fields that a restricted pod template may not have."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from django_task_operator.resources import forbidden_fields


def container(**fields: Any) -> dict[str, Any]:
    return {"containers": [{"name": "proxy"}, {"name": "worker", **fields}]}


def secured(**fields: Any) -> dict[str, Any]:
    return container(securityContext=fields)


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"hostNetwork": True}, "hostNetwork"),
        ({"hostPID": True}, "hostPID"),
        ({"hostIPC": True}, "hostIPC"),
        ({"nodeName": "node-1"}, "nodeName"),
        ({"serviceAccountName": "deployer"}, "serviceAccountName"),
        ({"serviceAccount": "deployer"}, "serviceAccount"),
        ({"automountServiceAccountToken": True}, "automountServiceAccountToken"),
        # This takes the operator's own False away, and Kubernetes' default is True.
        ({"automountServiceAccountToken": None}, "automountServiceAccountToken"),
        ({"priorityClassName": "system-node-critical"}, "priorityClassName"),
        ({"volumes": [{"name": "a"}, {"name": "b", "hostPath": {"path": "/"}}]}, "volumes[1].hostPath"),
        (
            {"volumes": [{"name": "a", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]},
            "volumes[0].projected.sources[0].serviceAccountToken",
        ),
        (
            {"securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}},
            "securityContext.sysctls[0].name",
        ),
        (
            {"securityContext": {"seccompProfile": {"type": "Unconfined"}}},
            "securityContext.seccompProfile.type",
        ),
        (
            {"securityContext": {"windowsOptions": {"hostProcess": True}}},
            "securityContext.windowsOptions.hostProcess",
        ),
        (
            {"securityContext": {"seLinuxOptions": {"type": "spc_t"}}},
            "securityContext.seLinuxOptions.type",
        ),
        (secured(privileged=True), "containers[1].securityContext.privileged"),
        (secured(allowPrivilegeEscalation=True), "containers[1].securityContext.allowPrivilegeEscalation"),
        (
            secured(capabilities={"add": ["CHOWN", "SYS_ADMIN"]}),
            "containers[1].securityContext.capabilities.add[1]",
        ),
        (secured(procMount="Unmasked"), "containers[1].securityContext.procMount"),
        (
            secured(appArmorProfile={"type": "Unconfined"}),
            "containers[1].securityContext.appArmorProfile.type",
        ),
        (container(ports=[{"containerPort": 1, "hostPort": 80}]), "containers[1].ports[0].hostPort"),
        (
            container(livenessProbe={"httpGet": {"host": "10.0.0.1"}}),
            "containers[1].livenessProbe.httpGet.host",
        ),
        (
            container(lifecycle={"preStop": {"tcpSocket": {"host": "10.0.0.1"}}}),
            "containers[1].lifecycle.preStop.tcpSocket.host",
        ),
        (
            {"initContainers": [{"name": "a", "securityContext": {"privileged": True}}]},
            "initContainers[0].securityContext.privileged",
        ),
    ],
)
def test_what_leads_out_of_the_namespace_is_named(spec: dict[str, Any], field: str) -> None:
    assert forbidden_fields({}, spec) == [f"spec.{field}"]


APP_ARMOR = "container.apparmor.security.beta.kubernetes.io"


@pytest.mark.parametrize(
    ("annotations", "forbidden"),
    [
        ({f"{APP_ARMOR}/worker": "unconfined"}, [f"metadata.annotations[{APP_ARMOR}/worker]"]),
        ({f"{APP_ARMOR}/worker": "runtime/default", f"{APP_ARMOR}/proxy": "localhost/mine"}, []),
        ({f"{APP_ARMOR}/worker": None, "team": "shop"}, []),
        ({}, []),
    ],
)
def test_an_annotation_that_stands_for_a_field_is_named_too(
    annotations: dict[str, Any], forbidden: list[str]
) -> None:
    assert forbidden_fields({"annotations": annotations}, {}) == forbidden


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"serviceAccountName": None, "hostNetwork": None, "volumes": [{"name": "a", "hostPath": None}]},
        {"priorityClassName": "batch"},
        {"hostNetwork": False, "serviceAccountName": "default", "automountServiceAccountToken": False},
        {"volumes": [{"name": "tmp", "emptyDir": {}}, {"name": "a", "secret": {"secretName": "a"}}]},
        {
            "securityContext": {
                "runAsUser": 1234,
                "fsGroup": 1,
                "sysctls": [{"name": "net.ipv4.tcp_syncookies"}, {"name": "net.ipv4.tcp_rmem"}],
            }
        },
        {"nodeSelector": {"pool": "workers"}, "tolerations": [{"operator": "Exists"}], "affinity": {}},
        secured(privileged=False, capabilities={"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}),
        container(ports=[{"containerPort": 1}], livenessProbe={"httpGet": {"path": "/", "port": 1}}),
    ],
)
def test_what_stays_within_it_is_let_be(spec: dict[str, Any]) -> None:
    assert forbidden_fields({}, spec) == []


NAMES = ["containers", "volumes", "hostPath", "securityContext", "capabilities", "add", "serviceAccountName"]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3),
    max_leaves=20,
)


def test_without_a_template_nothing_is_refused() -> None:
    assert forbidden_fields({"annotations": None}, {}) == []


@given(st.dictionaries(st.sampled_from(NAMES), VALUES))
@example({"serviceAccountName": [], "containers": [{"securityContext": {"capabilities": {"add": [{}]}}}]})
def test_a_value_of_a_wrong_type_is_left_to_the_api_server(spec: dict[str, Any]) -> None:
    forbidden_fields({"annotations": spec}, spec)
