"""The resource's definition, included in the package: the only place that defines the fields' defaults.

``crd.yaml`` is a link to the file in ``crds/``; a wheel contains the file itself.
"""

from __future__ import annotations

import copy
from importlib import resources
from typing import Any

import yaml

type _Schema = dict[str, Any]


def _read() -> _Schema:
    text = (resources.files("django_task_operator") / "crd.yaml").read_text("utf-8")
    # If available, the C loader is ten times as fast as the one in Python, and this runs at every start.
    definition = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    (version,) = definition["spec"]["versions"]
    schema: _Schema = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return schema


SPEC = _read()


def with_defaults(spec: dict[str, Any], schema: _Schema = SPEC) -> dict[str, Any]:
    """Fill in the defaults of a spec, as the API server does when it stores an object.

    The object may have been stored under an older definition, which did not have the field yet.
    https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#defaulting
    """
    filled = dict(spec)
    for name, field in schema.get("properties", {}).items():
        if filled.get(name) is None and "default" in field:
            filled[name] = copy.deepcopy(field["default"])
        if isinstance(filled.get(name), dict):
            filled[name] = with_defaults(filled[name], field)
    return filled
