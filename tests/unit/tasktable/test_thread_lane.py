from __future__ import annotations

import asyncio
import functools
import threading

import pytest

from django_task_operator.tasktable.thread import ThreadLane


async def test_jobs_run_one_after_the_other_in_one_other_thread() -> None:
    lane = ThreadLane("database-1")
    order: list[int] = []

    def job(number: int) -> threading.Thread:
        order.append(number)
        return threading.current_thread()

    threads = await asyncio.gather(*(lane.run(functools.partial(job, number)) for number in range(20)))
    assert order == list(range(20))
    (thread,) = set(threads)
    assert thread is not threading.current_thread()
    assert thread.name == "database-1"
    assert thread.daemon
    lane.end()
    await asyncio.to_thread(thread.join, 10)
    assert not thread.is_alive()


async def test_what_a_job_raises_is_raised_where_it_is_awaited() -> None:
    lane = ThreadLane("database-1")
    with pytest.raises(ZeroDivisionError):
        await lane.run(lambda: 1 / 0)
    assert await lane.run(lambda: 2) == 2
    lane.end()


async def test_a_job_that_nobody_awaits_any_more_harms_nobody() -> None:
    lane = ThreadLane("database-1")
    release = threading.Event()
    waiting = asyncio.ensure_future(lane.run(release.wait))
    await asyncio.sleep(0)
    waiting.cancel()
    release.set()
    assert await lane.run(lambda: 3) == 3
    lane.end()


def test_an_answer_that_comes_after_the_loop_is_dropped() -> None:
    release = threading.Event()
    lane = ThreadLane("database-1")

    async def leave() -> None:
        waiting = asyncio.ensure_future(lane.run(release.wait))
        await asyncio.sleep(0)
        waiting.cancel()

    asyncio.run(leave())
    release.set()
    assert asyncio.run(lane.run(lambda: 4)) == 4
    lane.end()
