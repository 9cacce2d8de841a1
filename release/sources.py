"""The files of the commit, from which everything is made."""

from __future__ import annotations

import posixpath
import re
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from release.tools import ROOT, run

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Source:
    """A copy of the tracked files.

    ``epoch`` is the commit's time, in seconds since 1970, which all files of the release have; ``changed``
    are the paths in which the working tree differs from the commit.
    """

    folder: Path
    commit: str
    epoch: int
    changed: tuple[str, ...]

    def text(self, path: str) -> str:
        """Return a file's text."""
        return (self.folder / path).read_text()


def exported(target: Path) -> Source:
    """Copy the tracked files, as they are in the working tree, so that nothing else gets into a release."""
    for path in run("git", "ls-files", "-z", cwd=ROOT).split("\0"):
        origin = ROOT / path
        if path and (origin.exists() or origin.is_symlink()):
            copy = target / path
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(origin, copy, follow_symlinks=False)
    status = run("git", "status", "--porcelain", "-z", "--no-renames", cwd=ROOT).split("\0")
    return Source(
        folder=target,
        commit=run("git", "rev-parse", "HEAD", cwd=ROOT).strip(),
        epoch=int(run("git", "log", "-1", "--format=%ct", cwd=ROOT)),
        changed=tuple(line[3:] for line in status if line),
    )


def absolute_links(markdown: str, base: str, folder: str = "") -> str:
    """Return a page whose links to files lead somewhere from outside of the repository.

    ``base`` is the address of the repository's files, ``folder`` that of the page in it.
    """

    def absolute(link: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(folder, link["path"]))
        # The address of a page about an image is not that of the image.
        at = base.replace("/blob/", "/raw/") if link["text"].startswith("!") else base
        return f"{link['text']}({at}/{path}{link['anchor']})"

    return re.sub(
        r"(?P<text>!?\[[^]]*\])\((?!\w+:|#)(?P<path>[^)#\s]+)(?P<anchor>#[^)\s]*|)\)", absolute, markdown
    )
