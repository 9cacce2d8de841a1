from __future__ import annotations

import os
import signal
from argparse import ArgumentTypeError
from pathlib import Path

import pytest
from django_db_worker.memory import MIB, Verdict, is_scarce, judge, judge_all, quantity, used_by, volunteer


@pytest.mark.parametrize(
    ("used", "scarce", "verdict"),
    [
        (0, False, Verdict.KEEP),
        (1000, True, Verdict.KEEP),
        (1001, False, Verdict.LEAVE),
        (1500, False, Verdict.LEAVE),
        (1501, False, Verdict.KILL),
        (1001, True, Verdict.KILL),
    ],
)
def test_what_becomes_of_a_process(used: int, *, scarce: bool, verdict: Verdict) -> None:
    assert judge(used, 1000, scarce=scarce) is verdict


@pytest.mark.parametrize(
    ("sizes", "scarce", "verdicts"),
    [
        ([], False, []),
        ([1001, 900, 1400], False, [Verdict.LEAVE, Verdict.KEEP, Verdict.LEAVE]),
        # If memory runs out, the largest process has to give way.
        ([1001, 900, 1400], True, [Verdict.LEAVE, Verdict.KEEP, Verdict.KILL]),
        ([1600, 1501, 100], False, [Verdict.KILL, Verdict.KILL, Verdict.KEEP]),
    ],
)
def test_what_becomes_of_all_processes(sizes: list[int], *, scarce: bool, verdicts: list[Verdict]) -> None:
    assert judge_all(sizes, 1000, scarce=scarce) == verdicts


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("800000000", 800_000_000), ("512Mi", 512 * MIB), ("1.5Gi", 1536 * MIB), ("2k", 2000)],
)
def test_quantities(text: str, size: int) -> None:
    assert quantity(text) == size


@pytest.mark.parametrize("text", ["", "0", "0Mi", "-1", "1m", "1 Mi", "Mi", "1mi", "1e3", "1MiB"])
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="such as 512Mi, 1Gi or 800000000"):
        quantity(text)


def test_memory_of_a_process() -> None:
    ready, writer = os.pipe()
    pid = os.fork()
    if not pid:
        grown = b"x" * (100 * MIB)
        os.write(writer, grown[:1])
        signal.pause()
    try:
        os.read(ready, 1)
        used, mine = used_by(pid), used_by(os.getpid())
        assert used is not None
        assert mine is not None
        assert 90 * MIB < used - mine < 110 * MIB
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert used_by(pid) is None


@pytest.mark.parametrize(
    ("most", "current", "cached", "scarce"),
    [
        ("1000", 951, 0, True),
        ("1000", 950, 0, False),
        ("1000", 1000, 60, False),
        ("max", 10**12, 0, False),
    ],
)
def test_whether_the_containers_memory_runs_out(
    tmp_path: Path, most: str, current: int, cached: int, *, scarce: bool
) -> None:
    (tmp_path / "memory.max").write_text(f"{most}\n")
    (tmp_path / "memory.current").write_text(f"{current}\n")
    (tmp_path / "memory.stat").write_text(f"anon 1\ninactive_file {cached}\n")
    assert is_scarce(tmp_path) is scarce


def test_where_no_limit_can_be_seen(tmp_path: Path) -> None:
    assert not is_scarce(tmp_path)


def test_the_kernel_is_offered_the_process() -> None:
    path = Path("/proc/self/oom_score_adj")
    before = int(path.read_text())
    pid = os.fork()
    if not pid:
        volunteer()
        volunteer()
        volunteer()
        os._exit(0 if int(path.read_text()) == min(1000, before + 1500) else 1)
    assert os.waitpid(pid, 0)[1] == 0
