"""Which runtime a worker's pods have injected, when the operator brings another one: pure.

A new version of the operator has a new worker image. In the pod template it would replace all pods of all
workers at once, and interrupt their tasks. So a Deployment keeps the runtime that it has, until its pods are
replaced or started anyway, or until it is its worker's turn. What it has is recorded in an annotation of the
Deployment itself, where a new value causes no rollout.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Self

from django_task_operator.resources.runtime import HASH_ANNOTATION, INJECTION, RuntimeSource
from django_task_operator.spec import RuntimeUpgrade

if TYPE_CHECKING:
    from django_task_operator.spec import Manifest

# On the Deployment: the runtime of its pods (``Record``).
RECORD_ANNOTATION = "djangotasks.dev/runtime"
# On the pod template: what `kubectl rollout restart` sets
# (k8s.io/kubectl, pkg/polymorphichelpers/objectrestarter.go).
RESTARTED_ANNOTATION = "kubectl.kubernetes.io/restartedAt"


class Reason(StrEnum):
    """Why the pods have the runtime that they have."""

    NEW = "there is no Deployment yet, or it had no runtime injected"
    CURRENT = "it is the operator's"
    CHANGED = "the pods are replaced anyway, for another change"
    UNUSED = "there are no pods"
    RESTARTED = "kubectl rollout restart"
    MISSING = "the image of the runtime before cannot be pulled"
    STAGED = "it is this worker's turn"
    HELD = "the pods keep theirs until the next rollout"
    WAITING = "the pods keep theirs until it is this worker's turn"


@dataclass(frozen=True, slots=True)
class Record:
    """What a Deployment says about the runtime of its pods.

    Args:
        image: the worker image from which it is copied.
        hash: the hash of the runtime in the pod template.
        revision: the revision of the image; empty if there is none, or it is not known.
        template: the hash of the rest of the template; empty if an operator wrote it that kept no record.
        held_at: when the Deployment had last been restarted as it turned out that the operator has another
            runtime (empty: never); None while the operator has the same.
        staged: whether its pods are being replaced for this runtime alone, and have not all been ready since.
    """

    image: str
    hash: str
    revision: str = ""
    template: str = ""
    held_at: str | None = None
    staged: bool = False

    @property
    def text(self) -> str:
        """The annotation's value."""
        usual = {"revision": "", "template": "", "held_at": None, "staged": False}
        return json.dumps({name: value for name, value in asdict(self).items() if value != usual.get(name)})

    @property
    def words(self) -> str:
        """The runtime, for people."""
        return RuntimeSource(self.image, self.revision).words

    @classmethod
    def read(cls, annotation: str | None, template: Manifest) -> Self | None:
        """Read the annotation or, where there is none that can be read, the pod template itself.

        None if no runtime is injected into the pods.
        """
        copies = (template.get("spec") or {}).get("initContainers") or ()
        images = [each.get("image", "") for each in copies if each.get("name") == INJECTION]
        of_pods = (template.get("metadata") or {}).get("annotations") or {}
        if not images or HASH_ANNOTATION not in of_pods:
            return None
        try:
            return cls(**json.loads(annotation or ""))
        except (ValueError, TypeError):
            return cls(images[0], of_pods[HASH_ANNOTATION])


@dataclass(frozen=True, slots=True)
class Choice:
    """The runtime for the pod template, what the Deployment is to record about it, and why it is this one."""

    source: RuntimeSource
    record: Record
    reason: Reason


def choose(
    before: Record | None,
    own: RuntimeSource,
    *,
    template: str,
    restarted: str,
    has_pods: bool,
    is_missing: bool,
    is_healthy: bool,
    upgrade: RuntimeUpgrade,
    is_its_turn: bool,
) -> Choice:
    """Choose between the runtime that the Deployment has and the operator's own, which may be older, too.

    Args:
        before: what the Deployment records; None if there is none, or it has no runtime injected.
        own: the operator's.
        template: the hash of the rest of the pod template that is asked for.
        restarted: when the Deployment was last restarted; empty if it never was.
        has_pods: whether there are pods, which may be running tasks.
        is_missing: whether pods lack the runtime before because its image cannot be pulled.
        is_healthy: whether all pods are of the current template, and ready.
        upgrade: what the worker asks for.
        is_its_turn: whether no other worker is being upgraded, if ``upgrade`` is Staged.
    """
    newest = Record(own.image, own.hash, own.revision, template)
    if before is None:
        return Choice(own, newest, Reason.NEW)
    is_changed = bool(before.template) and before.template != template
    if before.hash == own.hash:
        is_staged = before.staged and not is_changed and not is_healthy
        return Choice(own, replace(newest, staged=is_staged), Reason.CURRENT)
    is_staged = upgrade is RuntimeUpgrade.STAGED
    reasons = {
        Reason.CHANGED: is_changed,
        Reason.UNUSED: not has_pods,
        Reason.RESTARTED: before.held_at is not None and _is_later(restarted, before.held_at),
        Reason.MISSING: is_missing,
        Reason.STAGED: is_staged and is_its_turn,
    }
    for reason, applies in reasons.items():
        if applies:
            return Choice(own, replace(newest, staged=reason is Reason.STAGED), reason)
    kept = RuntimeSource(before.image, before.revision, own.run_as_user, before.hash)
    held_at = restarted if before.held_at is None else before.held_at
    record = replace(before, template=template, held_at=held_at, staged=False)
    return Choice(kept, record, Reason.WAITING if is_staged else Reason.HELD)


def _is_later(restarted: str, held_at: str) -> bool:
    """Whether there was a restart since; `kubectl rollout undo` may have taken the last one back."""
    try:
        return datetime.fromisoformat(restarted) > datetime.fromisoformat(held_at)
    except (ValueError, TypeError):
        return bool(restarted) and restarted != held_at
