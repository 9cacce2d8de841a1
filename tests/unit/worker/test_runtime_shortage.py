"""Whose memory it is when a container runs out of it, and how that is said."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest
from django_db_worker import memory, shortage
from django_db_worker.child import Child
from django_db_worker.memory import MIB, TICK_SECONDS
from django_db_worker.shortage import MOST_BYTES, ShortageWatch, describe, is_short, suspects
from django_db_worker.status_board import StatusBoard

from django_task_operator.observed.deaths import Shortage, shortage_of

if TYPE_CHECKING:
    from pathlib import Path

ONE, TWO, THREE = (str(uuid.UUID(int=number)) for number in (1, 2, 3))


@pytest.mark.parametrize(
    ("used", "before", "short"),
    [(900, 900, False), (901, 901, True), (700, 600, False), (701, 600, True), (880, 950, False)],
)
def test_when_memory_is_short(used: int, before: int, *, short: bool) -> None:
    assert is_short(used, before, 1000) is short


@pytest.mark.parametrize(
    ("sizes", "growths", "named"),
    [
        ([600, 20, 0], [0, 0, 0], [0]),
        ([600, 300, 299], [0, 0, 0], [0, 1]),
        # Not the largest, but the one that grows.
        ([600, 20, 200], [0, 0, 150], [0, 2]),
        ([600, 90, 200], [0, 80, 150], [0, 1, 2]),
        # Nothing to speak of.
        ([600, 20, 200], [0, 0, 50], [0]),
        ([0, 0, 0], [0, 0, 0], [0, 1, 2]),
        ([], [], []),
    ],
)
def test_who_may_be_what_takes_it(sizes: list[int], growths: list[int], named: list[int]) -> None:
    assert suspects(dict(enumerate(sizes)), dict(enumerate(growths)), 1000) == named


def test_the_operator_understands_the_line() -> None:
    line = describe(
        151 * MIB, 160 * MIB, [(2, 70 * MIB, [ONE, TWO]), (3, 60 * MIB, []), (4, 55 * MIB, [THREE])]
    )
    assert line == (
        f"Short of memory (151 of 160 MiB): process 2 takes 70 MiB for tasks {ONE}, {TWO}; "
        f"process 4 takes 55 MiB for task {THREE}.\n"
    )
    found = shortage_of({"reason": "OOMKilled", "message": line})
    assert found == Shortage(frozenset({ONE, TWO, THREE}), line.strip())


@pytest.mark.parametrize("processes", [[], [(1, MIB, [])], [(1, MIB, [ONE] * 120)]], ids=len)
def test_nobody_is_named_if_that_would_not_be_all(processes: list[tuple[int, int, list[str]]]) -> None:
    assert describe(1, 1, processes) == ""


def test_a_line_fits() -> None:
    line = describe(1, 1, [(1, MIB, [ONE] * 100)])
    assert 3000 < len(line) <= MOST_BYTES


class Container:
    """Says how much memory it uses, and keeps what the watch writes."""

    def __init__(self, folder: Path, most: str) -> None:
        self.folder, self.log = folder, folder / "termination-log"
        (folder / "memory.max").write_text(f"{most}\n")
        self.log.touch()
        self.use(0)

    def use(self, mebibytes: int) -> None:
        (self.folder / "memory.current").write_text(f"{(mebibytes + 7) * MIB}\n")
        (self.folder / "memory.stat").write_text(f"anon 1\ninactive_file {7 * MIB}\n")


@pytest.fixture
def container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Container:
    monkeypatch.setattr(memory, "GROUP", tmp_path)
    monkeypatch.setattr(shortage, "TERMINATION_LOG", tmp_path / "termination-log")
    return Container(tmp_path, str(1000 * MIB))


def test_a_line_comes_and_goes_with_the_shortage(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {1: 500 * MIB, 2: 20 * MIB}
    monkeypatch.setattr(memory, "used_by", lambda pid: sizes.get(pid, 10 * MIB))
    board = StatusBoard(2, 1)
    children = [Child(number, board.of_process(number), pid=number + 1) for number in range(2)]
    board.slot(0, 0).task, board.slot(1, 0).task = uuid.UUID(ONE), uuid.UUID(TWO)
    watch, now = ShortageWatch(), 100.0

    def after(mebibytes: int) -> str:
        nonlocal now
        now += TICK_SECONDS
        container.use(mebibytes)
        watch.watch(children, now)
        return container.log.read_text()

    assert after(400) == ""
    assert after(520) == ""
    assert after(720).startswith("Short of memory (720 of 1000 MiB): process 1 takes 490 MiB for task")
    assert after(725) == ""
    assert TWO not in after(901)
    sizes[2] = 200 * MIB
    assert f"; process 2 takes 190 MiB for task {TWO}." in after(999)
    board.slot(0, 0).task = None
    assert ONE not in after(999)
    children[1].pid = None
    assert after(999) == ""
    board.slot(0, 0).task = uuid.UUID(ONE)
    assert ONE in after(999)
    watch.withdraw()
    assert container.log.read_text() == ""
    # What somebody else writes is left alone.
    container.log.write_text("my own words")
    assert after(100) == "my own words"


@pytest.mark.parametrize(
    ("processes", "most", "exists", "useful"),
    [(2, "1000", True, True), (1, "1000", True, False), (2, "max", True, False), (2, "1000", False, False)],
)
def test_where_it_is_of_use(
    container: Container, processes: int, most: str, *, exists: bool, useful: bool
) -> None:
    (container.folder / "memory.max").write_text(f"{most}\n")
    if not exists:
        container.log.unlink()
    assert ShortageWatch.is_useful(processes) is useful


def test_a_file_that_cannot_be_written_hurts_nobody(container: Container) -> None:
    watch = ShortageWatch()
    container.log.unlink()
    container.use(999)
    watch.watch([], 100.0)
    watch.withdraw()
    assert not container.log.exists()
