"""What one version of Kubernetes serves, and whether it would understand a manifest: without a server.

The source is the Python client of that version (``cluster/kubernetes-models``), which is generated from its
OpenAPI document. It is read as text: importing the models of many versions would take half a minute.
"""

from __future__ import annotations

import ast
import re
import zipfile
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CLIENT = "kubernetes/client"
# The values of these are any JSON, or text with rules of its own such as a quantity or a time.
OPAQUE = {"object", "datetime", "date"}
# Quantities are text there, but the API server also reads numbers.
QUANTITIES = {"requests", "limits"}
SCALARS: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
}


@dataclass(frozen=True)
class Model:
    """A type: the types of its fields, by the name in a manifest, and which of them are required."""

    fields: dict[str, str]
    required: frozenset[str]


class Version:
    """One version of Kubernetes."""

    def __init__(self, wheel: Path) -> None:
        """Read the client in this file."""
        self._wheel = zipfile.ZipFile(wheel)
        self._names = set(self._wheel.namelist())
        found = re.search(r"kubernetes-(\d+)\.", wheel.name)
        assert found
        self.minor = int(found[1])
        self.model = cache(self._model)

    def problems(self, manifest: dict[str, Any]) -> Iterator[str]:
        """Yield what this version would refuse in an object, or silently drop."""
        group, _, version = manifest["apiVersion"].rpartition("/")
        kind = manifest["kind"]
        # The module of an API is named for its group without the domain; "core" has none.
        api = "_".join(filter(None, [group.removesuffix(".k8s.io") or "core", version])).replace(".", "_")
        of_version = f"{version[0].upper()}{version[1:]}{kind}"
        name = of_version if self._has_model(of_version) else f"{_camel(group)}{of_version}"
        if not self._creates(api, name):
            yield f"{manifest['apiVersion']} {kind} is not served"
            return
        yield from self._check(manifest, name, kind)

    def _creates(self, api: str, name: str) -> bool:
        path = f"{CLIENT}/api/{api}_api.py"
        if path not in self._names or not self._has_model(name):
            return False
        text = self._wheel.read(path).decode()
        kind = _snake(re.sub(r"^V\d+((alpha|beta)\d+)?", "", name))
        return bool(re.search(rf"def create_(namespaced_)?{kind}\(", text)) and name in text

    def _has_model(self, name: str) -> bool:
        return f"{CLIENT}/models/{_snake(name)}.py" in self._names

    def _model(self, name: str) -> Model:
        text = self._wheel.read(f"{CLIENT}/models/{_snake(name)}.py").decode()
        types = _literal(text, "openapi_types")
        names = _literal(text, "attribute_map")
        required = re.findall(r"client_side_validation and (\w+) is None", text)
        required += re.findall(r"^    (\w+): (?!Optional|ClassVar|Any)", text, flags=re.MULTILINE)
        return Model(
            {names[each]: kind for each, kind in types.items()},
            frozenset(names[each] for each in required if each in names),
        )

    def _check(self, value: Any, kind: str, path: str) -> Iterator[str]:
        if value is None or kind in OPAQUE:
            return
        if found := re.fullmatch(r"[Ll]ist\[(.+)\]", kind):
            if not isinstance(value, list):
                yield f"{path} is no list"
                return
            for number, each in enumerate(value):
                yield from self._check(each, found[1], f"{path}[{number}]")
        elif found := re.fullmatch(r"[Dd]ict[(\[]str, (.+)[)\]]", kind):
            if not isinstance(value, dict):
                yield f"{path} is no object"
                return
            for key, each in value.items():
                yield from self._check(each, found[1], f"{path}[{key}]")
        elif kind in SCALARS:
            is_bool = isinstance(value, bool)
            if not isinstance(value, SCALARS[kind]) or is_bool != (kind == "bool"):
                yield f"{path} is no {kind}: {value!r}"
        else:
            yield from self._check_fields(value, kind, path)

    def _check_fields(self, value: Any, kind: str, path: str) -> Iterator[str]:
        model = self.model(kind)
        if not isinstance(value, dict):
            yield f"{path} is no object"
            return
        for missing in sorted(name for name in model.required if value.get(name) is None):
            yield f"{path}.{missing} is missing"
        for name, each in value.items():
            if name in model.fields:
                kind = "dict(str, object)" if name in QUANTITIES else model.fields[name]
                yield from self._check(each, kind, f"{path}.{name}")
            else:
                yield f"{path}.{name} is unknown"


def _literal(text: str, name: str) -> dict[str, str]:
    found = re.search(
        rf"^    {name}(?:: ClassVar\S+ \S+)? = (\{{.*?\}})", text, flags=re.MULTILINE | re.DOTALL
    )
    assert found, name
    value: dict[str, str] = ast.literal_eval(found[1])
    return value


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def _camel(group: str) -> str:
    return "".join(part.capitalize() for part in group.removesuffix(".k8s.io").split("."))
