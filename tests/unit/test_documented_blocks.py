"""Every block of YAML and shell in the documentation fits what it is for.

Here is what can be told without a cluster: `tests/integration/test_platforms_page.py` gives whole manifests
to a real API server.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import django_tasks_db
import pytest
import yaml
from kubernetes.client import models

from django_task_operator.spec import Worker

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "django-task-operator"
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *(ROOT / folder / "README.md" for folder in ("benchmarks", "cluster", "examples", "worker-image")),
    CHART / "README.md",
]

# Manifests of others, whose schema is not here, with where their fields were looked up.
FOREIGN = {
    "ScaledObject": "https://keda.sh/docs/2.18/reference/scaledobject-spec/",
    "Kustomization": "https://kubectl.docs.kubernetes.io/references/kustomize/kustomization/",
}
# Files of others that are no manifests, by their first key.
FOREIGN_FILES = {"rules": "prometheus-adapter", "services": "Docker Compose"}


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def found_in(page: Path) -> Iterator[Block]:
    text = page.read_text()
    for block in re.finditer(r"^( *)```(\w*)[^\n]*\n(.*?)^ *```$", text, re.DOTALL | re.MULTILINE):
        yield Block(page, text[: block.start()].count("\n") + 1, block[2], block[3])


BLOCKS = [block for page in PAGES for block in found_in(page)]
YAML = [block for block in BLOCKS if block.language == "yaml"]
SHELL = [block for block in BLOCKS if block.language in {"sh", "console"}]


def test_blocks_are_found_and_their_languages_known() -> None:
    assert len(YAML) > 20
    assert len(SHELL) > 30
    known = {"yaml", "sh", "console", "sql", "python", "dockerfile", "mermaid", "ini", "json", "text", "lua"}
    assert {block.language for block in BLOCKS} <= known


# YAML


def problems(value: object, schema: dict[str, Any], at: str) -> Iterator[str]:
    """Say what of a value does not fit a schema: unknown fields, wrong types, other values.

    A definition has no fields but those it names; a chart's schema has, unless it says otherwise.
    """
    if value is None or schema.get("x-kubernetes-int-or-string"):
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{at}: {value!r} is none of {schema['enum']}"
    kinds = {
        "object": dict,
        "array": list,
        "string": str,
        "integer": int,
        "boolean": bool,
        "number": int | float,
    }
    wanted = schema.get("type")
    if isinstance(wanted, str) and not isinstance(value, kinds[wanted]):
        yield f"{at}: {value!r} is no {wanted}"
    elif isinstance(value, dict):
        free = schema.get("x-kubernetes-preserve-unknown-fields") or "properties" not in schema
        free = free or (at.startswith("the chart") and schema.get("additionalProperties") is not False)
        inner = schema.get("additionalProperties")
        for name, child in value.items():
            below = schema.get("properties", {}).get(name) or (inner if isinstance(inner, dict) else None)
            if below:
                yield from problems(child, below, f"{at}.{name}")
            elif not free:
                yield f"{at}: there is no field {name}"
    elif isinstance(value, list):
        for number, child in enumerate(value):
            yield from problems(child, schema.get("items", {}), f"{at}[{number}]")


def missing(value: object, schema: dict[str, Any], at: str) -> Iterator[str]:
    """Say which fields are missing that a whole object must have."""
    if isinstance(value, dict):
        yield from (f"{at}.{name} is missing" for name in schema.get("required", ()) if name not in value)
        for name, below in schema.get("properties", {}).items():
            if name in value:
                yield from missing(value[name], below, f"{at}.{name}")
    elif isinstance(value, list):
        for number, child in enumerate(value):
            yield from missing(child, schema.get("items", {}), f"{at}[{number}]")


def unknown(value: object, kind: str, at: str) -> Iterator[str]:
    """Say which fields of a value Kubernetes' own type of that name does not have."""
    inner = re.fullmatch(r"(List|Dict)\[(?:str, )?(.*)\]", kind)
    model: Any = getattr(models, kind, None)
    if inner and inner[1] == "List":
        if not isinstance(value, list):
            yield f"{at}: {value!r} is no list"
            return
        for number, child in enumerate(value):
            yield from unknown(child, inner[2], f"{at}[{number}]")
    elif inner and isinstance(value, dict):
        for name, child in value.items():
            yield from unknown(child, inner[2], f"{at}.{name}")
    elif model is not None:
        if not isinstance(value, dict):
            yield f"{at}: {value!r} is no object"
            return
        names = {given: name for name, given in model.attribute_map.items()}
        for given, child in value.items():
            if given in names:
                yield from unknown(child, model.openapi_types[names[given]], f"{at}.{given}")
            else:
                yield f"{at}: {kind} has no field {given}"


