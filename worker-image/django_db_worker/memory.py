"""How much memory a process uses for itself, and the consequences: --max-memory-per-process."""

import enum
import os
import re
from argparse import ArgumentTypeError
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

MIB = 2**20
# How often memory is measured, by whoever watches it.
TICK_SECONDS = 0.25
# How far above its limit a process may be while its tasks finish.
TOLERANCE = 1.5
# The share of the container's own limit at which the kernel is about to kill a process.
SCARCE = 0.95
# On the kernel's scale from -1000 to 1000: it should kill a process, not the supervisor that replaces it.
OOM_SCORE = 500
# Where a container sees its own control group.
GROUP = Path("/sys/fs/cgroup")

_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_UNITS |= {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


class Verdict(enum.Enum):
    """What should happen to a process."""

    KEEP = enum.auto()
    LEAVE = enum.auto()  # once its tasks have finished
    KILL = enum.auto()


def judge(used: int, limit: int, *, scarce: bool) -> Verdict:
    """Decide about a process that uses ``used`` bytes; ``scarce``: the container has little memory left."""
    if used <= limit:
        return Verdict.KEEP
    return Verdict.KILL if scarce or used > TOLERANCE * limit else Verdict.LEAVE


def judge_all(sizes: Sequence[int], limit: int, *, scarce: bool) -> list[Verdict]:
    """Decide about all processes; where memory is scarce, only the largest has to give way."""
    largest = max(sizes, default=0)
    return [judge(used, limit, scarce=scarce and used == largest) for used in sizes]


def quantity(text: str) -> int:
    """Parse bytes, written as in Kubernetes: an argparse type."""
    parts = re.fullmatch(r"(\d+(?:\.\d+)?)([kMGT]|[KMGT]i)?", text)
    if not parts or float(parts[1]) == 0:
        raise ArgumentTypeError(f"must be a number of bytes such as 512Mi, 1Gi or 800000000, not {text!r}")
    return int(float(parts[1]) * _UNITS[parts[2] or ""])


def used_by(pid: int) -> int | None:
    """Return the bytes that a process uses for itself, including swap; None if that cannot be determined.

    Mapped files do not count, because the kernel can evict them.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    found = re.findall(r"^(?:RssAnon|VmSwap):\s+(\d+) kB$", status, re.MULTILINE)
    return sum(map(int, found)) * 1024 if found else None


class ContainerMemory(NamedTuple):
    """How many bytes a container uses, without files that the kernel can evict, and how many it may use."""

    used: int
    most: int


def of_container(group: Path | None = None) -> ContainerMemory | None:
    """Return what this container's control group says (cgroup v2); None if there is no limit to be seen."""
    group = group or GROUP
    try:
        most = int((group / "memory.max").read_text())
        current = int((group / "memory.current").read_text())
        stat = (group / "memory.stat").read_text()
    except (OSError, ValueError):
        # No limit is "max".
        return None
    cached = re.search(r"^inactive_file (\d+)$", stat, re.MULTILINE)
    return ContainerMemory(current - (int(cached[1]) if cached else 0), most)


def is_scarce(group: Path | None = None) -> bool:
    """Whether this container uses nearly as much memory as it may."""
    container = of_container(group)
    return container is not None and container.used > SCARCE * container.most


def volunteer() -> None:
    """Make the kernel kill this process before the supervisor when there is no memory left."""
    path = Path(f"/proc/{os.getpid()}/oom_score_adj")
    with suppress(OSError, ValueError):
        path.write_text(str(min(1000, int(path.read_text()) + OOM_SCORE)))


def in_mib(size: int) -> str:
    """Format a size for people."""
    return f"{size / MIB:.0f} MiB"
