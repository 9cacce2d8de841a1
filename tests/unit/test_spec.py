"""The resource as values: what is read, and that the CRD describes the same."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import pytest
import yaml
from pydantic import BaseModel, ValidationError
from tests.unit.fakes import worker_manifest

from django_task_operator import resources, scaling
from django_task_operator.crd import with_defaults
from django_task_operator.errors import InvalidSpec
from django_task_operator.spec import Key, Worker, WorkerSpec, key_of

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
(CRD,) = (ROOT / "crds").glob("*.yaml")
DEFINITION = yaml.safe_load(CRD.read_text())["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
SCHEMA = DEFINITION["spec"]

# A part of a pod or of an autoscaler, which Kubernetes describes and the operator passes on as it is.
PASSED_ON = {
    "env",
    "envFrom",
    "imagePullSecrets",
    "resources",
    "scaling.behavior",
    "podTemplate.metadata",
    "podTemplate.spec",
    "database.connection.options",
}


def fields_of_definition(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    for name, field in schema.get("properties", {}).items():
        here = f"{path}.{name}".strip(".")
        yield here, field
        if here not in PASSED_ON:
            yield from fields_of_definition(field, here)


def fields_of_model(model: type[BaseModel], path: str = "") -> Iterator[tuple[str, Any]]:
    for field in model.model_fields.values():
        here = f"{path}.{field.alias}".strip(".")
        yield here, field
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from fields_of_model(kind, here)


# Fields of what a spec may leave out as a whole.
IN_WHAT_MAY_BE_MISSING = {"prodserver.process"}
IN_WHAT_MAY_BE_MISSING |= {"database.sslRootCertSecretRef.name", "database.sslRootCertSecretRef.key"}
IN_WHAT_MAY_BE_MISSING |= {"database.operatorUrlSecretRef.name", "database.operatorUrlSecretRef.key"}
IN_WHAT_MAY_BE_MISSING |= {"database.urlSecretRef.name", "database.urlSecretRef.key"}
DEFINED = dict(fields_of_definition(SCHEMA))
MODELLED = dict(fields_of_model(WorkerSpec))
OF_CONNECTION = "database.connection."
LEAVES = {path for path, field in DEFINED.items() if "properties" not in field or path in PASSED_ON}
NUMBERS = {path for path, field in DEFINED.items() if field.get("type") in {"integer", "number"}}


CONNECTION: dict[str, Any] = {
    "engine": "PostgreSQL",
    "secretRef": {"name": "shop-db"},
    "host": {"value": "db.shop.svc"},
    "name": {"key": "dbname"},
    "user": {"key": "username"},
    "password": {"key": "password"},
}


def bounds_of_definition(path: str) -> tuple[float, float]:
    field = DEFINED[path]
    if "minimum" in field:
        return field["minimum"], field["maximum"]
    (rule,) = (rule["rule"] for rule in field["x-kubernetes-validations"])
    found = re.fullmatch(r"self >= ([\d.]+) && self <= ([\d.]+)", rule)
    assert found
    return float(found[1]), float(found[2])


def with_value(path: str, value: object) -> dict[str, Any]:
    """A manifest with one field of its spec set."""
    return with_values((path, value))


def with_values(*values: tuple[str, object]) -> dict[str, Any]:
    manifest = worker_manifest()
    for path, value in values:
        *parents, name = path.split(".")
        place = manifest["spec"]
        for parent in parents:
            place = place.setdefault(parent, {})
        place[name] = copy.deepcopy(value)
    return manifest


def read(path: str, manifest: dict[str, Any]) -> Any:
    value: Any = Worker.parse(manifest).spec.model_dump(by_alias=True, mode="json")
    for name in path.split("."):
        value = value[name]
    return value


def test_the_definition_and_the_model_have_the_same_fields() -> None:
    assert set(DEFINED) == set(MODELLED)


@pytest.mark.parametrize(
    "path",
    sorted(
        path for path in LEAVES - {"image"} - IN_WHAT_MAY_BE_MISSING if not path.startswith(OF_CONNECTION)
    ),
)
def test_an_unset_field_has_the_default_of_the_definition(path: str) -> None:
    empty: dict[str, object] = {"array": [], "object": {}, "string": None}
    field = DEFINED[path]

    assert read(path, worker_manifest()) == field.get("default", empty.get(field["type"]))


def test_a_connection_has_the_default_of_the_definition() -> None:
    manifest = with_value("database.connection", CONNECTION)

    assert read("database.connection.envPrefix", manifest) == ""
    assert read("database.connection.port", manifest) is None
    assert read("database.connection.options", manifest) == {}


@pytest.mark.parametrize(
    ("field", "key"), [("sslRootCertSecretRef", "ca.crt"), ("operatorUrlSecretRef", "DATABASE_URL")]
)
def test_a_field_of_what_is_given_has_the_default_of_the_definition(field: str, key: str) -> None:
    assert read(f"database.{field}.key", with_value(f"database.{field}.name", "a-secret")) == key


def test_required_are_the_same_fields() -> None:
    required = {
        f"{path}.{name}".strip(".")
        for path, field in {"": SCHEMA, **DEFINED}.items()
        if path not in PASSED_ON
        for name in field.get("required", ())
    }

    defaulted = {path for path, field in DEFINED.items() if path not in PASSED_ON and "default" in field}

    # What has a default in the definition has none in the model.
    assert {path for path, field in MODELLED.items() if field.is_required()} == required | defaulted


def test_what_an_object_lacks_that_was_stored_under_an_older_definition_is_filled_in() -> None:
    manifest = with_value("scaling.maxReplicas", 3)
    before = copy.deepcopy(manifest)

    scaling_of = Worker.parse(manifest).spec.scaling
    assert (scaling_of.max_replicas, scaling_of.min_replicas) == (3, 0)
    assert manifest == before, "what was read stays as it is"


def test_a_null_is_a_field_that_is_left_out() -> None:
    assert read("processes", with_value("processes", None)) == DEFINED["processes"]["default"]
    assert read("scaling.driver", with_value("scaling", None)) == DEFINED["scaling.driver"]["default"]


def test_one_workers_defaults_are_not_anothers() -> None:
    with_defaults(worker_manifest()["spec"])["queues"].append("mine")

    assert read("queues", worker_manifest()) == ["default"]


@pytest.mark.parametrize("path", sorted(NUMBERS))
def test_a_number_may_be_anything_that_the_definition_allows(path: str) -> None:
    least, most = bounds_of_definition(path)

    assert (read(path, with_value(path, least)), read(path, with_value(path, most))) == (least, most)


@pytest.mark.parametrize("path", sorted(NUMBERS))
def test_a_bound_of_the_model_is_the_bound_of_the_definition(path: str) -> None:
    least, most = bounds_of_definition(path)
    of_model = {}
    for constraint in MODELLED[path].metadata:
        for kind in ("gt", "ge", "lt", "le"):
            if hasattr(constraint, kind):
                of_model[kind] = getattr(constraint, kind)

    assert of_model.items() <= {"ge": least, "le": most}.items()


def test_a_choice_has_the_values_of_the_definition() -> None:
    for path, other in (
        ("scaling.driver", "KEDA"),
        ("runtime", "Celery"),
        ("runtimeUpgrade", "Always"),
        ("orphans.policy", "Retry"),
        ("migrations.policy", "Later"),
        ("database.urlChangePolicy", "Restart"),
        ("database.setup", "Never"),
        ("database.connection.engine", "Oracle"),
    ):
        others = [("database.connection", CONNECTION)] if path.startswith(OF_CONNECTION) else []
        for choice in DEFINED[path]["enum"]:
            assert read(path, with_values(*others, (path, choice))) == choice
        with pytest.raises(InvalidSpec):
            Worker.parse(with_values(*others, (path, other)))


# What reaches neither an object nor the policy of scaling, or does so in company only: test_reconcile.py,
# test_driver_turns.py, test_orphans.py, test_migration.py, test_url_changes.py, test_operators_url.py,
# test_connection.py and test_runtime_upgrade.py try these.
READ_BY_A_TURN = {"replicas", "scaling.pollIntervalSeconds", "paused"}
READ_BY_A_TURN |= {"orphans.policy", "orphans.graceSeconds", "orphans.maxRequeues", "stuckAfterSeconds"}
READ_BY_A_TURN |= {"migrations.policy", "database.setup", "database.urlChangePolicy", "runtimeUpgrade"}
READ_BY_A_TURN |= {"database.operatorUrlSecretRef.name", "database.operatorUrlSecretRef.key"}
READ_BY_A_TURN |= {path for path in LEAVES if path.startswith(OF_CONNECTION)}
OTHERWISE: dict[str, object] = {
    "imagePullSecrets": [{"name": "regcred"}],
    "env": [{"name": "A", "value": "1"}],
    "envFrom": [{"configMapRef": {"name": "settings"}}],
    "resources": {"limits": {"memory": "1Gi"}},
    "podTemplate.metadata": {"annotations": {"a": "b"}},
    "podTemplate.spec": {"nodeSelector": {"a": "b"}},
    "excludeQueues": ["slow"],
    "runtime": "Stock",
    "scaling.driver": "HPA",
    "scaling.behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}},
}
# Fields that only have a meaning together with another field.
GOES_WITH: dict[str, tuple[str, object]] = {
    "scaling.behavior": ("scaling.driver", "HPA"),
    "cleanup.olderThanDays": ("cleanup.schedule", "@daily"),
    "database.sslRootCertSecretRef.key": ("database.sslRootCertSecretRef.name", "shop-db-ca"),
}


@pytest.mark.parametrize("path", sorted(LEAVES - READ_BY_A_TURN))
def test_every_field_makes_a_difference(path: str) -> None:
    """No field is accepted and then ignored."""

    def effect(manifest: dict[str, Any]) -> object:
        worker = Worker.parse(manifest)
        source = resources.RuntimeSource("django-task-worker:dev")
        return (
            resources.build_deployment(worker, 1, source),
            resources.build_children(worker, source),
            scaling.DRIVERS[worker.spec.scaling.driver].children(worker),
            scaling.Policy.of(worker.spec),
        )

    field = DEFINED[path]
    value = (
        OTHERWISE.get(path)
        or {
            "string": "other",
            "array": ["other"],
            "integer": field.get("default", 0) + 1 if path in NUMBERS else None,
            "number": 7.5,
        }[field["type"]]
    )

    others = [GOES_WITH[path]] if path in GOES_WITH else []
    assert effect(with_values((path, value), *others)) != effect(with_values(*others))


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ("image", "", "spec.image"),
        ("queues", [], "spec.queues"),
        ("scaling.maxReplicas", 0, "spec.scaling.maxReplicas"),
        ("scaling.tasksPerReplica", "many", "spec.scaling.tasksPerReplica"),
        ("scaling.driver", "Magic", "spec.scaling.driver"),
        ("database.urlSecretRef.name", "", "spec.database.urlSecretRef.name"),
        ("database.urlSecretRef", {}, "spec.database.urlSecretRef.name"),
        ("database", None, "spec.database"),
        ("managePy", ["python", 3], "spec.managePy.1"),
    ],
)
def test_an_impossible_value_names_its_field(path: str, value: object, field: str) -> None:
    with pytest.raises(InvalidSpec) as invalid:
        Worker.parse(with_value(path, value))

    assert invalid.value.details["field"] == field
    assert str(invalid.value).startswith(f"{field}: ")


@pytest.mark.parametrize("spec", [{}, None])
def test_an_empty_spec_is_invalid(spec: object) -> None:
    with pytest.raises(InvalidSpec, match=r"spec\.image: "):
        Worker.parse({**worker_manifest(), "spec": spec})


def test_who_it_is() -> None:
    worker = Worker.parse(worker_manifest("emails", "shop", uid="u-7", generation=3))

    assert (worker.key, worker.uid, worker.generation) == (Key(namespace="shop", name="emails"), "u-7", 3)
    assert str(worker.key) == "shop/emails"
    assert key_of(worker_manifest("emails", "shop")) == worker.key


def test_values_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Worker.parse(worker_manifest()).spec.paused = True


@pytest.mark.parametrize(
    ("spec", "tasks"),
    [
        ({}, 10),
        ({"processes": 4}, 40),
        ({"processes": 4, "threads": 2}, 80),
        ({"processes": 4, "scaling": {"tasksPerReplica": 7}}, 7),
    ],
)
def test_a_replica_carries_ten_tasks_for_each_that_it_runs_at_a_time(
    spec: dict[str, object], tasks: int
) -> None:
    manifest = worker_manifest()
    manifest["spec"] |= spec

    assert Worker.parse(manifest).spec.tasks_per_replica == tasks
