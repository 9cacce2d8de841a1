"""When pods are replaced because their database's URL has changed, as a table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_task_operator.resources.rotation import Rotation, follow, url_hash

URL = "postgres://shop:secret@db.shop.svc/shop"
KEY, OTHER_KEY = b"k" * 32, b"o" * 32
OLD, NEW = (url_hash(KEY, "worker-1", url) for url in (URL, URL + "2"))
OF_OTHER_KEY = url_hash(OTHER_KEY, "worker-1", URL)
NOTHING = Rotation()


@pytest.mark.parametrize(
    ("before", "seen", "facts", "after"),
    [
        # A first installation, and an upgrade of an operator that knew no hash.
        (NOTHING, OLD, {}, Rotation(OLD)),
        (NOTHING, OLD, {"works": False}, NOTHING),
        (Rotation(OLD), OLD, {}, Rotation(OLD)),
        # The change.
        (Rotation(OLD), NEW, {}, Rotation(NEW, NEW, changed=True)),
        (Rotation(NEW, NEW), NEW, {}, Rotation(NEW, NEW)),
        (Rotation(NEW, NEW), OLD, {}, Rotation(OLD, OLD, changed=True)),
        # A new URL that does not work, or not yet.
        (Rotation(OLD), NEW, {"works": False}, Rotation(OLD)),
        (Rotation(OLD, OLD), NEW, {"works": False}, Rotation(OLD, OLD)),
        # The URL cannot be seen: no Secret, no key.
        (Rotation(OLD, OLD), None, {}, Rotation(OLD, OLD)),
        (NOTHING, None, {}, NOTHING),
        # The key was lost.
        (Rotation(OF_OTHER_KEY, OF_OTHER_KEY), NEW, {}, Rotation(NEW, OF_OTHER_KEY)),
        (Rotation(OF_OTHER_KEY), NEW, {"works": False}, Rotation(OF_OTHER_KEY)),
        # Nobody has the old URL.
        (Rotation(OLD), NEW, {"has_pods": False}, Rotation(NEW)),
        (Rotation(OLD, OLD), NEW, {"has_pods": False}, Rotation(NEW, OLD)),
        # Nobody asks: the mark that pods have stays, as without it they would be replaced.
        (Rotation(OLD, OLD), NEW, {"is_asked": False}, Rotation(None, OLD)),
        (NOTHING, NEW, {"is_asked": False}, NOTHING),
    ],
)
def test_what_a_deployment_says_next(
    before: Rotation, seen: str | None, facts: dict[str, bool], after: Rotation
) -> None:
    assert follow(before, seen, **{"is_asked": True, "works": True, "has_pods": True, **facts}) == after


hashes = st.none() | st.sampled_from([OLD, NEW, OF_OTHER_KEY])


@given(
    known=hashes, mark=hashes, seen=hashes, is_asked=st.booleans(), works=st.booleans(), pods=st.booleans()
)
def test_the_mark_moves_only_for_a_change_that_is_told_and_settles_at_once(
    known: str | None, mark: str | None, seen: str | None, *, is_asked: bool, works: bool, pods: bool
) -> None:
    before = Rotation(known, mark)
    after = follow(before, seen, is_asked=is_asked, works=works, has_pods=pods)

    assert after.changed or after.mark == mark
    assert not after.changed or (is_asked and works and pods and known and seen and known != seen)
    again = follow(after, seen, is_asked=is_asked, works=works, has_pods=pods)
    assert (again.known, again.mark, again.changed) == (after.known, after.mark, False)


def test_a_hash_tells_nothing_without_the_key_and_fits_an_annotation() -> None:
    assert url_hash(KEY, "worker-1", URL) == OLD
    assert len({OLD, NEW, OF_OTHER_KEY, url_hash(KEY, "worker-2", URL)}) == 4
    assert "secret" not in OLD
    assert OLD.partition("-")[0] == NEW.partition("-")[0] != OF_OTHER_KEY.partition("-")[0]
    assert len(OLD) == 8 + 1 + 32


def test_text_that_is_no_utf_8_has_a_hash() -> None:
    assert url_hash(KEY, "worker-1", "\udcff") != url_hash(KEY, "worker-1", "\udcfe")
