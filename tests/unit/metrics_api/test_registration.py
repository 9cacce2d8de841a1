"""The APIService: to whom it belongs, and what its state means."""

from __future__ import annotations

import base64
import copy
from typing import Any

import pytest

from django_task_operator.metrics_api.availability import Availability, State
from django_task_operator.metrics_api.registration import (
    Owner,
    Service,
    availability,
    build,
    give_up,
    is_held,
    is_settled,
)

NOT_TRIED = "the API server has not tried to reach the operator yet"
SERVICE = Service("ops", "operator-metrics-api")
OWNER = Owner("operator-metrics-api", "uid-1")
WANTED = build(SERVICE, "PEM", OWNER)


def found(*conditions: dict[str, Any], **spec: Any) -> dict[str, Any]:
    manifest = copy.deepcopy(WANTED)
    manifest["metadata"] |= {"uid": "uid-2", "resourceVersion": "7"}
    manifest["spec"] |= spec
    return {**manifest, "status": {"conditions": list(conditions)}}


def test_it_says_where_the_figures_are() -> None:
    assert WANTED["metadata"]["name"] == "v1beta1.external.metrics.k8s.io"
    assert WANTED["spec"]["service"] == {"namespace": "ops", "name": "operator-metrics-api", "port": 443}
    assert base64.b64decode(WANTED["spec"]["caBundle"]) == b"PEM"
    assert WANTED["metadata"]["ownerReferences"][0]["uid"] == "uid-1"
    assert "insecureSkipTLSVerify" not in WANTED["spec"]


@pytest.mark.parametrize(
    ("manifest", "expected"),
    [
        (None, Availability(State.STARTING, detail="the APIService is not registered yet")),
        (
            found(),
            Availability(State.STARTING, detail="the API server has not tried to reach the operator yet"),
        ),
        (found({"type": "Available", "status": "True"}), Availability(State.SERVING)),
        (
            found({"type": "Available", "status": "False", "message": "dial tcp: timeout"}),
            Availability(State.UNREACHABLE, detail="dial tcp: timeout"),
        ),
        (
            found(
                {"type": "Available", "status": "True"},
                service={"namespace": "keda", "name": "keda-operator-metrics-apiserver"},
            ),
            Availability(State.FOREIGN, service="keda/keda-operator-metrics-apiserver"),
        ),
        (
            found(service={"namespace": "other", "name": SERVICE.name}),
            Availability(State.FOREIGN, "other/" + SERVICE.name),
        ),
        (found(service=None), Availability(State.FOREIGN, service="/")),
    ],
)
def test_availability(manifest: Any, expected: Availability) -> None:
    assert availability(manifest, SERVICE) == expected
    assert availability(manifest, SERVICE).is_serving is (expected.state is State.SERVING)


def test_what_others_add_is_no_difference_and_what_they_change_is() -> None:
    assert is_settled(found(), WANTED)
    more = found()
    more["metadata"]["labels"] = {**more["metadata"]["labels"], "team": "platform"}
    assert is_settled(more, WANTED)
    assert not is_settled(found(caBundle="other"), WANTED)
    assert not is_settled(found(insecureSkipTLSVerify=True, caBundle=None), WANTED)
    for gone in ("labels", "ownerReferences"):
        less = found()
        del less["metadata"][gone]
        assert not is_settled(less, WANTED)
    assert is_settled(found(), build(SERVICE, "PEM", None))


def test_one_that_somebody_took_over_is_given_up_whole() -> None:
    taken = found(service={"namespace": "keda", "name": "keda"}, versionPriority=7)
    assert is_held(taken, OWNER)
    assert not is_held(taken, None)
    assert not is_held({"metadata": {}}, OWNER)
    applied = give_up(taken, WANTED)
    assert applied["metadata"] == {"name": WANTED["metadata"]["name"], "resourceVersion": "7"}
    assert applied["spec"] == taken["spec"]
