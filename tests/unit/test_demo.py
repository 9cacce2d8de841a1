"""The pure parts of the demo, with a timeline of a real run."""

import re
from pathlib import Path

import pytest
from examples.demo.picture import draw
from examples.demo.screen import Screen
from examples.demo.timeline import Counts, Timeline
from examples.demo.verdict import BY_DESIGN, Plan, Verdict

PLAN = Plan()


@pytest.fixture
def timeline() -> Timeline:
    seen = Timeline()
    seen.pod_runs(99.0)  # an older pod, before the burst: not the first one
    seen.scale(99.0, "default-worker", 0)
    seen.scale(99.0, "priority-worker", 0)
    seen.count(99.5, Counts(0, 0, 0, 0, 0))
    seen.enqueued_at = 100.0
    seen.count(100.2, Counts(240, 60, 0, 0, 0))
    seen.scale(100.8, "default-worker", 4)
    seen.scale(100.9, "priority-worker", 2)
    seen.scale(101.0, "priority-worker", 2)
    seen.pod_runs(102.14)
    seen.pod_runs(102.5)
    seen.count(110.0, Counts(150, 60, 6, 80, 4))
    seen.count(140.0, Counts(0, 0, 0, 285, 15))
    seen.scale(150.0, "priority-worker", 0)
    seen.scale(150.1, "default-worker", 0)
    seen.count(150.2, Counts(0, 0, 0, 285, 15))
    return seen


def test_the_last_line(timeline: Timeline) -> None:
    verdict = Verdict.of(PLAN, timeline, 285, {BY_DESIGN: 15})
    assert verdict.missing() == []
    assert str(verdict) == (
        "demo: 300 of 300 tasks finished (285 successful, 15 failed by design),"
        " replicas 0 -> 6 -> 0, first pod after 2.1 s"
    )


@pytest.mark.parametrize(
    ("successful", "failed", "says"),
    [
        (284, {BY_DESIGN: 15}, "299 tasks finished, not 300"),
        (286, {BY_DESIGN: 14}, "14 tasks failed by design, not 15"),
        (284, {BY_DESIGN: 15, "builtins.KeyError": 1}, "KeyError"),
        (285, {"builtins.KeyError": 15}, "0 tasks failed by design"),
    ],
)
def test_wrong_ends_are_told(timeline: Timeline, successful: int, failed: dict[str, int], says: str) -> None:
    assert says in " ".join(Verdict.of(PLAN, timeline, successful, failed).missing())


def test_replicas_that_stay_are_told(timeline: Timeline) -> None:
    timeline.scale(151.0, "default-worker", 1)
    assert Verdict.of(PLAN, timeline, 285, {BY_DESIGN: 15}).missing() == ["1 replicas in the end, not 0"]


def test_a_start_from_more_than_zero_is_told(timeline: Timeline) -> None:
    timeline.enqueued_at = 100.85
    assert Verdict.of(PLAN, timeline, 285, {BY_DESIGN: 15}).missing() == [
        "4 replicas before the burst, not 0"
    ]


def test_a_cluster_that_did_nothing_is_told() -> None:
    seen = Timeline(enqueued_at=100.0)
    seen.scale(99.0, "default-worker", 0)
    verdict = Verdict.of(PLAN, seen, 0, {})
    assert {"no worker was scaled up", "no worker pod was seen running"} <= set(verdict.missing())
    assert str(verdict).endswith("replicas 0 -> 0 -> 0, first pod never")


def test_the_picture_is_drawn(timeline: Timeline, tmp_path: Path) -> None:
    path = tmp_path / "new" / "demo.png"
    draw(timeline, Verdict.of(PLAN, timeline, 285, {BY_DESIGN: 15}), path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_without_a_terminal_it_prints_plain_lines(
    timeline: Timeline, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    with Screen(PLAN) as screen:
        screen.show(timeline)
        screen.show(timeline)
    printed = capsys.readouterr().out
    assert re.fullmatch(
        r" *[\d.]+ s  pending   0  deferred   0  running  0  done 300 of 300  replicas 0\n", printed
    )


def test_on_a_terminal_it_draws(
    timeline: Timeline, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with Screen(PLAN) as screen:
        screen.show(timeline)
    printed = capsys.readouterr().out
    assert "replicas" in printed
    assert "█" in printed
