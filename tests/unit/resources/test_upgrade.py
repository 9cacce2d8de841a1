"""Which runtime the pods get when the operator brings another one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from django_task_operator.resources import Rotation, RuntimeSource, build_deployment, template_hash
from django_task_operator.resources.upgrade import Reason, Record, choose
from django_task_operator.spec import RuntimeUpgrade, Worker

OLD = RuntimeSource("registry.example/django-task-worker:0.1.0")
NEW = RuntimeSource("registry.example/django-task-worker:0.2.0")
NOON, LATER = "2026-01-01T12:00:00Z", "2026-01-01T13:05:00+01:00"
HELD = Record(OLD.image, OLD.hash, template="t1", held_at="")
RUNNING: dict[str, Any] = {
    "template": "t1",
    "restarted": "",
    "has_pods": True,
    "is_missing": False,
    "is_healthy": True,
    "upgrade": RuntimeUpgrade.ON_NEXT_ROLLOUT,
    "is_its_turn": False,
}
STAGED = {"upgrade": RuntimeUpgrade.STAGED}


@pytest.mark.parametrize(
    ("before", "situation", "reason"),
    [
        pytest.param(None, {}, Reason.NEW, id="a new worker, or a Deployment that was deleted"),
        pytest.param(HELD, {}, Reason.HELD, id="nothing but the runtime is new"),
        pytest.param(replace(HELD, held_at=None), {}, Reason.HELD, id="and that is seen for the first time"),
        pytest.param(replace(HELD, template=""), {}, Reason.HELD, id="an operator kept no record"),
        pytest.param(HELD, {"template": "t2"}, Reason.CHANGED, id="the pods are replaced anyway"),
        pytest.param(HELD, {"has_pods": False}, Reason.UNUSED, id="at zero"),
        pytest.param(HELD, {"restarted": NOON}, Reason.RESTARTED, id="a first restart"),
        pytest.param(
            replace(HELD, held_at=NOON), {"restarted": LATER}, Reason.RESTARTED, id="a later restart"
        ),
        pytest.param(replace(HELD, held_at=NOON), {"restarted": NOON}, Reason.HELD, id="an earlier restart"),
        pytest.param(
            replace(HELD, held_at=LATER), {"restarted": NOON}, Reason.HELD, id="a restart that was undone"
        ),
        pytest.param(
            replace(HELD, held_at=None), {"restarted": NOON}, Reason.HELD, id="a restart before the upgrade"
        ),
        pytest.param(
            replace(HELD, held_at="noon"), {"restarted": "later"}, Reason.RESTARTED, id="not a time"
        ),
        pytest.param(HELD, {"is_missing": True}, Reason.MISSING, id="the old image is gone"),
        pytest.param(HELD, STAGED, Reason.WAITING, id="not its turn"),
        pytest.param(HELD, {**STAGED, "is_its_turn": True}, Reason.STAGED, id="its turn"),
        pytest.param(HELD, {"is_its_turn": True}, Reason.HELD, id="no stages are asked for"),
        pytest.param(HELD, {**STAGED, "has_pods": False}, Reason.UNUSED, id="at zero, nobody waits"),
        pytest.param(
            Record(NEW.image, NEW.hash, template="t1"),
            {"template": "t2"},
            Reason.CURRENT,
            id="nothing is new",
        ),
    ],
)
def test_choice(before: Record | None, situation: dict[str, Any], reason: Reason) -> None:
    choice = choose(before, NEW, **RUNNING | situation)

    assert choice.reason is reason
    is_kept = reason in {Reason.HELD, Reason.WAITING}
    assert choice.source.hash == choice.record.hash == (OLD if is_kept else NEW).hash
    assert choice.source.image == choice.record.image == (OLD if is_kept else NEW).image
    assert choice.record.template == (RUNNING | situation)["template"]
    assert choice.record.staged == (reason is Reason.STAGED)


def test_an_older_operator_is_no_reason_either() -> None:
    newer = Record(NEW.image, NEW.hash, template="t1")

    assert choose(newer, OLD, **RUNNING).reason is Reason.HELD
    assert choose(newer, OLD, **RUNNING | {"template": "t2"}).source == OLD


def test_a_stage_lasts_until_all_pods_are_ready() -> None:
    staged = Record(NEW.image, NEW.hash, template="t1", staged=True)

    assert choose(staged, NEW, **RUNNING | {"is_healthy": False}).record.staged
    assert not choose(staged, NEW, **RUNNING).record.staged
    # What is wrong then may be wrong with the other change.
    assert not choose(staged, NEW, **RUNNING | {"is_healthy": False, "template": "t2"}).record.staged


records = st.builds(
    Record,
    st.sampled_from([OLD.image, NEW.image]),
    st.sampled_from([OLD.hash, NEW.hash]),
    st.sampled_from(["", "b"]),
    st.sampled_from(["", "t1", "t2"]),
    st.sampled_from([None, "", NOON, LATER]),
    st.booleans(),
)
situations = st.fixed_dictionaries(
    {
        "template": st.sampled_from(["t1", "t2"]),
        "restarted": st.sampled_from(["", NOON, LATER]),
        "has_pods": st.booleans(),
        "is_missing": st.booleans(),
        "is_healthy": st.booleans(),
        "upgrade": st.sampled_from(RuntimeUpgrade),
        "is_its_turn": st.booleans(),
    }
)


@given(st.none() | records, situations)
def test_what_was_chosen_is_chosen_again(before: Record | None, situation: dict[str, Any]) -> None:
    """Otherwise every turn would write the Deployment, or replace its pods."""
    # A turn that is taken is over at once: the worker itself stands in the way of others.
    first = choose(before, NEW, **situation)
    second = choose(first.record, NEW, **situation | {"is_its_turn": False})

    assert (second.source.image, second.source.hash) == (first.source.image, first.source.hash)
    third = choose(second.record, NEW, **situation | {"is_its_turn": False})
    assert (third.source, third.record) == (second.source, second.record)


@given(records)
def test_a_record_is_read_as_it_was_written(record: Record) -> None:
    template = build_deployment(WORKER, 1, OLD)["spec"]["template"]

    assert Record.read(record.text, template) == record


GOLDEN = Path(__file__).parent / "golden"
WORKER = Worker.parse(yaml.safe_load((GOLDEN / "minimal" / "worker.yaml").read_text()))


@pytest.mark.parametrize("text", [None, "", "{", "[]", "3", '{"image": "a"}', '{"hash": "a", "other": 1}'])
def test_without_a_record_the_pod_template_says_it(text: str | None) -> None:
    template = build_deployment(WORKER, 1, replace(OLD, revision="b"))["spec"]["template"]

    assert Record.read(text, template) == Record(OLD.image, replace(OLD, revision="b").hash)


@pytest.mark.parametrize("template", [{}, {"spec": None, "metadata": None}])
def test_pods_without_an_injected_runtime_have_no_record(template: dict[str, Any]) -> None:
    assert Record.read(HELD.text, template) is None
    stock = yaml.safe_load((GOLDEN / "stock" / "deployment.yaml").read_text())
    assert Record.read(HELD.text, stock["spec"]["template"]) is None


def test_what_is_kept_is_exactly_the_template_before() -> None:
    """Also with a revision that is not known: the hash is the one that the Deployment has."""
    old = replace(OLD, revision="b")
    before = build_deployment(WORKER, 1, old)["spec"]["template"]
    choice = choose(Record.read(None, before), NEW, **RUNNING)
    after = build_deployment(WORKER, 1, choice.source, record=choice.record)

    assert after["spec"]["template"] == before
    assert json.loads(after["metadata"]["annotations"]["djangotasks.dev/runtime"]) == {
        "image": OLD.image,
        "hash": old.hash,
        "template": "t1",
        "held_at": "",
    }


def test_the_hash_of_a_template_leaves_out_the_runtime_alone() -> None:
    rotation = Rotation()
    before = template_hash(WORKER, OLD, rotation)

    assert template_hash(WORKER, replace(NEW, revision="b"), rotation) == before
    changed = WORKER.model_copy(update={"spec": WORKER.spec.model_copy(update={"image": "shop:2"})})
    others = {
        template_hash(changed, OLD, rotation),
        template_hash(WORKER, replace(OLD, run_as_user=None), rotation),
        template_hash(WORKER, OLD, Rotation(mark="0a1b2c3d-now")),
    }
    assert len(others | {before}) == 4
