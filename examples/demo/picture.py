"""Draws a timeline: the tasks above, the replicas that followed them below."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

if TYPE_CHECKING:
    from pathlib import Path

    from examples.demo.timeline import Timeline
    from examples.demo.verdict import Verdict
    from matplotlib.axes import Axes

PENDING, DEFERRED, RUNNING = "#f0a840", "#e4dccb", "#0f766e"
WORKER_COLOURS = ("#8fa6e0", "#c6d2f5")
GREY = "#666666"


def draw(timeline: Timeline, verdict: Verdict, path: Path) -> None:
    """Write the picture as a PNG."""
    figure = Figure(figsize=(9, 5), dpi=150, layout="constrained")
    tasks, replicas = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    for axes in (tasks, replicas):
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["bottom", "left"]].set_color(GREY)
        axes.tick_params(colors=GREY)
    _draw_tasks(tasks, timeline)
    _draw_replicas(replicas, timeline)
    _mark(tasks, replicas, timeline, verdict)
    end = timeline.since_enqueue(timeline.replicas[-1][0])
    figure.suptitle(
        f"{verdict.plan.tasks} tasks in two queues: {verdict.replicas_before} → {verdict.replicas_peak}"
        f" → {verdict.replicas_after} worker pods in {end:.0f} s",
        x=0.01,
        ha="left",
        fontsize=13,
        fontweight="bold",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _draw_tasks(axes: Axes, timeline: Timeline) -> None:
    seconds = [timeline.since_enqueue(moment) for moment, _ in timeline.counts]
    axes.stackplot(
        seconds,
        [counts.running for _, counts in timeline.counts],
        [counts.pending for _, counts in timeline.counts],
        [counts.deferred for _, counts in timeline.counts],
        labels=["running", "pending", "deferred"],
        colors=[RUNNING, PENDING, DEFERRED],
        step="post",
        linewidth=0,
    )
    axes.set_ylabel("tasks", color=GREY)
    axes.set_ylim(bottom=0)
    # Where the curve has come down, between the marks.
    axes.legend(loc="upper center", bbox_to_anchor=(0.65, 1), frameon=False, reverse=True)


def _draw_replicas(axes: Axes, timeline: Timeline) -> None:
    # A little longer than seen, so that the end at zero shows.
    end = timeline.replicas[-1][0] + 1.5
    workers = sorted(timeline.replicas[-1][1])
    moments = [*(moment for moment, _ in timeline.replicas), end]
    states = [*(state for _, state in timeline.replicas), timeline.replicas[-1][1]]
    axes.stackplot(
        [timeline.since_enqueue(moment) for moment in moments],
        *([state.get(worker, 0) for state in states] for worker in workers),
        labels=workers,
        colors=WORKER_COLOURS,
        step="post",
        linewidth=0,
    )
    axes.plot(
        [timeline.since_enqueue(moment) for moment, _ in timeline.counts],
        [counts.running for _, counts in timeline.counts],
        color=RUNNING,
        linewidth=1.2,
        drawstyle="steps-post",
        label="running tasks",
    )
    axes.set_ylabel("replicas", color=GREY)
    axes.set_xlabel("seconds since the tasks were committed", color=GREY)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    # Room above the curve for the legend and the mark.
    axes.set_ylim(0, 1.4 * max(total for _, total in timeline.totals()))
    axes.set_xlim(-2, timeline.since_enqueue(end))
    axes.legend(loc="upper right", frameon=False, reverse=True, ncols=3)


def _mark(tasks: Axes, replicas: Axes, timeline: Timeline, verdict: Verdict) -> None:
    done = next(moment for moment, counts in reversed(timeline.counts) if counts.unfinished)
    marks = [
        (tasks, float(verdict.plan.review_after_seconds), "deferred tasks are due"),
        (tasks, timeline.since_enqueue(done), "all done"),
    ]
    if verdict.first_pod_seconds is not None:
        marks.append((replicas, verdict.first_pod_seconds, f"first pod, {verdict.first_pod_seconds:.1f} s"))
    for axes, second, text in marks:
        axes.axvline(second, color=GREY, linewidth=0.8, linestyle=":")
        axes.annotate(
            text,
            xy=(second, 1),
            xycoords=("data", "axes fraction"),
            xytext=(4, -2),
            textcoords="offset points",
            va="top",
            color=GREY,
            fontsize=9,
        )
