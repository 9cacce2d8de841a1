"""Merging one partial manifest over another."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_task_operator.resources.merge import MERGE_KEYS, merge


@pytest.mark.parametrize(
    ("base", "overlay", "merged"),
    [
        ({"a": 1}, {"b": 2}, {"a": 1, "b": 2}),
        ({"a": 1}, {"a": 2}, {"a": 2}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"c": 3}}, {"a": {"b": 1, "c": 3}}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"c": None}}, {"a": {"b": 1}}),
        ({"a": 1}, {"a": None}, {}),
        ({"a": 1}, {"b": None}, {"a": 1}),
        ({"args": ["a"]}, {"args": ["b"]}, {"args": ["b"]}),
        ({"tolerations": [{"key": "a"}]}, {"tolerations": [{"key": "b"}]}, {"tolerations": [{"key": "b"}]}),
        (
            {"containers": [{"name": "a", "x": 1}, {"name": "b"}]},
            {"containers": [{"name": "c"}, {"name": "a", "y": 2}]},
            {"containers": [{"name": "a", "x": 1, "y": 2}, {"name": "b"}, {"name": "c"}]},
        ),
        (
            {"ports": [{"containerPort": 1}]},
            {"ports": [{"containerPort": 1, "name": "http"}]},
            {"ports": [{"containerPort": 1, "name": "http"}]},
        ),
        # An entry without its key cannot be told apart: the list is replaced.
        ({"containers": [{"name": "a"}]}, {"containers": [{"image": "b"}]}, {"containers": [{"image": "b"}]}),
        ({"a": {"b": 1}}, {"a": "text"}, {"a": "text"}),
        # If there is nothing to remove, null leaves nothing behind.
        ({}, {"a": {"b": None}}, {"a": {}}),
        ({"a": "text"}, {"a": {"b": None, "c": 1}}, {"a": {"c": 1}}),
        ({}, {"containers": [{"name": "a", "x": None}]}, {"containers": [{"name": "a"}]}),
        (
            {"env": [{"name": "a"}]},
            {"env": [{"name": "b", "x": None}]},
            {"env": [{"name": "a"}, {"name": "b"}]},
        ),
        # One port may be open twice, for TCP and for UDP.
        ({}, {"ports": [{"containerPort": 1}] * 2}, {"ports": [{"containerPort": 1}] * 2}),
    ],
)
def test_merge(base: Any, overlay: Any, merged: Any) -> None:
    assert merge(base, overlay) == merged


scalars = st.one_of(st.booleans(), st.integers(0, 3), st.sampled_from(["", "a", "b"]))


def objects(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Objects with plain fields, and lists whose entries are merged by a key."""
    fields = st.dictionaries(st.sampled_from("abc"), values, max_size=2)

    def entries(key: str) -> st.SearchStrategy[Any]:
        pairs = st.dictionaries(st.sampled_from("xyz"), fields, max_size=2)
        return pairs.map(lambda found: [{**entry, key: name} for name, entry in found.items()])

    lists = {name: entries(MERGE_KEYS[name]) for name in ("containers", "ports")}
    return st.builds(
        lambda plain, keyed: {**plain, **keyed}, fields, st.fixed_dictionaries({}, optional=lists)
    )


def manifests(*, nulls: bool) -> st.SearchStrategy[Any]:
    leaves = st.one_of(scalars, st.lists(scalars, max_size=2), *([st.none()] if nulls else []))
    return objects(st.one_of(leaves, objects(leaves)))


@given(manifests(nulls=False))
def test_nothing_changes_nothing(base: Any) -> None:
    assert merge(base, {}) == base
    assert merge({}, base) == base
    assert merge(base, base) == base


@given(manifests(nulls=False), manifests(nulls=True))
def test_twice_is_once(base: Any, overlay: Any) -> None:
    once = merge(base, overlay)

    assert merge(once, overlay) == once


@given(manifests(nulls=True), manifests(nulls=True))
def test_neither_side_is_changed(base: Any, overlay: Any) -> None:
    before = copy.deepcopy((base, overlay))
    merged = merge(base, overlay)
    assert (base, overlay) == before

    # Nor by whoever changes what came of it, in the parts that were merged.
    if isinstance(merged, dict):
        merged["new"] = 1
    assert (base, overlay) == before


@given(manifests(nulls=False), manifests(nulls=False))
def test_the_overlay_wins(base: Any, overlay: Any) -> None:
    merged = merge(base, overlay)

    assert merged.keys() == base.keys() | overlay.keys()
    for name, value in overlay.items():
        if not isinstance(value, (dict, list)):
            assert merged[name] == value
