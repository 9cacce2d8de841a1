"""What a request asks for, from its method and path: pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from django_task_operator.metrics_api.figures import METRICS

GROUP = "external.metrics.k8s.io"
VERSION = "v1beta1"
ROOT = f"/apis/{GROUP}/{VERSION}"


class Document(Enum):
    """A document that is the same for all users."""

    HEALTH = "/healthz"
    PATHS = "/"
    GROUPS = "/apis"
    GROUP = f"/apis/{GROUP}"
    RESOURCES = ROOT
    OPENAPI_V2 = "/openapi/v2"
    OPENAPI_V3 = "/openapi/v3"
    OPENAPI_V3_GROUP = f"/openapi/v3{ROOT}"


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric of a namespace."""

    namespace: str
    name: str


_DOCUMENTS = {document.value: document for document in Document}
_DOCUMENTS |= dict.fromkeys(("/livez", "/readyz"), Document.HEALTH)


def wanted(path: str) -> Document | Metric | None:
    """Return what is at a path; None if nothing is."""
    path = path.rstrip("/") or "/"
    if path in _DOCUMENTS:
        return _DOCUMENTS[path]
    match path.removeprefix(f"{ROOT}/").split("/"):
        case ["namespaces", namespace, name] if path.startswith(f"{ROOT}/") and namespace and name in METRICS:
            return Metric(namespace, name)
    return None
