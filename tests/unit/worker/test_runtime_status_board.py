from __future__ import annotations

import os
import uuid

from django_db_worker.metrics import exposition
from django_db_worker.status_board import BUCKETS, State, StatusBoard


def test_what_a_fork_writes_is_seen_here() -> None:
    board = StatusBoard(2, 2)
    task = uuid.uuid4()
    pid = os.fork()
    if not pid:
        status = board.slot(1, 0)
        status.enter(State.RUNNING)
        status.task = task
        status.count_started(0.3)
        os._exit(0)
    os.waitpid(pid, 0)
    assert board.slot(1, 0).state is State.RUNNING
    assert board.slot(1, 0).task == task
    assert board.slot(1, 0).started == 1
    assert board.slot(1, 0).seconds_in_state < 60
    assert [status.started for status in board.all] == [0, 0, 1, 0]
    assert [status.state for status in board.of_process(0)] == [State.NEW, State.NEW]


def test_a_task_is_forgotten() -> None:
    status = StatusBoard(1, 1).slot(0, 0)
    status.task = uuid.UUID(int=2**128 - 1)
    assert status.task == uuid.UUID(int=2**128 - 1)
    status.task = None
    assert status.task is None


def test_a_slot_claims_until_it_is_disconnected() -> None:
    status = StatusBoard(1, 1).slot(0, 0)
    status.enter(State.CLAIMING)
    assert not status.claims
    status.note_claim(found=False)
    status.enter(State.IDLE)
    assert status.claims
    status.enter(State.DISCONNECTED)
    assert not status.claims


def test_every_duration_has_its_bucket() -> None:
    status = StatusBoard(1, 1).slot(0, 0)
    for seconds in (0.0, BUCKETS[0], BUCKETS[-1], BUCKETS[-1] + 1):
        status.count_finished(seconds, successful=True)
    counts = status.durations.counts
    assert len(counts) == len(BUCKETS) + 1
    assert (counts[0], counts[-2], counts[-1], sum(counts)) == (2, 1, 1, 4)
    assert status.durations.total == BUCKETS[0] + 2 * BUCKETS[-1] + 1
    assert status.waits.total == 0


def test_metrics_are_the_sum_of_all_slots() -> None:
    board = StatusBoard(2, 1)
    for process, seconds in ((0, 0.003), (1, 0.3), (1, 40.0)):
        board.slot(process, 0).count_started(seconds)
        board.slot(process, 0).count_finished(seconds, successful=seconds < 1)
    for process, found in ((0, True), (1, True), (1, True), (1, False)):
        board.slot(process, 0).note_claim(found=found)
    board.slot(0, 0).count_failed_claim()
    board.slot(1, 0).count_reconnect()
    board.slot(0, 0).enter(State.RUNNING)
    lines = exposition(board, restarts=3).splitlines()
    for expected in (
        "django_db_worker_tasks_started_total 3",
        'django_db_worker_tasks_finished_total{status="SUCCESSFUL"} 2',
        'django_db_worker_tasks_finished_total{status="FAILED"} 1',
        'django_db_worker_task_duration_seconds_bucket{le="0.005"} 1',
        'django_db_worker_task_duration_seconds_bucket{le="0.5"} 2',
        'django_db_worker_task_duration_seconds_bucket{le="+Inf"} 3',
        "django_db_worker_task_duration_seconds_count 3",
        "django_db_worker_task_queue_wait_seconds_sum 40.303",
        'django_db_worker_claims_total{outcome="claimed"} 3',
        'django_db_worker_claims_total{outcome="empty"} 1',
        'django_db_worker_claims_total{outcome="failed"} 1',
        "django_db_worker_reconnects_total 1",
        "django_db_worker_slots 2",
        "django_db_worker_slots_active 1",
        "django_db_worker_process_restarts_total 3",
    ):
        assert expected in lines