(CRD,) = (ROOT / "crds").glob("*.yaml")
SCHEMA = yaml.safe_load(CRD.read_text())["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
VALUES = json.loads((CHART / "values.schema.json").read_text())
KINDS = {
    name.removeprefix(version): name
    for name in dir(models)
    for version in ("V2", "V1")
    if re.fullmatch(rf"{version}[A-Z]\w+", name)
    and "kind" in getattr(getattr(models, name), "attribute_map", {}).values()
}
# What a part of a manifest may be a part of.
PARTS: dict[str, Any] = {
    "a worker": SCHEMA,
    "a worker's spec": SCHEMA["properties"]["spec"],
    "the chart's values": VALUES,
    "a HorizontalPodAutoscaler": "V2HorizontalPodAutoscaler",
    "its spec": "V2HorizontalPodAutoscalerSpec",
    "a pod's spec": "V1PodSpec",
    "a container": "V1Container",
}


def whole(document: dict[str, Any]) -> list[str]:
    kind = document["kind"]
    if kind == "DjangoTaskWorker":
        full = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"}}
        schema = {**SCHEMA, "properties": {**SCHEMA["properties"], **full}}
        template = document["spec"].get("podTemplate", {})
        found = [
            *problems(document, schema, kind),
            *missing(document, SCHEMA, kind),
            *unknown(template, "V1PodTemplateSpec", "podTemplate"),
        ]
        if not found:
            identity = {"namespace": "shop", "uid": "1", "generation": 1}
            Worker.parse({**document, "metadata": {**document["metadata"], **identity}})
        return found
    if kind in FOREIGN:
        return []
    return list(unknown(document, KINDS[kind], kind))


def part(document: dict[str, Any]) -> list[str]:
    """What is wrong with a part of a manifest: nothing, if it is a part of anything."""
    if next(iter(document)) in FOREIGN_FILES:
        return []
    tried = [
        list(unknown(document, kind, name) if isinstance(kind, str) else problems(document, kind, name))
        for name, kind in PARTS.items()
    ]
    return [] if [] in tried else [problem for found in tried for problem in found]


@pytest.mark.parametrize("block", YAML, ids=str)
def test_yaml_fits_its_schema(block: Block) -> None:
    for document in yaml.safe_load_all(block.text):
        assert isinstance(document, dict)
        found = whole(document) if "kind" in document else part(document)
        assert not found


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("spec: {queue: [a]}", "no field queue"),
        ("spec: {processes: many}", "is no integer"),
        ("scaling: {driver: Operators}", "is none of"),
        ("networkPolicy: {enable: true}", "no field enable"),
        ("tolerations: [{keys: a}]", "no field keys"),
    ],
)
def test_a_part_that_fits_nothing_is_found(text: str, problem: str) -> None:
    assert problem in " ".join(part(yaml.safe_load(text)))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{kind: DjangoTaskWorker, metadata: {name: a}, spec: {image: a}}", "spec.database is missing"),
        ("{kind: Secret, metadata: {name: a}, stringdata: {}}", "V1Secret has no field stringdata"),
        ("{kind: Pod, metadata: {name: a}, spec: {containers: [{cmd: []}]}}", "V1Container has no field cmd"),
    ],
)
def test_a_manifest_that_does_not_fit_is_found(text: str, problem: str) -> None:
    assert problem in " ".join(whole(yaml.safe_load(text)))


# Shell

TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)) | set(
    " ".join(re.findall(r"^\.PHONY: (.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)).split()
)
# What a cluster of ours knows beside Kubernetes' own kinds, and what kubectl calls those for short.
RESOURCES = {
    "djtw",
    "djangotaskworker",
    "djangotaskworkers",
    "crd",
    "hpa",
    "vpa",
    "apiservice",
    "pod",
    "pods",
}
RESOURCES |= {"scaledobject"}  # KEDA's
RESOURCES |= {kind.lower() for kind in KINDS} | {f"{kind.lower()}s" for kind in KINDS}
OF_A_RESOURCE = {"get", "describe", "delete", "patch", "wait", "scale", "exec", "logs", "annotate", "label"}


def commands(block: Block) -> list[list[str]]:
    """The words of each command of a block; of a console, only what is typed."""
    text = block.text
    if block.language == "console":
        typed = re.findall(r"^\$ ((?:.*\\\n)*.*)", text, re.MULTILINE)
        text = "\n".join(typed)
    text = re.sub(r"(^|\s)#.*$", "", text, flags=re.MULTILINE)
    words = shlex.shlex(text.replace("\\\n", " "), posix=True, punctuation_chars=";&|<>\n")
    words.whitespace = " \t\r"
    words.whitespace_split = True
    found: list[list[str]] = [[]]
    for word in words:
        if set(word) <= set(";&|\n"):
            found.append([])
        else:
            found[-1].append(word)
    return [command for command in found if command]


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_shell_is_shell(block: Block) -> None:
    text = block.text
    if block.language == "console":
        text = "\n".join(" ".join(map(shlex.quote, command)) for command in commands(block))
    done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")


def trouble(command: list[str]) -> Iterator[str]:
    """Say what a command names that there is not."""
    program, *arguments = command
    paths = [word.rpartition("=")[2] for word in command]
    yield from (
        f"there is no {path}"
        for path in paths
        if re.match(r"(examples|install|charts|tests|docs|benchmarks|cluster)/", path)
        and not (ROOT / path).exists()
    )
    if program == "make":
        yield from (
            f"make has no target {name}" for name in arguments if "=" not in name and name not in TARGETS
        )
    if program == "helm":
        settings = [
            word.partition("=")[0] if flag != word else word
            for flag, word in pairwise(arguments)
            if flag in {"--set", "--set-string", "--set-json"}
        ]
        if any("django-task-operator" in word for word in arguments):
            yield from (f"the chart has no value {name}" for name in settings if not has_value(name))
    if program == "kubectl" and arguments and arguments[0] in OF_A_RESOURCE:
        yield from unknown_resources(arguments)


def has_value(name: str) -> bool:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    for key in re.sub(r"\[\d+\]", "", name).split("."):
        if values in ({}, []):
            return True
        if not isinstance(values, dict) or key not in values:
            return False
        values = values[key]
    return True


def unknown_resources(arguments: list[str]) -> Iterator[str]:
    """Say which resources of kubectl's arguments there are not."""
    verb, *others = arguments
    words = iter(others)
    plain = []
    for word in words:
        if word == "--":
            break
        if word in {
            "-n",
            "--namespace",
            "-o",
            "-p",
            "-f",
            "-l",
            "--selector",
            "--for",
            "--label-columns",
            "-c",
        }:
            next(words, None)
        elif not word.startswith("-"):
            plain.append(word)
    if plain and not plain[0].startswith("/"):
        named = [word.partition("/")[0] for word in plain if "/" in word and not (ROOT / word).exists()]
        named = named or plain[:1]
        if verb in {"exec", "logs"} and "/" not in plain[0]:
            return
        for name in ",".join(named).split(","):
            if name.partition(".")[0].lower() not in RESOURCES:
                yield f"kubectl: there is no resource {name}"


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_commands_name_what_there_is(block: Block) -> None:
    assert [problem for command in commands(block) for problem in trouble(command)] == []


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("make demos", "no target demos"),
        ("helm upgrade a charts/django-task-operator --set replica=2", "no value replica"),
        (
            "helm upgrade a charts/django-task-operator --set metricsApi.enable=2",
            "no value metricsApi.enable",
        ),
        ("kubectl get djtws -n shop", "no resource djtws"),
        ("kubectl apply -f examples/none.yaml", "no examples/none.yaml"),
        ("kubectl delete clusterrole,rolls --selector=a=b", "no resource rolls"),
    ],
)
def test_a_command_with_a_mistake_is_found(command: str, problem: str) -> None:
    assert problem in " ".join(trouble(command.split()))


# Options

OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
# Words that say that a command is other people's, or their options, where no program is named.
OF_OTHERS = re.compile(
    r"\b(celery|createdb|curl|docker|gh|helm|kind|kubectl|max-(memory|tasks)-per-child|secret id)\b"
)
# The Cloud SQL Auth Proxy's; kubectl's and Helm's, where they are named alone.
OTHERS = {"--auto-iam-authn", "--private-ip", "--structured-logs"}
OTHERS |= {"--concurrency", "--heartbeat-file", "--lock-timeout", "--queues"}  # django-ox's
OTHERS |= {"--cascade", "--force-conflicts", "--reuse-values", "--server-side", "--take-ownership"}
OURS = (
    "\n".join(
        path.read_text()
        for folder in ("operator", "worker-image", "benchmarks", "charts", "docs", "examples")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".py", ".yaml", ".tpl"}
    )
    + (Path(django_tasks_db.__file__).parent / "management" / "commands" / "db_worker.py").read_text()
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_options_exist(page: Path) -> None:
    spans = re.findall(r"`([^`\n]+)`", page.read_text())
    spans += [" ".join(command) for block in found_in(page) if block in SHELL for command in commands(block)]
    spans += [block.text for block in found_in(page) if block in YAML]
    ours = " ".join(span for span in spans if not OF_OTHERS.search(span))
    named = set(OPTION.findall(ours)) - OTHERS
    # Of a switch, only one of the two may be spelled out.
    there = {
        option for option in named if re.search(rf'["`]{re.sub("^--no-", "--(no-)?", option)}["=`]', OURS)
    }

    assert sorted(named - there) == []
