"""A restricted pod template refuses what a real API server refuses by the standard "baseline"."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import yaml
from tests.waiting import PATIENTLY

from django_task_operator.resources import forbidden_fields

if TYPE_CHECKING:
    from tests.conftest import Kubectl

ELSEWHERE = {"host": "10.0.0.1", "port": 1}
APP_ARMOR = "container.apparmor.security.beta.kubernetes.io/worker"
# Of pods and of containers.
SECURITY: list[dict[str, Any]] = [
    *({"seccompProfile": {"type": kind}} for kind in ("Unconfined", "RuntimeDefault")),
    *({"appArmorProfile": {"type": kind}} for kind in ("Unconfined", "RuntimeDefault")),
    *(
        {"seLinuxOptions": {"type": kind}}
        for kind in ("container_t", "container_init_t", "container_kvm_t", "container_engine_t", "spc_t")
    ),
    *({"seLinuxOptions": {part: "x"}} for part in ("user", "role", "level")),
    {"windowsOptions": {"hostProcess": True}},
]
CONTAINERS: list[dict[str, Any]] = [
    *({"securityContext": context} for context in SECURITY),
    *(
        {"securityContext": {"capabilities": {"add": [name]}}}
        for name in ("ALL", "SYS_ADMIN", "CAP_SYS_ADMIN", "NET_RAW", "NET_BIND_SERVICE", "SETFCAP", "MKNOD")
    ),
    *({"securityContext": {name: True}} for name in ("privileged", "allowPrivilegeEscalation")),
    {"securityContext": {"procMount": "Unmasked"}},
    {"ports": [{"containerPort": 80, "hostPort": 80}]},
    *(
        {probe: {how: ELSEWHERE}}
        for probe in ("startupProbe", "livenessProbe", "readinessProbe")
        for how in ("httpGet", "tcpSocket")
    ),
    *(
        {"lifecycle": {when: {how: ELSEWHERE}}}
        for when in ("postStart", "preStop")
        for how in ("httpGet", "tcpSocket")
    ),
]
PODS: list[dict[str, Any]] = [
    *({name: True} for name in ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace")),
    *({"securityContext": context} for context in SECURITY),
    *(
        {"securityContext": {"sysctls": [{"name": name, "value": "1"}]}}
        for name in ("kernel.msgmax", "net.core.somaxconn", "net.ipv4.tcp_syncookies", "net.ipv4.tcp_rmem")
    ),
    *(
        {"volumes": [{"name": "v", kind: source}]}
        for kind, source in {
            "hostPath": {"path": "/"},
            "emptyDir": {},
            "secret": {"secretName": "a"},
            "csi": {"driver": "a.b"},
            "nfs": {"server": "a", "path": "/"},
        }.items()
    ),
    *({"containers": [{"name": "worker", "image": "shop:1", **fields}]} for fields in CONTAINERS),
    # A native sidecar may have everything that a container may.
    *(
        {"initContainers": [{"name": "proxy", "image": "proxy:1", "restartPolicy": "Always", **fields}]}
        for fields in CONTAINERS
    ),
]


def test_whatever_the_api_server_refuses_is_refused(kubectl: Kubectl, namespace: str) -> None:
    kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=baseline")
    here = kubectl.within(namespace)
    here("wait", "--for=create", PATIENTLY, "serviceaccount/default")
    templates: list[tuple[dict[str, Any], dict[str, Any]]] = [
        *(({"annotations": {APP_ARMOR: profile}}, {}) for profile in ("unconfined", "runtime/default")),
        *(({}, spec) for spec in PODS),
    ]
    manifests = [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"p-{number}", **metadata},
            "spec": {"containers": [{"name": "worker", "image": "shop:1"}], **spec},
        }
        for number, (metadata, spec) in enumerate(templates)
    ]
    pods = {"apiVersion": "v1", "kind": "List", "items": manifests}
    done = here.run("create", "--dry-run=server", "-f-", manifest=pods)
    refused = {int(number) for number in re.findall(r'pods "p-(\d+)" is forbidden: violates', done.stderr)}
    assert len(refused) > len(templates) / 3, done.stderr
    missed = [templates[number] for number in sorted(refused) if not forbidden_fields(*templates[number])]
    assert not missed, yaml.safe_dump(missed)
