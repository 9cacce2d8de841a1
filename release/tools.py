"""Runs other programs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from release.wish import Refused

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parent.parent
BUILD = ROOT / "build"


def say(what: str) -> None:
    """Tell who waits what happens."""
    print(f"==> {what}", file=sys.stderr, flush=True)


def tool(name: str) -> str:
    """Return the path of a command that ``make release`` gets.

    Raises:
        Refused: it is not there.
    """
    found = shutil.which(name, path=str(BUILD / "bin")) or shutil.which(name)
    if found is None:
        raise Refused(f"there is no {name}: `make release` gets it")
    return found


def run(*command: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    """Return what a command prints.

    Raises:
        Refused: it failed; with what it says about that.
    """
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        words = [Path(command[0]).name, *(str(word) for word in command[1:])]
        raise Refused(f"{' '.join(words)}\n{(done.stderr or done.stdout).strip()}")
    return done.stdout
