"""The resource's definition, which comes with the operator: the one place where a field's default stands.

``crd.yaml`` is a link to the file in ``crds/``; a wheel holds what it links to.
"""

from __future__ import annotations

import copy
from importlib import resources
from typing import Any

import yaml

type _Schema = dict[str, Any]


def _read() -> _Schema:
    text = (resources.files("django_task_operator") / "crd.yaml").read_text("utf-8")
    # Ten times as fast as the loader in Python, where there is one: this is read at every start.
    definition = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    (version,) = definition["spec"]["versions"]
    schema: _Schema = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return schema


SPEC = _read()


def with_defaults(spec: dict[str, Any], schema: _Schema = SPEC) -> dict[str, Any]:
    """Fill in what a spec leaves out, as the API server does when it stores an object.

    An object may have been stored under an older definition, which lacked the field.
    https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#defaulting
    """
    filled = dict(spec)
    for name, field in schema.get("properties", {}).items():
        if filled.get(name) is None and "default" in field:
            filled[name] = copy.deepcopy(field["default"])
        if isinstance(filled.get(name), dict):
            filled[name] = with_defaults(filled[name], field)
    return filled
