from __future__ import annotations

import logging
from argparse import ArgumentTypeError
from typing import TYPE_CHECKING, Any

import pytest
from django_db_worker.options import (
    Options,
    OptionsError,
    check_database,
    check_memory,
    check_queues,
    check_slots,
    level_of,
    pool_size,
    split_queues,
    whole_number,
)

if TYPE_CHECKING:
    from collections.abc import Mapping


def options(**given: Any) -> Options:
    return Options(
        **{
            "queue_names": ("default",),
            "excluded_queue_names": (),
            "backend_name": "default",
            "interval": 1.0,
            "batch": False,
            "startup_delay": True,
            "max_tasks": None,
            "worker_id": "pod",
            "processes": 1,
            "threads": 1,
            "health_port": None,
            "task_timeout": 0,
            "max_memory": None,
            **given,
        }
    )


def test_a_slots_id_names_the_pod_and_the_slot() -> None:
    assert options(processes=2, threads=3).slot_id(1, 2) == "pod/2.3"
    assert options(threads=8).slot_id(0, 7) == "pod/1.8"
    assert options().slot_id(0, 0) == "pod"


@pytest.mark.parametrize(
    ("given", "supervised"),
    [
        ({}, False),
        ({"processes": 2}, True),
        ({"threads": 2}, True),
        ({"health_port": 8080}, True),
        ({"task_timeout": 1}, True),
        ({"max_memory": 1}, True),
    ],
)
def test_supervised(given: dict[str, int], *, supervised: bool) -> None:
    assert options(**given).supervised is supervised


@pytest.mark.parametrize("text", ["0", "65", "-1", "1.5", "", "four", "1e1", "+1"])
def test_numbers_outside_the_range_are_refused(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="must be a whole number from 1 to 64"):
        whole_number(1, 64)(text)


def test_numbers_at_the_ends_of_the_range_are_taken() -> None:
    assert [whole_number(1, 64)(text) for text in ("1", "64")] == [1, 64]


@pytest.mark.parametrize(
    ("names", "excluded", "expected"),
    [
        ("default", "", (("default",), ())),
        ("a,b", "", (("a", "b"), ())),
        ("*", "", ((), ())),
        ("*", "slow,big", ((), ("slow", "big"))),
        ("a,*", "slow", ((), ("slow",))),
    ],
)
def test_queues(names: str, excluded: str, expected: tuple[tuple[str, ...], tuple[str, ...]]) -> None:
    assert split_queues(names, excluded) == expected


def test_queues_are_excluded_from_all_queues_only() -> None:
    with pytest.raises(OptionsError, match=r"^--exclude-queues can only be used with --queue-name=\*$"):
        split_queues("a", "b")


def test_a_queue_that_the_backend_lacks_is_refused() -> None:
    with pytest.raises(OptionsError, match=r"^Unknown queue 'mial': .*'default' has 'default', 'mail'"):
        check_queues(("mail", "mial"), {"mail", "default"}, "default")


def test_a_backend_without_queues_has_every_queue() -> None:
    check_queues(("whatever",), set(), "default")
    check_queues((), {"default"}, "default")


@pytest.mark.parametrize(
    ("pool", "size"),
    [
        (None, None),
        (False, None),
        ({}, None),  # falsy: Django makes no pool of it
        (True, 4),
        ({"min_size": 2}, 2),
        ({"max_size": 10}, 10),
        ({"min_size": 2, "max_size": None}, 2),
        ({"timeout": 3}, 4),
    ],
)
def test_the_size_of_a_pool(pool: object, size: int | None) -> None:
    assert pool_size(pool) == size


@pytest.mark.parametrize(
    ("given", "vendor", "database", "message"),
    [
        ({"processes": 2}, "sqlite", {}, "SQLite allows one writer"),
        ({"threads": 2}, "sqlite", {}, "SQLite allows one writer"),
        ({"threads": 5}, "postgresql", {"pool": True}, "--threads=5 .* has at most 4"),
        ({"processes": 2, "worker_id": "x" * 61}, "mysql", {}, "--worker-id is 1 characters too long"),
    ],
)
def test_slots_that_cannot_work_are_refused(
    given: dict[str, Any], vendor: str, database: Mapping[str, object], message: str
) -> None:
    with pytest.raises(OptionsError, match=message):
        check_slots(options(**given), vendor, "default", database)


@pytest.mark.parametrize(
    ("used", "message"),
    [
        (None, "needs Linux"),
        (100 * 2**20, "is 100 MiB, but a process of this project has 100 MiB before its first task"),
        (120 * 2**20, "has 120 MiB"),
    ],
)
def test_a_limit_that_no_process_can_keep_is_refused(used: int | None, message: str) -> None:
    with pytest.raises(OptionsError, match=message):
        check_memory(100 * 2**20, used)


def test_a_limit_without_its_unit_is_said_in_bytes() -> None:
    with pytest.raises(OptionsError, match="is 512 bytes, but a process of this project has 40 MiB"):
        check_memory(512, 40 * 2**20)


def test_a_limit_that_can_be_kept() -> None:
    check_memory(100 * 2**20, 99 * 2**20)
    check_memory(None, None)


def test_a_database_without_an_engine_is_refused() -> None:
    with pytest.raises(OptionsError, match=r"'other' has no ENGINE in DATABASES.*DATABASE_URL"):
        check_database("django.db.backends.dummy", "other")
    check_database("django.db.backends.postgresql", "other")


def test_slots_that_work() -> None:
    check_slots(options(), "sqlite", "default", {})
    check_slots(options(processes=64, threads=4), "postgresql", "default", {"pool": True})
    check_slots(options(processes=2, worker_id="x" * 60), "mysql", "default", {})
    check_slots(options(worker_id="x" * 64), "mysql", "default", {})


@pytest.mark.parametrize(
    ("setting", "level"), [("INFO", logging.INFO), ("debug", logging.DEBUG), (30, logging.WARNING)]
)
def test_log_levels(setting: object, level: int) -> None:
    assert level_of(setting) == level


@pytest.mark.parametrize("setting", ["LOUD", None, True, ""])
def test_other_log_levels_are_refused(setting: object) -> None:
    with pytest.raises(OptionsError, match="use DEBUG, INFO, WARNING, ERROR or CRITICAL"):
        level_of(setting)
