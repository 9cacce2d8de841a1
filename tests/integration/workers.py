"""Manifests of workers for the tests of the CRD, and the messages for invalid ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.conftest import Kubectl

MINIMAL: dict[str, Any] = {
    "apiVersion": "djangotasks.dev/v1alpha1",
    "kind": "DjangoTaskWorker",
    "metadata": {"name": "emails", "namespace": "default"},
    "spec": {"image": "shop:1", "database": {"urlSecretRef": {"name": "shop-db"}}},
}
CONNECTION: dict[str, Any] = {
    "engine": "PostgreSQL",
    "secretRef": {"name": "shop-db"},
    "host": {"value": "db.shop.svc"},
    "name": {"value": "shop"},
    "user": {"key": "username"},
    "password": {"key": "password"},
}
ABSENT = object()


def changed(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """The manifest with the change merged in; ABSENT removes a field."""
    result = dict(base)
    for key, value in change.items():
        if value is ABSENT:
            result.pop(key, None)
        elif isinstance(value, dict) and isinstance(base.get(key), dict):
            result[key] = changed(base[key], value)
        else:
            result[key] = value
    return result


def worker(**spec: Any) -> dict[str, Any]:
    return changed(MINIMAL, {"spec": spec})


def by_parts(**parts: Any) -> dict[str, Any]:
    """A worker whose database is given in parts; the arguments replace those of ``CONNECTION``."""
    connection = {name: part for name, part in {**CONNECTION, **parts}.items() if part is not ABSENT}
    return worker(database={"urlSecretRef": ABSENT, "connection": connection})


def env(*variables: dict[str, Any]) -> dict[str, Any]:
    return worker(env=list(variables))


def labels(given: dict[str, str]) -> dict[str, Any]:
    return worker(podTemplate={"metadata": {"labels": given}})


def containers(*given: dict[str, Any]) -> dict[str, Any]:
    return worker(podTemplate={"spec": {"containers": list(given)}})


@dataclass(frozen=True)
class Refused:
    """A manifest, the path that the API server names, and parts of the message, in this order."""

    manifest: dict[str, Any]
    path: str
    message: tuple[str, ...]


def refused(manifest: dict[str, Any], path: str, *message: str) -> Refused:
    return Refused(manifest, path, message)


def check(kubectl: Kubectl, case: Refused) -> None:
    """Check that the manifest is refused at this path, with this message."""
    reason = kubectl.refused("create", "--dry-run=server", "-f", "-", manifest=case.manifest)

    (line,) = [line for line in reason.splitlines() if f"{case.path}: " in line and case.message[0] in line]
    found = 0
    for part in case.message:
        found = line.find(part, found)
        assert found >= 0, f"{part!r} is not in its place in {line!r}"
