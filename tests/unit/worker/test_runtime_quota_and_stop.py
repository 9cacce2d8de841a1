from __future__ import annotations

import os
import signal
import threading
import time
from functools import partial

import pytest
from django_db_worker.quota import Quota, RecycleToken
from django_db_worker.status_board import StatusBoard
from django_db_worker.stop import Stop


def test_a_quota_counts_what_was_claimed() -> None:
    quota = Quota(2)
    assert quota.take()
    quota.give_back()
    assert [quota.take() for _ in range(3)] == [True, True, False]
    assert quota.used_up
    assert quota.taken == 2


def test_no_quota() -> None:
    quota = Quota(None)
    assert all(quota.take() for _ in range(100))
    assert not quota.used_up


def test_one_process_leaves_at_a_time() -> None:
    token, board = RecycleToken(), StatusBoard(2, 1)
    first, second = (Quota(1, partial(token.take, board.slot(process, 0))) for process in range(2))
    assert first.take()
    assert second.take()
    assert not first.take()
    assert board.slot(0, 0).recycling
    # Over its limit, but it continues, because the other one is being replaced.
    assert second.take()
    token.put_back()
    assert not second.take()
    assert board.slot(1, 0).recycling
    # Once it leaves it does not go back to work.
    token.put_back()
    second.give_back()
    assert not first.take()


def test_a_request_ends_a_wait_at_once_and_every_later_one() -> None:
    stop = Stop()
    threading.Timer(0.1, stop.request).start()
    began = time.monotonic()
    assert stop.wait(30)
    assert stop.wait(30)
    assert time.monotonic() - began < 5
    stop.close()


def test_a_wait_ends_by_itself() -> None:
    stop = Stop()
    assert not stop.wait(0.01)
    assert not stop.asked()
    stop.close()


def test_a_signal_wakes_the_main_thread() -> None:
    stop = Stop()
    before = signal.signal(signal.SIGUSR1, lambda *_: stop.request())
    try:
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        began = time.monotonic()
        assert stop.wait(30)
        assert time.monotonic() - began < 5
    finally:
        signal.signal(signal.SIGUSR1, before)
        stop.close()


def test_a_dead_supervisor_is_a_request() -> None:
    stop = Stop(parent=os.getppid() + 1)
    assert stop.asked()
    assert not stop.at_once
    stop.close()


def test_only_a_tasks_own_code_is_interrupted() -> None:
    stop = Stop()
    stop.end_now()
    assert stop.at_once
    with pytest.raises(SystemExit):
        stop.task().__enter__()
    stop.close()

    stop = Stop()
    with stop.task(), pytest.raises(SystemExit):
        stop.end_now()
    assert not stop.in_task
    stop.end_now()
    stop.close()
