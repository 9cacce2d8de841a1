"""What can go wrong with a worker, in words for the person who has to fix it.

An error's ``template`` is its message: the details given when it is raised fill the braces. Its class
name is the reason of the condition and of the event. Neither ever contains a secret: no URL, user,
host or password of a database.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Self

from django_task_operator.redaction import Foreign

if TYPE_CHECKING:
    from collections.abc import Callable


class WorkerGone(Exception):
    """The DjangoTaskWorker has been deleted: there is nothing more to do for it."""


class WorkerError(Exception):
    """Something that keeps one DjangoTaskWorker from its goal."""

    # Not a docstring: ``python -OO`` removes those.
    template: ClassVar[str]
    # Whether the database accepts statements although the tasks in it could not be counted. A migration is
    # then worth starting, whether or not it would fix this particular error.
    database_answers: ClassVar[bool] = False

    def __init__(self, **details: object) -> None:
        """Fill the braces of the class's template with ``details``."""
        self.details = details
        super().__init__(" ".join(self.template.format(**details).split()))

    @property
    def reason(self) -> str:
        """The CamelCase reason of the condition and the event."""
        return type(self).__name__

    @classmethod
    def reasons(cls) -> tuple[str, ...]:
        """Return every reason that an error of this class may have."""
        return (cls.__name__,)

    @property
    def message(self) -> str:
        """What happened and what to do, for people."""
        return str(self)

    def redacted(self, redact: Callable[[str], str]) -> Self:
        """Return the same error with ``redact`` applied to the details that others wrote."""
        if not any(isinstance(detail, Foreign) for detail in self.details.values()):
            return self
        return type(self)(
            **{
                name: redact(detail) if isinstance(detail, Foreign) else detail
                for name, detail in self.details.items()
            }
        )

    def __eq__(self, other: object) -> bool:
        """Compare by class and message: an error that repeats itself is no news."""
        return type(self) is type(other) and str(self) == str(other)

    def __hash__(self) -> int:
        """Return a hash that agrees with equality."""
        return hash((type(self), str(self)))


class UserError(WorkerError):
    """An error that persists until someone changes something: retrying alone does not help."""


class TransientError(WorkerError):
    """An error that may pass by itself: the operator retries with a growing delay."""


class _OfAnObject(WorkerError):
    """What keeps the operator from applying an object.

    The Deployment has reasons of its own, because nothing works without it. All other objects share one
    reason, and the message names the kind.
    """

    @property
    def reason(self) -> str:
        """DeploymentNameTaken for a Deployment, ObjectNameTaken for anything else, and so on."""
        of_any, of_deployment = type(self).reasons()
        return of_deployment if self.details["kind"] == "Deployment" else of_any

    @classmethod
    def reasons(cls) -> tuple[str, ...]:
        """Return both."""
        return cls.__name__, cls.__name__.replace("Object", "Deployment")


class InvalidSpec(UserError):
    template = "{field}: {problem}"


class SecretMissing(UserError):
    template = "Secret {secret} does not exist in namespace {namespace}. Create it, or change {field}."


class SecretKeyMissing(UserError):
    template = "Secret {secret} has no key {key}. Add the key, or change {field}."


class SecretValueInvalid(UserError):
    template = "The value of key {key} in Secret {secret} cannot be used: {problem}. Correct the value in the Secret."


class SecretForbidden(UserError):
    template = "The operator may not read Secret {secret} in namespace {namespace}. Is the namespace among the chart's watchNamespaces, and its RBAC installed?"


class ObjectNameTaken(_OfAnObject, UserError):
    template = "{kind} {name} exists and does not belong to this worker, so it is left alone. Delete it, or give this DjangoTaskWorker another name."


class ObjectRejected(_OfAnObject, UserError):
    template = "The API server refuses the {kind}: {problem}"


class MigrationFailed(UserError):
    template = "Job {job} failed to migrate the database ({how}), so no pod of the new version is started{kept}. Correct spec.image or what it needs, or delete the Job to try again. {problem}"


class ApiUnavailable(TransientError):
    template = "The Kubernetes API did not accept the {action}: {problem}"


class Migrating(TransientError):
    template = "{problem}"


class ObjectLeftOver(_OfAnObject, TransientError):
    template = (
        "{kind} {name} belongs to a deleted DjangoTaskWorker of the same name and is still being removed."
    )
