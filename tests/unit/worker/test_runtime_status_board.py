from __future__ import annotations

import os
import uuid

from django_db_worker.metrics import exposition
from django_db_worker.status_board import (
    BUCKETS,
    LONGEST_NAME,
    MOST_TASKS,
    OTHER_TASKS,
    SlotStatus,
    State,
    StatusBoard,
    Tally,
)
from prometheus_client.parser import text_string_to_metric_families


def test_what_a_fork_writes_is_seen_here() -> None:
    board = StatusBoard(2, 2)
    task = uuid.uuid4()
    pid = os.fork()
    if not pid:
        status = board.slot(1, 0)
        status.enter(State.RUNNING)
        status.task = task
        status.count_started("shop.tasks.mail", 0.3)
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
        status.count_finished("shop.tasks.mail", seconds, successful=True)
    counts = status.durations.counts
    assert len(counts) == len(BUCKETS) + 1
    assert (counts[0], counts[-2], counts[-1], sum(counts)) == (2, 1, 1, 4)
    assert status.durations.total == BUCKETS[0] + 2 * BUCKETS[-1] + 1
    assert status.waits.total == 0


def test_metrics_are_the_sum_of_all_slots() -> None:
    board = StatusBoard(2, 1)
    for process, seconds in ((0, 0.003), (1, 0.3), (1, 40.0)):
        board.slot(process, 0).count_started("shop.tasks.mail", seconds)
        board.slot(process, 0).count_finished("shop.tasks.mail", seconds, successful=seconds < 1)
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
        'django_db_worker_started_by_task_total{task="shop.tasks.mail"} 3',
        'django_db_worker_finished_by_task_total{task="shop.tasks.mail",status="SUCCESSFUL"} 2',
        'django_db_worker_finished_by_task_total{task="shop.tasks.mail",status="FAILED"} 1',
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


def run(status: SlotStatus, task: str) -> None:
    status.count_started(task, 0)
    status.count_finished(task, 0, successful=True)


def test_tasks_are_counted_by_name_also_after_their_process() -> None:
    board = StatusBoard(1, 1)
    for tasks in (["a.b", "c.d"], ["c.d", "e.f"]):
        pid = os.fork()
        if not pid:
            for task in tasks:
                run(board.slot(0, 0), task)
            board.slot(0, 0).count_started("e.f", 0)
            os._exit(0)
        os.waitpid(pid, 0)

    assert board.tallies() == {"a.b": Tally(1, 1), "c.d": Tally(2, 2), "e.f": Tally(3, 1)}


def test_names_beyond_the_bound_are_counted_together() -> None:
    board = StatusBoard(1, 2)
    for number in range(MOST_TASKS + 5):
        run(board.slot(0, 0), f"first.{number}")
    first = board.tallies()
    assert len(first) == MOST_TASKS + 1
    assert first[OTHER_TASKS] == Tally(5, 5)

    # The second slot has room for these, but the page does not; what it has shown, it goes on to show.
    for number in range(MOST_TASKS):
        run(board.slot(0, 1), f"another.{number}")
    run(board.slot(0, 1), "first.0")
    later = board.tallies()
    assert later.keys() == first.keys()
    assert later[OTHER_TASKS] == Tally(5 + MOST_TASKS + 1, 5 + MOST_TASKS + 1)
    assert all(later[name].started >= tally.started for name, tally in first.items())
    assert sum(tally.started for tally in later.values()) == sum(slot.started for slot in board.all)


def test_a_name_can_be_anything() -> None:
    board = StatusBoard(1, 1)
    long = "ä" * LONGEST_NAME
    names = ['a"b\\c', "two\nlines", "two\rlines", "\0", "", OTHER_TASKS, "\ud800", f"{long}1", f"{long}2"]
    for name in names:
        run(board.slot(0, 0), name)

    counted = {
        sample.labels["task"]: sample.value
        for family in text_string_to_metric_families(exposition(board, restarts=0))
        for sample in family.samples
        if sample.name == "django_db_worker_started_by_task_total"
    }
    assert counted == {
        'a"b\\c': 1,
        "two?lines": 2,
        "?": 2,
        OTHER_TASKS: 2,
        "ä" * (LONGEST_NAME // 2): 2,
    }
