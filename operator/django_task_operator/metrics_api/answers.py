"""The bodies of responses, in the format of the API server's clients: pure."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from django_task_operator.metrics_api.figures import METRICS
from django_task_operator.metrics_api.paths import GROUP, ROOT, VERSION, Document

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from django_task_operator.metrics_api.figures import Item

type Body = dict[str, Any]

# metav1.StatusReason, for each status code in use.
_REASONS = {
    HTTPStatus.BAD_REQUEST: "BadRequest",
    HTTPStatus.UNAUTHORIZED: "Unauthorized",
    HTTPStatus.FORBIDDEN: "Forbidden",
    HTTPStatus.NOT_FOUND: "NotFound",
    HTTPStatus.METHOD_NOT_ALLOWED: "MethodNotAllowed",
    HTTPStatus.INTERNAL_SERVER_ERROR: "InternalError",
    HTTPStatus.SERVICE_UNAVAILABLE: "ServiceUnavailable",
}


def status(code: HTTPStatus, message: str) -> Body:
    """Build a Status object for an error."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": _REASONS[code],
        "code": int(code),
    }


def metric_values(metric: str, items: Iterable[Item]) -> Body:
    """Build the list of metric values that an HPA reads."""
    return {
        "kind": "ExternalMetricValueList",
        "apiVersion": f"{GROUP}/{VERSION}",
        "metadata": {},
        "items": [
            {
                "metricName": metric,
                "metricLabels": dict(item.labels),
                "timestamp": f"{item.at:%Y-%m-%dT%H:%M:%SZ}",
                "value": item.value,
            }
            for item in items
        ],
    }


_VERSION: Body = {"groupVersion": f"{GROUP}/{VERSION}", "version": VERSION}
_GROUP: Body = {"name": GROUP, "versions": [_VERSION], "preferredVersion": _VERSION}
_INFO: Body = {"title": "django-task-operator", "version": VERSION}
_LIST = "io.k8s.metrics.pkg.apis.external_metrics.v1beta1.ExternalMetricValueList"
_KIND = {"group": GROUP, "version": VERSION, "kind": "ExternalMetricValueList"}
_SCHEMA: Body = {
    "description": "A list of values for a given metric for some set of labels.",
    "type": "object",
    "required": ["items"],
    "properties": {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"type": "object"},
        "items": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["metricName", "metricLabels", "timestamp", "value"],
                "properties": {
                    "metricName": {"type": "string"},
                    "metricLabels": {"type": "object", "additionalProperties": {"type": "string"}},
                    "timestamp": {"type": "string", "format": "date-time"},
                    "value": {"type": "string"},
                },
            },
        },
    },
    "x-kubernetes-group-version-kind": [_KIND],
}


def _operation(answer: Body) -> Body:
    return {
        "description": "read the values of a metric",
        "operationId": "listExternalMetricsV1beta1NamespacedMetric",
        "tags": ["externalMetrics_v1beta1"],
        "responses": {"200": {"description": "OK", **answer}},
        "x-kubernetes-action": "list",
        "x-kubernetes-group-version-kind": _KIND,
    }


_PATH = f"{ROOT}/namespaces/{{namespace}}/{{metric}}"
_PARAMETERS = (("namespace", "path"), ("metric", "path"), ("labelSelector", "query"))

DOCUMENTS: Mapping[Document, Body] = {
    Document.PATHS: {"paths": sorted(document.value for document in Document if document.value != "/")},
    Document.GROUPS: {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_GROUP]},
    Document.GROUP: {"kind": "APIGroup", "apiVersion": "v1", **_GROUP},
    Document.RESOURCES: {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{GROUP}/{VERSION}",
        "resources": [
            {
                "name": metric,
                "singularName": "",
                "namespaced": True,
                "kind": "ExternalMetricValueList",
                "verbs": ["get"],
            }
            for metric in METRICS
        ],
    },
    Document.OPENAPI_V2: {
        "swagger": "2.0",
        "info": _INFO,
        "paths": {
            _PATH: {
                "get": {
                    **_operation({"schema": {"$ref": f"#/definitions/{_LIST}"}}),
                    "produces": ["application/json"],
                    "parameters": [
                        {"name": name, "in": place, "type": "string", "required": place == "path"}
                        for name, place in _PARAMETERS
                    ],
                }
            }
        },
        "definitions": {_LIST: _SCHEMA},
    },
    Document.OPENAPI_V3: {
        "paths": {ROOT.removeprefix("/"): {"serverRelativeURL": f"/openapi/v3{ROOT}?hash=1"}},
    },
    Document.OPENAPI_V3_GROUP: {
        "openapi": "3.0.0",
        "info": _INFO,
        "paths": {
            _PATH: {
                "get": {
                    **_operation(
                        {
                            "content": {
                                "application/json": {"schema": {"$ref": f"#/components/schemas/{_LIST}"}}
                            }
                        }
                    ),
                    "parameters": [
                        {
                            "name": name,
                            "in": place,
                            "schema": {"type": "string"},
                            "required": place == "path",
                        }
                        for name, place in _PARAMETERS
                    ],
                }
            }
        },
        "components": {"schemas": {_LIST: _SCHEMA}},
    },
}
