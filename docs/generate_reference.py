#!/usr/bin/env python3
"""Writes docs/reference.md from the CRD; with --check, fails if the file is not current."""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

type Schema = dict[str, Any]

DOCS = Path(__file__).parent
REFERENCE = DOCS / "reference.md"
CRD = DOCS.parent / "crds" / "djangotasks.dev_djangotaskworkers.yaml"

HEAD = """\
<!-- Generated from the CRD by docs/generate_reference.py: change the descriptions there. -->
# DjangoTaskWorker

{description}

API version `{group}/{version}`, kind `{kind}`, short name `{short}`. The same text in a terminal:
`kubectl explain {short}.spec`.

A minimal worker:

```yaml
apiVersion: {group}/{version}
kind: {kind}
metadata:
  name: emails
spec:
  image: registry.example/shop:1.4
  database:
    urlSecretRef:
      name: shop-db
```

`kubectl apply` fails, and nothing is stored, if the worker has an unknown field or breaks a rule listed under
"Validation errors" below.
"""


def main() -> None:
    """Write the reference, or check it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the file is not current")
    check = parser.parse_args().check
    text = reference(yaml.safe_load(CRD.read_text()))
    if not check:
        REFERENCE.write_text(text)
    elif not REFERENCE.exists() or REFERENCE.read_text() != text:
        sys.exit(f"{REFERENCE.name} does not match the CRD: run docs/generate_reference.py")


def reference(crd: Schema) -> str:
    """Return the whole page."""
    names, (version,) = crd["spec"]["names"], crd["spec"]["versions"]
    schema = version["schema"]["openAPIV3Schema"]
    head = HEAD.format(
        description=schema["description"],
        group=crd["spec"]["group"],
        version=version["name"],
        kind=names["kind"],
        short=names["shortNames"][0],
    )
    parts = [head, *refusals([("metadata.name", schema)])]
    for name in ("spec", "status"):
        parts += section(name, schema["properties"][name], depth=2)
    parts += ["## What `kubectl get` shows\n", *columns(version["additionalPrinterColumns"])]
    return "\n".join(parts)


def section(path: str, schema: Schema, depth: int) -> Iterator[str]:
    """Yield an object's heading, its table, its validation errors, and the sections of the objects in it."""
    fields = schema["properties"]
    yield f"{'#' * min(depth, 4)} {path}\n"
    yield f"{conditions(schema['description']) if path == 'status.conditions[]' else schema['description']}\n"
    yield "| field | type | default | meaning |\n|---|---|---|---|"
    for name, field in fields.items():
        required = ", required" if name in schema.get("required", ()) else ""
        told = cell(described(field))
        yield f"| `{name}` | {kind_of(f'{path}.{name}', field)}{required} | {default(field)} | {told} |"
    yield ""
    yield from refusals(
        [(path, schema), *((f"{path}.{name}", f) for name, f in fields.items() if not inner(f))]
    )
    for name, field in fields.items():
        within = inner(field)
        if within:
            suffix = "[]" if "items" in field else ""
            heading = {"description": field["description"], **within}
            yield from section(f"{path}.{name}{suffix}", heading, depth + 1)


def inner(field: Schema) -> Schema | None:
    """Return the schema that gets its own section: the field's or that of its list's items, if an object."""
    schema = field.get("items", field)
    return schema if "properties" in schema else None


def refusals(fields: list[tuple[str, Schema]]) -> Iterator[str]:
    """Yield the messages of the validation rules of these fields, of their items and of their values."""
    told = [f"- `{path}{at}`: {cell(message)}" for path, field in fields for at, message in messages(field)]
    if told:
        yield "Validation errors:\n"
        yield from (*told, "")


def messages(field: Schema) -> Iterator[tuple[str, str]]:
    """Yield the path and message of each rule of a field, then of the rules of its items or values."""
    yield from (
        (rule.get("fieldPath", ""), rule["message"]) for rule in field.get("x-kubernetes-validations", ())
    )
    for within in (field.get("items"), field.get("additionalProperties")):
        if within and "properties" not in within:
            yield from messages(within)


def kind_of(path: str, field: Schema) -> str:
    """Return a field's type in words, with its range or with a link to its section."""
    if inner(field):
        listed = "items" in field
        anchor = re.sub(r"[^a-z0-9-]", "", path.lower())
        return f"[{'list of objects' if listed else 'object'}](#{anchor})"
    if "enum" in field:
        return "one of " + ", ".join(f"`{choice}`" for choice in field["enum"])
    if "items" in field:
        return f"list of {field['items']['type']}s"
    if "additionalProperties" in field:
        return f"map of {field['additionalProperties'].get('type', 'quantitie')}s"
    if {"minimum", "maximum"} <= field.keys():
        return f"{field['type']}, {field['minimum']} to {field['maximum']}"
    plain = {"date-time": "time"}.get(field.get("format", ""), field.get("type", "quantity"))
    return str(plain)


def default(field: Schema) -> str:
    """Return the default as written in a manifest."""
    if field.get("default", {}) == {}:
        return ""
    value = field["default"]
    return f"`{json.dumps(value) if isinstance(value, list | bool) or value == '' else value}`"


def described(field: Schema) -> str:
    """Return the description without the default at its end, which has its own column."""
    return re.sub(r" Default: .+\.$", "", str(field["description"]))


def conditions(description: str) -> str:
    """Return the conditions' description with each condition on a line of its own."""
    listed = re.sub(r"\b([A-Z]\w+): ([^.]+(?:\.\w[^.]*)*\.) ?", r"- `\1`: \2\n", description)
    return re.sub(r"\n(?!-|$)", r"\n\n", listed)


def columns(given: list[Schema]) -> Iterator[str]:
    """Yield the table of the printer columns."""
    yield "| column | shows |\n|---|---|"
    for column in given:
        wide = " (with `-o wide`)" if column.get("priority") else ""
        shows = column.get("description", "How long ago the worker was created.")
        yield f"| {column['name']} | {cell(shows)}{wide} |"
    yield ""


def cell(text: str) -> str:
    """Escape Markdown's special characters, except within code."""
    parts = text.split("`")
    parts[::2] = [re.sub(r"([*|<])", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts)


if __name__ == "__main__":
    main()
