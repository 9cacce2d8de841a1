"""The APIService that registers the operator for the cluster's external metrics: pure."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING

from django_task_operator.metrics_api.availability import Availability, State
from django_task_operator.metrics_api.paths import GROUP, VERSION

if TYPE_CHECKING:
    from django_task_operator.spec import Manifest

NAME = f"{VERSION}.{GROUP}"
MANAGED_BY = {"app.kubernetes.io/managed-by": "django-task-operator"}
HTTPS = 443


@dataclass(frozen=True, slots=True)
class Owner:
    """The object of the release that owns the APIService."""

    name: str
    uid: str

    @property
    def reference(self) -> Manifest:
        """Its entry in ownerReferences."""
        kind = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole"}
        return {**kind, "name": self.name, "uid": self.uid}


@dataclass(frozen=True, slots=True)
class Service:
    """The Service where the API server finds the metrics."""

    namespace: str
    name: str

    def is_of(self, api_service: Manifest) -> bool:
        """Whether an APIService points to this Service."""
        service = api_service["spec"].get("service") or {}
        return (service.get("namespace"), service.get("name")) == (self.namespace, self.name)


def build(service: Service, authorities: str, owner: Owner | None) -> Manifest:
    """Build the APIService."""
    return {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {
            "name": NAME,
            "labels": MANAGED_BY,
            # So that an uninstalled release leaves no APIService without a Service behind, which would block
            # the deletion of namespaces.
            "ownerReferences": [owner.reference] if owner else [],
        },
        "spec": {
            "service": {"namespace": service.namespace, "name": service.name, "port": HTTPS},
            "group": GROUP,
            "version": VERSION,
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
            "caBundle": base64.b64encode(authorities.encode()).decode(),
        },
    }


def is_settled(found: Manifest, wanted: Manifest) -> bool:
    """Whether everything that is wanted is present."""
    metadata, expected = found["metadata"], wanted["metadata"]
    owners = {owner["uid"] for owner in metadata.get("ownerReferences", ())}
    return (
        expected["labels"].items() <= metadata.get("labels", {}).items()
        and {owner["uid"] for owner in expected["ownerReferences"]} <= owners
        and wanted["spec"].items() <= found["spec"].items()
    )


def is_held(found: Manifest, owner: Owner | None) -> bool:
    """Whether an APIService that now belongs to another adapter is still owned by this release."""
    owners = {reference["uid"] for reference in found["metadata"].get("ownerReferences", ())}
    return owner is not None and owner.uid in owners


def give_up(found: Manifest, built: Manifest) -> Manifest:
    """Return what to apply so that an APIService that was ``built`` loses only our labels and our owner."""
    metadata = {"name": NAME, "resourceVersion": found["metadata"]["resourceVersion"]}
    spec = {name: found["spec"][name] for name in built["spec"] if name in found["spec"]}
    return {**built, "metadata": metadata, "spec": spec}


def availability(found: Manifest | None, service: Service) -> Availability:
    """Return what an APIService means for the availability of the metrics."""
    if found is None:
        return Availability(State.STARTING, detail="the APIService is not registered yet")
    if not service.is_of(found):
        other = found["spec"].get("service") or {}
        return Availability(State.FOREIGN, service=f"{other.get('namespace', '')}/{other.get('name', '')}")
    conditions = found.get("status", {}).get("conditions", ())
    available = next((one for one in conditions if one["type"] == "Available"), None)
    if available is None:
        return Availability(State.STARTING, detail="the API server has not tried to reach the operator yet")
    if available["status"] != "True":
        return Availability(State.UNREACHABLE, detail=available.get("message", ""))
    return Availability(State.SERVING)
