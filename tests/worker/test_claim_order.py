"""Claims are in upstream's order, whatever the table holds, with the index and without."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.worker.harness import Project

QUEUES = ["a", "b", "c", "d"]

# Hours from now, far enough that none passes meanwhile; None: no run_after. Ties in everything are wanted.
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "status": st.sampled_from(["READY"] * 5 + ["RUNNING", "SUCCESSFUL"]),
            "backend_name": st.sampled_from(["default"] * 4 + ["other"]),
            "queue_name": st.sampled_from(QUEUES),
            "priority": st.sampled_from([0, 0, 0, 5, -100, 100]),
            "run_after": st.sampled_from([None, None, -1, -2, -3, 1, 2]),
            "enqueued_at": st.integers(0, 5),
        }
    ),
    max_size=25,
)
WANTED = st.sampled_from(
    [
        {"queues": ["a"], "excluded": []},
        {"queues": ["a"], "excluded": []},
        {"queues": ["b", "a"], "excluded": []},
        {"queues": ["a", "a", "c", "nowhere"], "excluded": []},
        {"queues": [], "excluded": []},
        {"queues": [], "excluded": ["b", "nowhere"]},
        {"queues": [], "excluded": QUEUES},
        {"queues": ["a", "b"], "excluded": ["b"]},
    ]
)


@pytest.fixture(params=["indexed", "not indexed"])
def indexed(request: pytest.FixtureRequest, shared: Project) -> Iterator[bool]:
    """Whether the table has the index."""
    if request.param != "indexed":
        yield False
        return
    assert shared.run("db_worker_setup").returncode == 0
    yield True
    assert shared.run("db_worker_setup", "--remove").returncode == 0


@pytest.mark.parametrize("others", [False, True], ids=["alone", "beside locked rows"])
def test_claims_are_in_upstreams_order(shared: Project, indexed: bool, others: bool) -> None:
    """Beside others it is the order of what they have left; of several queues, all of that."""

    @settings(
        # Upstream's query against itself needs few.
        max_examples=60 if indexed else 20,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(rows=ROWS, wanted=WANTED, data=st.data())
    def holds(rows: list[dict[str, Any]], wanted: dict[str, Any], data: st.DataObject) -> None:
        locked: list[int] = []
        if others and rows:
            locked = data.draw(st.lists(st.integers(0, len(rows) - 1), unique=True))
        found = shared.ask("claims", rows=rows, backend="default", locked=locked, **wanted)
        assert found["indexed"] is indexed
        if not others or len(wanted["queues"]) == 1 or not indexed:
            assert found["claimed"] == found["expected"]
        else:
            assert sorted(found["claimed"]) == sorted(found["expected"])

    holds()


@pytest.mark.parametrize(
    ("queues", "excluded"), [(["a"], []), (["b", "a"], []), ([], []), ([], ["b"])], ids=str
)
def test_claimers_take_every_row_once(
    shared: Project, indexed: bool, queues: list[str], excluded: list[str]
) -> None:
    wanted: list[str] = []
    others: list[str] = []
    for place, (queue, priority) in enumerate((q, p) for q in ("a", "b", "c") for p in (0, 5)):
        taken = queue in queues if queues else queue not in excluded
        fields = {"task_path": "chores.nothing", "queue_name": queue, "priority": priority}
        some = shared.ask("insert", times=30, **fields)
        due = shared.ask("insert", times=10, run_after=f"2020-01-0{place + 1}T00:00:00+00:00", **fields)
        others += shared.ask("insert", times=10, run_after="2400-01-01T00:00:00+00:00", **fields)
        (wanted if taken else others).extend(some + due)
    claimed = shared.ask("race", claimers=8, backend="default", queues=queues, excluded=excluded)
    assert sorted(claimed) == sorted(wanted)
    assert shared.statuses().get("READY") == len(others)


def test_a_worker_says_once_what_the_missing_index_costs(shared: Project, indexed: bool) -> None:
    shared.enqueue("nothing", times=20)
    output = shared.batch("--processes=2", "--threads=3")
    assert output.count("manage.py db_worker_setup") == (0 if indexed else 1)
    assert shared.statuses() == {"SUCCESSFUL": 20}


def test_a_worker_outlives_the_removal_of_the_index(shared: Project) -> None:
    assert shared.run("db_worker_setup").returncode == 0
    try:
        worker = shared.worker("--interval=0.1")
        shared.finished(shared.enqueue_one("nothing"))
    finally:
        removed = shared.run("db_worker_setup", "--remove")
    assert removed.returncode == 0
    shared.finished(shared.enqueue_one("nothing"))
    assert worker.terminate() == 0
    assert "Traceback" not in worker.output
