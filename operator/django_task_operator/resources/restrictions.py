"""What a pod template must not contain if users who create workers must not gain permissions through pods.

Users who may create a DjangoTaskWorker get pods with any template from the operator. If tenants may create
workers but not pods, the chart's ``podTemplates.restricted`` refuses everything that reaches outside the
namespace or uses another identity: what the Pod Security Standard "baseline" forbids
(https://kubernetes.io/docs/concepts/security/pod-security-standards/), service accounts, and node names.
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
    "net.ipv4.tcp_syncookies",
}

# Types of SELinux that "baseline" lets a container have.
_HARMLESS_SELINUX_TYPES = {"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}

type Refuses = Callable[[Any], bool]


def _is_anything(_: object) -> bool:
    return True


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
    "automountServiceAccountToken": bool,
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


def forbidden_fields(pod_spec: Manifest) -> list[str]:
    """Return the fields of ``podTemplate.spec`` that a restricted template must not have, in order.

    Values of a wrong type are left to the API server to refuse.
    """
    return sorted(
        field
        for path, refuses in _FORBIDDEN.items()
        for field, value in _at(pod_spec, path.split("."), "")
        if value is not None and refuses(value)
    )


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
