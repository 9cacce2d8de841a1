"""The APIService that makes the cluster's external metrics the operator's: pure."""

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
    """The object of the release that the APIService goes with."""

    name: str
    uid: str

    @property
    def reference(self) -> Manifest:
        """As it stands in ownerReferences."""
        kind = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole"}
        return {**kind, "name": self.name, "uid": self.uid}


@dataclass(frozen=True, slots=True)
class Service:
    """Where the API server finds the figures."""

    namespace: str
    name: str

    def is_of(self, api_service: Manifest) -> bool:
        """Whether that is what an APIService says."""
        service = api_service["spec"].get("service") or {}
        return (service.get("namespace"), service.get("name")) == (self.namespace, self.name)


def build(service: Service, authorities: str, owner: Owner | None) -> Manifest:
    """The APIService as it should be."""
    return {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {
            "name": NAME,
            "labels": MANAGED_BY,
            # An uninstalled release leaves no APIService without a Service behind, which would keep
            # namespaces from being deleted.
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
    """Whether nothing of what is wanted is missing."""
    metadata, expected = found["metadata"], wanted["metadata"]
    owners = {owner["uid"] for owner in metadata.get("ownerReferences", ())}
    return (
        expected["labels"].items() <= metadata.get("labels", {}).items()
        and {owner["uid"] for owner in expected["ownerReferences"]} <= owners
        and wanted["spec"].items() <= found["spec"].items()
    )


def is_held(found: Manifest, owner: Owner | None) -> bool:
    """Whether an APIService that is another's by now would still go with this release."""
    owners = {reference["uid"] for reference in found["metadata"].get("ownerReferences", ())}
    return owner is not None and owner.uid in owners


def give_up(found: Manifest, built: Manifest) -> Manifest:
    """What to apply so that an APIService that was ``built`` loses our labels and our owner, and no more."""
    metadata = {"name": NAME, "resourceVersion": found["metadata"]["resourceVersion"]}
    spec = {name: found["spec"][name] for name in built["spec"] if name in found["spec"]}
    return {**built, "metadata": metadata, "spec": spec}


def availability(found: Manifest | None, service: Service) -> Availability:
    """What an APIService means for those who ask for figures."""
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
