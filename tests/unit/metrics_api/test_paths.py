"""The documents at the API's paths, which are consistent with each other."""

from __future__ import annotations

import json
from http import HTTPStatus

import pytest

from django_task_operator.metrics_api.answers import DOCUMENTS, status
from django_task_operator.metrics_api.paths import ROOT, Document, Metric, wanted

METRIC = "django_tasks_pending"


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("/", Document.PATHS),
        ("/apis", Document.GROUPS),
        ("/apis/", Document.GROUPS),
        ("/apis/external.metrics.k8s.io", Document.GROUP),
        ("/apis/external.metrics.k8s.io/v1beta1", Document.RESOURCES),
        ("/openapi/v2", Document.OPENAPI_V2),
        ("/openapi/v3", Document.OPENAPI_V3),
        ("/openapi/v3/apis/external.metrics.k8s.io/v1beta1", Document.OPENAPI_V3_GROUP),
        *((path, Document.HEALTH) for path in ("/healthz", "/readyz", "/livez")),
        (f"{ROOT}/namespaces/shop/{METRIC}", Metric("shop", METRIC)),
        (f"{ROOT}/namespaces/shop/{METRIC}/", Metric("shop", METRIC)),
        ("/metrics", None),
        ("/healthz/etcd", None),
        ("/apis/apps", None),
        (f"{ROOT}/{METRIC}", None),
        (f"{ROOT}/namespaces", None),
        (f"{ROOT}/namespaces/shop", None),
        (f"{ROOT}/namespaces//{METRIC}", None),
        (f"{ROOT}/namespaces/shop/{METRIC}/status", None),
        (f"{ROOT}/namespaces/shop/django_tasks_unheard_of", None),
        (f"/apis/external.metrics.k8s.io/v1/namespaces/shop/{METRIC}", None),
        (f"/namespaces/shop/{METRIC}", None),
        (f"namespaces/shop/{METRIC}", None),
    ],
)
def test_wanted(path: str, what: object) -> None:
    assert wanted(path) == what


def test_every_document_is_written_and_every_path_leads_to_one() -> None:
    assert set(DOCUMENTS) == set(Document) - {Document.HEALTH}
    assert {wanted(path) for path in DOCUMENTS[Document.PATHS]["paths"]} == set(Document) - {Document.PATHS}
    (link,) = DOCUMENTS[Document.OPENAPI_V3]["paths"].values()
    assert wanted(link["serverRelativeURL"].split("?")[0]) is Document.OPENAPI_V3_GROUP


def test_every_resource_can_be_read() -> None:
    for resource in DOCUMENTS[Document.RESOURCES]["resources"]:
        assert wanted(f"{ROOT}/namespaces/a/{resource['name']}") == Metric("a", resource["name"])
        # What could be listed cluster-wide or deleted is asked for by the controllers that delete namespaces.
        assert resource["verbs"] == ["get"]


@pytest.mark.parametrize("document", [Document.OPENAPI_V2, Document.OPENAPI_V3_GROUP])
def test_references_of_the_schema_are_there(document: Document) -> None:
    text = json.dumps(DOCUMENTS[document])
    (reference,) = {part.split('"')[0] for part in text.split('"$ref": "#/')[1:]}
    found = DOCUMENTS[document]
    section, _, name = reference.rpartition("/")
    for part in section.split("/"):
        found = found[part]
    assert name in found


def test_a_status_is_one_of_the_api_servers() -> None:
    assert status(HTTPStatus.NOT_FOUND, "nothing here") == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": "nothing here",
        "reason": "NotFound",
        "code": 404,
    }
