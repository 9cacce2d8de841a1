"""How kubectl and the API server treat a stored worker."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from tests.integration.workers import MINIMAL, changed
from tests.waiting import PATIENTLY, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Kubectl


GOLDEN = Path(__file__).parent.parent / "unit" / "resources" / "golden"
# All but the one whose labels the CRD refuses.
CASES = sorted(case for case in GOLDEN.iterdir() if case.name != "security")


@pytest.fixture
def emails(kubectl: Kubectl, crd: dict[str, Any], namespace: str) -> Iterator[Kubectl]:
    """kubectl in a namespace that has the minimal worker."""
    here = kubectl.within(namespace)
    here("create", "-f", "-", manifest=changed(MINIMAL, {"metadata": {"namespace": namespace}}))
    yield here
    here("delete", "djtw", "--all", PATIENTLY)


def test_scale_says_what_to_change(emails: Kubectl) -> None:
    reason = emails.refused("scale", "djtw", "emails", "--replicas=3")

    assert "replicas cannot be set while scaling.driver is Operator" in reason
    assert "change scaling.minReplicas and scaling.maxReplicas (both to 3 for a fixed number)" in reason


def test_scale_is_for_the_drivers_that_ask_others(
    kubectl: Kubectl, crd: dict[str, Any], namespace: str
) -> None:
    here = kubectl.within(namespace)
    for driver, name in (("External", "mails"), ("HPA", "letters")):
        change = {
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"replicas": 1, "scaling": {"driver": driver}},
        }
        here("create", "-f", "-", manifest=changed(MINIMAL, change))
        here("scale", "djtw", name, "--replicas=0")
        scale = json.loads(here("get", f"djtw/{name}", "--subresource=scale", "-ojson"))
        assert scale["spec"].get("replicas", 0) == 0
    here("delete", "djtw", "--all", PATIENTLY)


def test_what_is_left_of_the_scale_keeps_nobody_from_the_operator_driver(
    kubectl: Kubectl, crd: dict[str, Any], namespace: str
) -> None:
    # Dry runs, because an operator that is at work in the cluster removes it.
    here = kubectl.within(namespace)
    change = {
        "metadata": {"namespace": namespace},
        "spec": {"replicas": 3, "scaling": {"driver": "External"}},
    }
    here("create", "-f", "-", manifest=changed(MINIMAL, change))

    def patch(**spec: object) -> tuple[str, ...]:
        change = json.dumps({"spec": {"scaling": {"driver": "Operator"}, **spec}})
        return "patch", "djtw/emails", "--type=merge", f"--patch={change}", "--dry-run=server", "-ojson"

    assert json.loads(here(*patch()))["spec"]["replicas"] == 3
    assert "replicas" not in json.loads(here(*patch(replicas=None)))["spec"]
    reason = here.refused(*patch(replicas=4))
    assert "spec.replicas: Invalid value" in reason
    assert "replicas cannot be set while scaling.driver is Operator" in reason
    here("delete", "djtw", "--all", PATIENTLY)


def test_an_update_is_held_to_the_rules(emails: Kubectl) -> None:
    reason = emails.refused(
        "patch",
        "djtw/emails",
        "--type=merge",
        "--patch",
        json.dumps({"spec": {"scaling": {"minReplicas": 20}}}),
    )

    assert "spec.scaling.minReplicas" in reason
    assert "but 20 is greater than 10" in reason


def test_status_is_written_apart(emails: Kubectl) -> None:
    # Dry runs, because an operator may be at work in the cluster and write the status too.
    def patched(change: dict[str, Any], *how: str) -> dict[str, Any]:
        patch = ("--type=merge", f"--patch={json.dumps(change)}", "--dry-run=server", "-ojson")
        stored: dict[str, Any] = json.loads(emails("patch", "djtw/emails", *how, *patch))
        return stored

    change = {"spec": {"image": "other:1"}, "status": {"replicas": 9}}
    by_operator = patched(change, "--subresource=status")
    by_user = patched(change)

    assert (by_operator["spec"]["image"], by_operator["status"]["replicas"]) == ("shop:1", 9)
    assert by_operator["metadata"]["generation"] == 1
    assert by_user["spec"]["image"] == "other:1"
    assert by_user.get("status", {}).get("replicas") != 9


def test_kubectl_waits_for_its_conditions(emails: Kubectl) -> None:
    """As the page on platforms says. An operator in the cluster may write the status meanwhile."""
    condition = {"type": "Ready", "reason": "x", "message": "x", "lastTransitionTime": "2026-01-01T00:00:00Z"}

    def is_awaited(ready: str) -> bool:
        conditions = [{**condition, "status": ready, "observedGeneration": 1}]
        report = json.dumps({"status": {"observedGeneration": 1, "conditions": conditions}})
        emails("patch", "djtw/emails", "--subresource=status", "--type=merge", f"--patch={report}")
        waited = emails.run("wait", "--for=condition=Ready", "djtw/emails", "--timeout=1s")
        return waited.returncode == 0

    eventually(lambda: is_awaited("True"), "one that is ready is not waited for")
    eventually(lambda: not is_awaited("False"), "one that is not is waited for")


def test_get_tells_the_story(emails: Kubectl) -> None:
    condition = {"reason": "Idle", "message": "x", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    conditions = [{**condition, "type": kind, "status": "True"} for kind in ("Ready", "Paused")]
    status = {
        "replicas": 3,
        "desiredReplicas": 5,
        "pendingTasks": 42,
        "runningTasks": 7,
        "oldestPendingSeconds": 12,
        "runtime": "django-task-worker:1",
        "pendingRuntime": "django-task-worker:2",
        "conditions": conditions,
    }
    report = json.dumps({"status": status})

    def shown(expected: dict[str, str], *how: str) -> dict[str, str]:
        """Try again if an operator in the cluster has written the status meanwhile."""

        def row() -> dict[str, str]:
            emails("patch", "djtw/emails", "--subresource=status", "--type=merge", f"--patch={report}")
            header, line = emails("get", "djtw", *how).splitlines()
            # Names of columns may have a space in them, and cells may be empty.
            starts = [name.start() for name in re.finditer(r"\S+(?: \S+)*", header)]
            cuts = [slice(*each) for each in itertools.pairwise([*starts, None])]
            found = {header[cut].strip(): line[cut].strip() for cut in cuts}
            return found if expected.items() <= found.items() else {}

        return eventually(row, f"{expected}")

    expected = {
        "NAME": "emails",
        "QUEUES": '["default"]',
        "READY": "True",
        "PENDING": "42",
        "RUNNING": "7",
        "REPLICAS": "3",
        "DESIRED": "5",
    }
    row = shown(expected)
    assert row.pop("AGE").endswith("s")
    assert row == expected
    wide = {
        **expected,
        "DRIVER": "Operator",
        "IMAGE": "shop:1",
        "PAUSED": "True",
        "OLDEST": "12",
        "RUNTIME": "django-task-worker:1",
        "PENDING RUNTIME": "django-task-worker:2",
    }
    row = shown(wide, "-owide")
    assert row.pop("AGE").endswith("s")
    assert row == wide


@pytest.mark.parametrize("name", ["djtw", "djangotaskworkers", "djangotaskworker", "all", "django"])
def test_get_knows_it_by(emails: Kubectl, name: str) -> None:
    assert "djangotaskworker.djangotasks.dev/emails" in emails("get", name, "-oname")


def test_delete_returns_at_once(emails: Kubectl) -> None:
    # It waits for nobody to do something first.
    stored = json.loads(emails("get", "djtw/emails", "-ojson"))
    assert "finalizers" not in stored["metadata"]
    emails("delete", "djtw/emails", PATIENTLY)

    assert emails("get", "djtw", "-oname") == ""


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("djtw", "Runs Django's background tasks on Kubernetes"),
        ("djtw.spec.scaling", "The highest number of pods."),
        ("djtw.spec.scaling.maxReplicas", "Default: 10."),
        ("djtw.spec.database.urlSecretRef.key", "postgres://user:password@host:5432/name"),
        ("djtw.status.conditions", "DatabaseReachable"),
    ],
)
def test_explain(kubectl: Kubectl, crd: dict[str, Any], path: str, words: str) -> None:
    # The API server publishes a changed CRD's schema a moment after it serves the resource.
    def shown() -> str:
        done = kubectl.run("explain", path)
        return done.stdout if done.returncode == 0 else ""

    assert words in " ".join(eventually(shown, f"{path} is published", every_s=0.5).split())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("how", [[], ["--server-side"]], ids=["client", "server"])
def test_a_manifest_that_is_applied_differs_in_nothing(
    kubectl: Kubectl, crd: dict[str, Any], namespace: str, case: Path, how: list[str]
) -> None:
    """Not by a default that the API server fills in: Argo CD and Flux would always see a difference."""
    here = kubectl.within(namespace)
    manifest = yaml.safe_load((case / "worker.yaml").read_text())
    manifest["metadata"] = {"name": manifest["metadata"]["name"], "namespace": namespace}
    here("apply", *how, "-f", "-", manifest=manifest)

    def is_in_sync() -> bool:
        return here.run("diff", *how, "-f", "-", manifest=manifest).returncode == 0

    # kubectl reads the object twice, and an operator may write a status in between.
    eventually(is_in_sync, "nothing differs", every_s=1)
    stored = json.loads(here("get", "djtw", manifest["metadata"]["name"], "-ojson"))["spec"]
    assert within(manifest["spec"], stored) == []


@pytest.mark.parametrize(("how", "is_kept"), [(["apply"], False), (["apply", "--server-side"], True)])
def test_a_null_that_removes_a_field_of_the_pod_arrives_as_the_page_on_platforms_says(
    kubectl: Kubectl, crd: dict[str, Any], namespace: str, how: list[str], is_kept: bool
) -> None:
    here = kubectl.within(namespace)
    containers = [{"name": "worker", "startupProbe": None}]
    change = {
        "metadata": {"name": "emails", "namespace": namespace},
        "spec": {"podTemplate": {"spec": {"containers": containers}}},
    }
    here(*how, "-f", "-", manifest=changed(MINIMAL, change))
    stored = json.loads(here("get", "djtw", "emails", "-ojson"))["spec"]["podTemplate"]["spec"]
    assert ("startupProbe" in stored["containers"][0]) == is_kept


def within(asked: Any, stored: Any, path: str = "spec") -> list[str]:
    """Return the parts of ``asked`` that are not the same in ``stored``."""
    if isinstance(asked, list) and isinstance(stored, list) and len(asked) == len(stored):
        asked, stored = dict(enumerate(asked)), dict(enumerate(stored))
    if isinstance(asked, dict) and isinstance(stored, dict):
        return [
            one for name, value in asked.items() for one in within(value, stored.get(name), f"{path}.{name}")
        ]
    return [] if asked == stored else [path]
