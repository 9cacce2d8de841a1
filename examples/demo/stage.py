"""Prepares the demo: deploys the example afresh, with both workers at zero replicas."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from examples.demo.kubectl import KubectlError, kubectl

if TYPE_CHECKING:
    from collections.abc import Callable

NAMESPACE = "shop"
OWNER = "django-task-operator-demo"
MANIFESTS = Path(__file__).parents[1] / "manifests"
WORKERS = ("default-worker", "priority-worker")


class NotOurNamespaceError(Exception):
    """The cluster has a namespace with the demo's name that is not the demo's. Nothing was changed."""


async def clear() -> None:
    """Delete the demo's namespace with everything in it; leave any other namespace alone.

    Raises:
        NotOurNamespaceError: the namespace does not have the demo's label.
    """
    found = await kubectl("get", "namespace", NAMESPACE, "--ignore-not-found", "--output=json")
    if not found:
        return
    labels = json.loads(found)["metadata"].get("labels", {})
    if labels.get("app.kubernetes.io/part-of") != OWNER:
        raise NotOurNamespaceError(
            f"this cluster has a namespace {NAMESPACE} that the demo did not make: not touching it"
        )
    await kubectl("delete", "namespace", NAMESPACE, "--timeout=120s")


async def build(say: Callable[[str], None]) -> None:
    """Deploy the example's manifests, each one after the previous one is ready."""
    say("a namespace and a PostgreSQL")
    await _apply("00-namespace", "10-database")
    await _in_namespace("rollout", "status", "deployment/postgres", "--timeout=120s")
    say("the shop's tables and its web server")
    await _apply("20-migrate", "30-web")
    await _in_namespace("wait", "--for=condition=Complete", "job/migrate", "--timeout=120s")
    await _in_namespace("rollout", "status", "deployment/web", "--timeout=120s")
    say("two workers, for the queues default and priority")
    await _apply("40-workers")
    for worker in WORKERS:
        await _in_namespace(
            "wait", "--for=condition=DatabaseReachable", f"djangotaskworker/{worker}", "--timeout=60s"
        )
        for state in ("create", "jsonpath={.spec.replicas}=0"):
            await _in_namespace("wait", f"--for={state}", f"deployment/{worker}", "--timeout=60s")


async def explain() -> str:
    """Collect information about why the demo did not work as expected."""
    conditions = (
        '{range .items[*]}{.metadata.name}{"\\n"}{range .status.conditions[*]}'
        '{"  "}{.type}={.status} {.reason}: {.message}{"\\n"}{end}{end}'
    )
    questions = {
        "workers": ("get", "djangotaskworkers", "--output=wide"),
        "conditions": ("get", "djangotaskworkers", f"--output=jsonpath={conditions}"),
        "pods": ("get", "pods", "--output=wide"),
        "events": ("get", "events", "--sort-by=.metadata.creationTimestamp"),
        "operator's log": (
            "logs",
            "--namespace=django-task-operator",
            "--selector=app.kubernetes.io/name=django-task-operator",
            "--tail=60",
        ),
    }
    answers = []
    for title, question in questions.items():
        try:
            answer = await _in_namespace(*question)
        except KubectlError as error:
            answer = str(error)
        answers.append(f"--- {title}\n{answer.strip()}")
    return "\n".join(answers)


async def _apply(*names: str) -> None:
    await kubectl("apply", *(f"--filename={MANIFESTS / name}.yaml" for name in names))


async def _in_namespace(*arguments: str) -> str:
    # A --namespace that the arguments bring comes later, and the last one counts.
    return await kubectl(f"--namespace={NAMESPACE}", *arguments)
