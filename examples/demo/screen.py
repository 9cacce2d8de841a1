"""The demo's output: live on a terminal, otherwise a line every few seconds."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from examples.demo.timeline import Timeline
    from examples.demo.verdict import Plan

WIDTH = 60
PLAIN_INTERVAL_SECONDS = 3
BARS = " ▁▂▃▄▅▆▇█"


class Screen:
    """Shows the steps, and then the timeline as it grows."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._console = Console(highlight=False)
        self._live: Live | None = None
        self._printed_at = 0.0

    def say(self, step: str) -> None:
        """Print the next step."""
        self._console.print(f"[bold]==>[/bold] {step}")

    def show(self, timeline: Timeline) -> None:
        """Show the current state; call it as often as you like."""
        if timeline.since_enqueue(timeline.counts[-1][0]) < 0:
            return  # the burst is not among what was counted yet
        if self._console.is_terminal:
            if self._live is None:
                self._live = Live(console=self._console, auto_refresh=False)
                self._live.start()
            self._live.update(_picture_of(timeline, self._plan), refresh=True)
        elif time.monotonic() - self._printed_at >= PLAIN_INTERVAL_SECONDS:
            self._printed_at = time.monotonic()
            self._console.print(_line_of(timeline, self._plan), soft_wrap=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Restore the terminal, and leave the last state visible."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def finish(self, last_line: str) -> None:
        """Print the last line, unwrapped."""
        self._console.print(last_line, soft_wrap=True)

    def complain(self, trouble: str) -> None:
        """Print what went wrong, on standard error."""
        Console(stderr=True, highlight=False).print(trouble, markup=False, soft_wrap=True)


def _line_of(timeline: Timeline, plan: Plan) -> str:
    now = timeline.counts_now
    seconds = timeline.since_enqueue(time.monotonic())
    return (
        f"{seconds:6.1f} s  pending {now.pending:3}  deferred {now.deferred:3}  running {now.running:2}"
        f"  done {now.finished:3} of {plan.tasks}  replicas {timeline.replicas_now}"
    )


def _picture_of(timeline: Timeline, plan: Plan) -> Group:
    now = timeline.counts_now
    counts = [(moment, counted) for moment, counted in timeline.counts if timeline.since_enqueue(moment) >= 0]
    rows = Table.grid(padding=(0, 2))
    rows.add_column(justify="right", style="bold")
    rows.add_column(justify="right", min_width=3)
    rows.add_column(no_wrap=True)
    pending = [(moment, counted.pending) for moment, counted in counts]
    running = [(moment, counted.running) for moment, counted in counts]
    rows.add_row("pending", str(now.pending), _history(pending, "yellow"))
    rows.add_row("running", str(now.running), _history(running, "cyan"))
    rows.add_row("replicas", str(timeline.replicas_now), _history(_since_burst(timeline), "blue"))
    rows.add_row("deferred", str(now.deferred), "")
    rows.add_row("done", str(now.finished), _progress(now.successful, now.failed, plan.tasks))
    seconds = timeline.since_enqueue(time.monotonic())
    return Group(Text(f"\n{seconds:5.1f} s since the burst was committed\n", style="dim"), rows)


def _since_burst(timeline: Timeline) -> list[tuple[float, int]]:
    assert timeline.enqueued_at is not None
    moments = [(max(moment, timeline.enqueued_at), total) for moment, total in timeline.totals()]
    return [*moments, (time.monotonic(), timeline.replicas_now)]


def _history(values: list[tuple[float, int]], style: str) -> Text:
    """Draw a step curve as one line of blocks, the newest on the right."""
    if not values:
        return Text("")
    start, end = values[0][0], values[-1][0]
    highest = max(value for _, value in values) or 1
    blocks = []
    index = 0
    for column in range(WIDTH):
        moment = start + (end - start) * (column + 1) / WIDTH
        while index + 1 < len(values) and values[index + 1][0] <= moment:
            index += 1
        blocks.append(BARS[-(-values[index][1] * (len(BARS) - 1) // highest)])
    return Text("".join(blocks), style=style)


def _progress(successful: int, failed: int, tasks: int) -> Text:
    green, red = round(WIDTH * successful / tasks), round(WIDTH * failed / tasks)
    return Text.assemble(
        ("█" * green, "green"), ("█" * red, "red"), ("░" * max(WIDTH - green - red, 0), "dim")
    )
