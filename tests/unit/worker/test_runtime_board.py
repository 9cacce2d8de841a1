from __future__ import annotations

import os
import uuid

from django_db_worker.board import BUCKETS, Board, State
from django_db_worker.metrics import exposition


def test_what_a_fork_writes_is_seen_here() -> None:
    board = Board(2, 2)
    task = uuid.uuid4()
    pid = os.fork()
    if not pid:
        place = board.place(1, 0)
        place.enter(State.RUNNING)
        place.task = task
        place.count_started(0.3)
        os._exit(0)
    os.waitpid(pid, 0)
    assert board.place(1, 0).state is State.RUNNING
    assert board.place(1, 0).task == task
    assert board.place(1, 0).started == 1
    assert board.place(1, 0).seconds_in_state < 60
    assert [place.started for place in board.all] == [0, 0, 1, 0]
    assert [place.state for place in board.of_process(0)] == [State.NEW, State.NEW]


def test_a_task_is_forgotten() -> None:
    place = Board(1, 1).place(0, 0)
    place.task = uuid.UUID(int=2**128 - 1)
    assert place.task == uuid.UUID(int=2**128 - 1)
    place.task = None
    assert place.task is None


def test_a_place_claims_until_it_is_disconnected() -> None:
    place = Board(1, 1).place(0, 0)
    place.enter(State.CLAIMING)
    assert not place.claims
    place.note_claim()
    place.enter(State.IDLE)
    assert place.claims
    place.enter(State.DISCONNECTED)
    assert not place.claims


def test_every_duration_has_its_bucket() -> None:
    place = Board(1, 1).place(0, 0)
    for seconds in (0.0, BUCKETS[0], BUCKETS[-1], BUCKETS[-1] + 1):
        place.count_finished(seconds, successful=True)
    counts = place.durations.counts
    assert len(counts) == len(BUCKETS) + 1
    assert (counts[0], counts[-2], counts[-1], sum(counts)) == (2, 1, 1, 4)
    assert place.durations.total == BUCKETS[0] + 2 * BUCKETS[-1] + 1
    assert place.waits.total == 0


def test_metrics_are_the_sum_of_all_slots() -> None:
    board = Board(2, 1)
    for process, seconds in ((0, 0.003), (1, 0.3), (1, 40.0)):
        board.place(process, 0).count_started(seconds)
        board.place(process, 0).count_finished(seconds, successful=seconds < 1)
    board.place(0, 0).enter(State.RUNNING)
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
        "django_db_worker_slots 2",
        "django_db_worker_slots_active 1",
        "django_db_worker_process_restarts_total 3",
    ):
        assert expected in lines
