"""Label selectors: what Kubernetes accepts, what it refuses, and what they match."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_task_operator.metrics_api.selector import BadSelector, Operator, Requirement, Selector

LABELS = {"worker": "emails", "queue": "default", "empty": ""}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("", True),
        ("  ", True),
        ("worker=emails", True),
        ("worker==emails", True),
        (" worker = emails , queue = default ", True),
        ("worker=emails,queue=other", False),
        ("worker!=emails", False),
        ("worker!=other", True),
        ("absent!=other", True),
        ("worker in (emails)", True),
        ("worker in (a, emails ,b)", True),
        ("worker in(a,b)", False),
        ("absent in (a)", False),
        ("worker notin (a,b)", True),
        ("worker notin (emails)", False),
        ("absent notin (a)", True),
        ("worker", True),
        ("absent", False),
        ("!absent", True),
        ("! worker", False),
        ("empty=", True),
        ("empty=,worker=emails", True),
        ("worker=", False),
        ("empty in (,a)", True),
        ("empty in (a,)", True),
        ("in=in", False),
        ("in notin (in, notin)", True),
        ("example.org/team!=a", True),
        ("worker=emails,worker in (emails,b)", True),
    ],
)
def test_matches(text: str, matches: bool) -> None:
    assert Selector.parse(text).matches(LABELS) is matches


@pytest.mark.parametrize(
    "text",
    [
        "=",
        "=a",
        ",",
        "a,",
        ",a",
        "a b",
        "a=b c=d",
        "a=b=c",
        "a=(b)",
        "a in",
        "a in ()",
        "a in b",
        "a in (b",
        "a in (b,c",
        "a in b)",
        "a notin ()",
        "!",
        "!!a",
        "!a=b",
        "a>1",
        "a<1",
        "a===b",
        "-a",
        "a=-b",
        "a=b!",
        "a=é",
        "a/b/c",
        "/a",
        "A.org/a",
        "a=" + "b" * 64,
        "b" * 64,
        "a" * 254 + "/b",
    ],
)
def test_refuses(text: str) -> None:
    with pytest.raises(BadSelector, match="unable to parse"):
        Selector.parse(text)


def test_a_refusal_says_where() -> None:
    with pytest.raises(BadSelector) as refused:
        Selector.parse("worker=emails queue=a")
    assert str(refused.value) == (
        "unable to parse 'worker=emails queue=a': found 'queue', expected ',' or the end"
    )


names = st.from_regex(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,8}[A-Za-z0-9])?", fullmatch=True)
requirements = st.one_of(
    st.builds(
        Requirement,
        names,
        st.sampled_from([Operator.IN, Operator.NOT_IN]),
        st.frozensets(names, min_size=1, max_size=3),
    ),
    st.builds(Requirement, names, st.sampled_from([Operator.EXISTS, Operator.DOES_NOT_EXIST])),
)


def written(one: Requirement) -> str:
    match one.operator:
        case Operator.EXISTS:
            return one.key
        case Operator.DOES_NOT_EXIST:
            return f"!{one.key}"
        case _:
            return f"{one.key} {one.operator.value} ({','.join(sorted(one.values))})"


@given(st.lists(requirements, max_size=4))
def test_what_is_written_is_read(wanted: list[Requirement]) -> None:
    assert Selector.parse(",".join(map(written, wanted))) == Selector(tuple(wanted))


@given(st.text(max_size=30))
def test_no_text_does_anything_but_parse_or_be_refused(text: str) -> None:
    with contextlib.suppress(BadSelector):
        Selector.parse(text)


def test_asked_values_and_unknown_labels() -> None:
    selector = Selector.parse("queue in (a,b),queue!=c,worker=emails")
    assert selector.asked("queue") == {"a", "b"}
    assert selector.asked("worker") == {"emails"}
    assert not selector.matches({"worker": "emails"})
    assert selector.matches({"worker": "emails"}, unknown={"queue"})
    assert not selector.matches({"worker": "other"}, unknown={"queue"})
