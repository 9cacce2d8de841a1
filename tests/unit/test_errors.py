"""Every message is complete, written for people, and contains no secret."""

from __future__ import annotations

import json
import os
import re
import string
import subprocess
import sys

import pytest

from django_task_operator.errors import (
    ObjectLeftOver,
    ObjectNameTaken,
    ObjectRejected,
    SecretKeyMissing,
    SecretMissing,
    SecretValueInvalid,
    TransientError,
    UserError,
    WorkerError,
)
from django_task_operator.tasktable.errors import AuthenticationFailed

DETAILS = {
    "field": "spec.image",
    "problem": "it is no name",
    "secret": "shop-db",
    "namespace": "shop",
    "part": "host",
    "command": "/tools/rds-token",
    "key": "url",
    "name": "emails",
    "action": "Deployment",
    "database": "SQLite",
    "why": "it is a file",
    "seconds": 5.0,
    "code": "1205",
    "kind": "PodDisruptionBudget",
    "job": "emails-migrate-1234abcd",
    "how": "exit code 1",
    "kept": "; those of the previous version keep working",
}
# A field of an error with one of these names would be a place for a secret.
SECRETS = {"url", "user", "password", "host", "dsn", "value"}


def subclasses(of: type[WorkerError]) -> list[type[WorkerError]]:
    return [one for child in of.__subclasses__() for one in (child, *subclasses(child))]


EVERY = [error for error in subclasses(WorkerError) if not error.__subclasses__()]


def details(error: type[WorkerError]) -> dict[str, object]:
    names = {name for _, name, _, _ in string.Formatter().parse(error.template) if name}
    return {name: DETAILS[name] for name in names}


def test_there_are_some() -> None:
    assert len(EVERY) > 15


@pytest.mark.parametrize("error", EVERY, ids=lambda error: error.__name__)
def test_message(error: type[WorkerError]) -> None:
    given = details(error)
    raised = error(**given)

    assert raised.reason == error.__name__
    assert raised.reason in error.reasons()
    assert raised.reason.isalpha()
    assert raised.reason[0].isupper()
    assert raised.message == str(raised)
    assert not set("{}\n") & set(raised.message)
    for value in given.values():
        assert (f"{value:g}" if isinstance(value, float) else str(value)) in raised.message
    assert error.template.rstrip().endswith((".", "?", "{problem}"))
    assert len(raised.message) < 400
    assert not SECRETS & given.keys()


@pytest.mark.parametrize(
    "error", [SecretValueInvalid, AuthenticationFailed], ids=lambda error: error.__name__
)
def test_a_secret_with_a_wrong_value_is_to_be_corrected(error: type[WorkerError]) -> None:
    assert re.search(r"Correct .*\bSecret\b", error(**details(error)).message)


@pytest.mark.parametrize("error", EVERY, ids=lambda error: error.__name__)
def test_either_somebody_mends_it_or_it_may_pass(error: type[WorkerError]) -> None:
    assert issubclass(error, UserError) != issubclass(error, TransientError)


@pytest.mark.parametrize("kind", ["Deployment", "CronJob"])
@pytest.mark.parametrize("error", [ObjectNameTaken, ObjectRejected, ObjectLeftOver])
def test_a_deployment_has_reasons_of_its_own(error: type[WorkerError], kind: str) -> None:
    raised = error(**details(error) | {"kind": kind})
    which = "Deployment" if kind == "Deployment" else "Object"
    assert raised.reason == error.__name__.replace("Object", which)
    assert raised.reason in error.reasons()


def test_braces_in_details_stay_as_they_are() -> None:
    assert "{name}" in ObjectRejected(kind="Deployment", problem="{name} is no name").message


def test_the_same_said_twice_is_the_same() -> None:
    one = SecretMissing(secret="a", namespace="b", field="spec.database.urlSecretRef.name")
    assert one == SecretMissing(secret="a", namespace="b", field="spec.database.urlSecretRef.name")
    assert hash(one) == hash(
        SecretMissing(secret="a", namespace="b", field="spec.database.urlSecretRef.name")
    )
    assert one != SecretMissing(secret="a", namespace="c", field="spec.database.urlSecretRef.name")
    assert one != SecretKeyMissing(secret="a", key="b", field="spec.database.urlSecretRef.name")


WITHOUT_DOCSTRINGS = """
import json, sys
import django_task_operator.tasktable.errors
from django_task_operator.errors import WorkerError

def kinds(of):
    yield of
    for child in of.__subclasses__():
        yield from kinds(child)

errors = {error.__name__: error for error in kinds(WorkerError)}
json.dump([str(errors[name](**details)) for name, details in json.load(sys.stdin)], sys.stdout)
"""


@pytest.mark.parametrize("level", ["0", "1", "2"])
def test_no_message_is_lost_where_python_optimizes(level: str) -> None:
    given = [(error.__name__, details(error)) for error in EVERY]
    told = subprocess.run(
        [sys.executable, "-c", WITHOUT_DOCSTRINGS],
        input=json.dumps(given),
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONOPTIMIZE": level},
    )
    assert json.loads(told.stdout) == [str(error(**details(error))) for error in EVERY]
