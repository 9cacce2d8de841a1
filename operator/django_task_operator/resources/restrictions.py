"""What a pod template must not contain if users who create workers must not gain permissions through pods.

Users who may create a DjangoTaskWorker get pods with any template from the operator. If tenants may create
workers but not pods, the chart's ``podTemplates.restricted`` refuses everything that reaches outside the
namespace or uses another identity: what the Pod Security Standard "baseline" forbids
(https://kubernetes.io/docs/concepts/security/pod-security-standards/), service accounts, node names, and the
priority of the system.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django_task_operator.spec import Manifest

# The capabilities that "baseline" lets a container add.
_HARMLESS_CAPABILITIES = {
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
}
_HARMLESS_SYSCTLS = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
}

# Types of SELinux that "baseline" lets a container have.
_HARMLESS_SELINUX_TYPES = {"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}

type Refuses = Callable[[Any], bool]


def _is_anything(value: object) -> bool:
    return value is not None


def _is_not_false(value: object) -> bool:
    # Null takes the operator's own False away, and Kubernetes' default is True.
    return value is not False


def _is_of_the_system(value: object) -> bool:
    return isinstance(value, str) and value.startswith("system-")


def _is_none_of(names: set[str]) -> Refuses:
    return lambda value: isinstance(value, str) and value not in names


def _is_unconfined(value: object) -> bool:
    return value == "Unconfined"


_is_another_account = _is_none_of({"", "default"})


_OF_EVERY_SECURITY_CONTEXT: dict[str, Refuses] = {
    "windowsOptions.hostProcess": bool,
    "seccompProfile.type": _is_unconfined,
    "appArmorProfile.type": _is_unconfined,
    "seLinuxOptions.type": _is_none_of(_HARMLESS_SELINUX_TYPES),
    "seLinuxOptions.user": bool,
    "seLinuxOptions.role": bool,
}
_HANDLERS = ("startupProbe", "livenessProbe", "readinessProbe", "lifecycle.postStart", "lifecycle.preStop")

# The path below a pod's spec (`[]`: each entry of a list), and which values are refused there.
_POD: dict[str, Refuses] = {
    "hostNetwork": bool,
    "hostPID": bool,
    "hostIPC": bool,
    "nodeName": bool,
    "serviceAccountName": _is_another_account,
    "serviceAccount": _is_another_account,
    "automountServiceAccountToken": _is_not_false,
    # Pods of others would be evicted for it.
    "priorityClassName": _is_of_the_system,
    "volumes[].hostPath": _is_anything,
    "volumes[].projected.sources[].serviceAccountToken": _is_anything,
    "securityContext.sysctls[].name": _is_none_of(_HARMLESS_SYSCTLS),
    **{f"securityContext.{path}": refuses for path, refuses in _OF_EVERY_SECURITY_CONTEXT.items()},
}
_CONTAINER: dict[str, Refuses] = {
    "ports[].hostPort": bool,
    "securityContext.privileged": bool,
    "securityContext.allowPrivilegeEscalation": bool,
    "securityContext.capabilities.add[]": _is_none_of(_HARMLESS_CAPABILITIES),
    "securityContext.procMount": _is_none_of({"Default"}),
    **{f"securityContext.{path}": refuses for path, refuses in _OF_EVERY_SECURITY_CONTEXT.items()},
    # The kubelet would make the request, from the node.
    **{f"{handler}.{how}.host": bool for handler in _HANDLERS for how in ("httpGet", "tcpSocket")},
}
_FORBIDDEN = _POD | {
    f"{group}[].{path}": refuses
    for group in ("containers", "initContainers", "ephemeralContainers")
    for path, refuses in _CONTAINER.items()
}


# Kubernetes makes the field appArmorProfile of it.
_APP_ARMOR = "container.apparmor.security.beta.kubernetes.io/"


def forbidden_fields(metadata: Manifest, pod_spec: Manifest) -> list[str]:
    """Return the fields of ``podTemplate`` that a restricted template must not have, in order.

    Values of a wrong type are left to the API server to refuse.
    """
    annotations = metadata.get("annotations") or {}
    return sorted(
        [
            f"metadata.annotations[{name}]"
            for name, value in annotations.items()
            if _is_unconfining(name, value)
        ]
        + [
            f"spec.{field}"
            for path, refuses in _FORBIDDEN.items()
            for field, value in _at(pod_spec, path.split("."), "")
            if refuses(value)
        ]
    )


def _is_unconfining(annotation: str, value: object) -> bool:
    return annotation.startswith(_APP_ARMOR) and value == "unconfined"


def _at(value: object, path: list[str], field: str) -> Iterator[tuple[str, object]]:
    """Return each value at a path, with its field."""
    if not path:
        yield field, value
        return
    name, *rest = path
    if not isinstance(value, dict) or (key := name.removesuffix("[]")) not in value:
        return
    field = f"{field}.{key}" if field else key
    if key == name:
        yield from _at(value[key], rest, field)
    elif isinstance(value[key], list):
        for number, each in enumerate(value[key]):
            yield from _at(each, rest, f"{field}[{number}]")
