"""The burst: customers who all click at once."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from examples.demo.kubectl import KubectlError, kubectl, lines_of
from examples.demo.stage import NAMESPACE

if TYPE_CHECKING:
    from examples.demo.verdict import Plan

MANAGE = ("exec", f"--namespace={NAMESPACE}", "deployment/web", "--", "python", "manage.py")


async def place_orders(plan: Plan) -> float:
    """Place the plan's orders in one transaction, and return when its commit was reported.

    Raises:
        KubectlError: the command in the web pod did not report that it had enqueued the plan's tasks.
    """
    committed: float | None = None
    async for line in lines_of(
        *MANAGE,
        "place_orders",
        str(plan.orders),
        f"--declined={plan.declined}",
        f"--review-after={plan.review_after_seconds}",
    ):
        # The line is printed right after the commit, so it arrives a few milliseconds later.
        if line == f"enqueued {plan.tasks} tasks":
            committed = time.monotonic()
    if committed is None:
        raise KubectlError(f"the shop did not enqueue {plan.tasks} tasks")
    return committed


async def report() -> tuple[int, dict[str, int]]:
    """Read from the task table how many tasks succeeded, and how many failed with which exception."""
    found = json.loads(await kubectl(*MANAGE, "report_tasks"))
    return found["successful"], found["failed"]
