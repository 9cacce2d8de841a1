"""``make release VERSION=0.1.0``: see docs/releasing.md."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

from release import images, packages, papers, registry, sources
from release.tools import BUILD, say
from release.wish import Refused, Wish, notes, refuse_unready


def main() -> None:
    """Make the release that the environment's variables ask for; if it cannot be, say why."""
    try:
        wish = Wish.of(os.environ)
        target = output(os.environ.get("OUTPUT") or BUILD / "release")
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix="release-") as work:
            make(wish, Path(work), target)
    except Refused as error:
        sys.exit(f"error: {error}")


def output(path: str | Path) -> Path:
    """Return the folder in whose place the release is put.

    Raises:
        Refused: something else is in it.
    """
    folder = Path(path).resolve()
    if folder.exists() and any(folder.iterdir()) and not (folder / papers.SUMS).exists():
        raise Refused(f"OUTPUT={path} has files that are not of a release: name another folder")
    return folder


def make(wish: Wish, work: Path, final: Path) -> None:
    """Make a release in the folder ``work``, and put it in the place of the last one when all is there."""
    source = sources.exported(work / "source")
    changelog = source.text("CHANGELOG.md")
    refuse_unready(wish, source.text("pyproject.toml"), changelog, source.changed)

    target = work / "release"
    target.mkdir()
    all_images = images.built(wish, source)
    for image in all_images:
        packages.archive(image, wish.version, target)
    chart = packages.chart(wish, source, target)
    packages.manifests(wish, source, chart, all_images, target)
    packages.python_packages(wish, source, target)
    papers.bills_of_materials(wish, source, all_images, target)
    (target / "NOTES.md").write_text(f"{notes(wish, changelog)}\n")
    statement = papers.provenance(wish, source, all_images, papers.digests_of(target), dict(os.environ))
    (target / "provenance.intoto.json").write_text(f"{json.dumps(statement, indent=1)}\n")
    (target / papers.SUMS).write_text(papers.sums(papers.digests_of(target)))
    if wish.registry:
        registry.push(wish, all_images, chart)

    shutil.rmtree(final, ignore_errors=True)
    target.rename(final)
    for image in all_images:
        say(f"{image.name}@{image.digest} for {', '.join(image.ids)}")
    say(f"{final} has version {wish.version}{' (a draft)' if wish.draft else ''}")


if __name__ == "__main__":
    main()
