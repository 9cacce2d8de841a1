"""`make demo`: deploys the example, places a burst of orders and shows how the workers follow it."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from examples.demo import enqueue, picture, stage
from examples.demo.kubectl import KubectlError
from examples.demo.observe import observing
from examples.demo.screen import Screen
from examples.demo.timeline import Timeline
from examples.demo.verdict import Plan, Verdict
from rich.console import Console

PICTURE = Path("build/demo.png")
DEADLINE_SECONDS = 420


def main() -> int:
    """Run the demo, or with --clean delete what it leaves behind."""
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument("--clean", action="store_true", help="only delete the demo's namespace")
    try:
        if parser.parse_args().clean:
            asyncio.run(stage.clear())
            return 0
        return asyncio.run(_demo(Plan()))
    except stage.NotOurNamespaceError as error:
        Console(stderr=True).print(f"demo: {error}", markup=False, soft_wrap=True)
        return 1


async def _demo(plan: Plan) -> int:
    screen = Screen(plan)
    try:
        with screen:
            async with asyncio.timeout(DEADLINE_SECONDS):
                timeline, verdict = await _perform(plan, screen)
    except (KubectlError, TimeoutError) as error:
        reason = str(error) or f"not done after {DEADLINE_SECONDS} s"
        screen.complain(f"demo: {reason}\n{await stage.explain()}")
        return 1
    picture.draw(timeline, verdict, PICTURE)
    missing = verdict.missing()
    if missing:
        screen.complain("\n  ".join(["demo: not as promised:", *missing]) + f"\n{await stage.explain()}")
    screen.say(f"the picture: {PICTURE}")
    screen.finish(str(verdict))
    return 1 if missing else 0


async def _perform(plan: Plan, screen: Screen) -> tuple[Timeline, Verdict]:
    screen.say("from a clean state")
    await stage.clear()
    await stage.build(screen.say)
    timeline = Timeline()
    async with observing(timeline):
        screen.say(f"{plan.orders} orders: {plan.tasks} tasks, {plan.declined} of them fail by design")
        timeline.enqueued_at = await enqueue.place_orders(plan)
        while not _is_over(timeline, plan):
            screen.show(timeline)
            await asyncio.sleep(0.25)
    successful, failed = await enqueue.report()
    return timeline, Verdict.of(plan, timeline, successful, failed)


def _is_over(timeline: Timeline, plan: Plan) -> bool:
    now = timeline.counts_now
    return now.finished >= plan.tasks and not now.unfinished and timeline.replicas_now == 0


if __name__ == "__main__":
    sys.exit(main())
