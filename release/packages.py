"""The chart, the file for ``kubectl apply``, and Python packages: the same bytes whenever they are made."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

from release.sources import absolute_links
from release.tools import run, say, tool
from release.wish import Refused

if TYPE_CHECKING:
    from release.images import Image
    from release.sources import Source
    from release.wish import Wish

NAME = "django-task-operator"


def archive(image: Image, version: str, target: Path) -> None:
    """Write an image as one file, for ``docker load``, ``ctr images import`` or ``crane push``."""
    with tarfile.open(target / f"{image.name}-{version}-oci.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(image.layout.rglob("*")):
            tar.add(path, str(path.relative_to(image.layout)), recursive=False, filter=_of_nobody)


def chart(wish: Wish, source: Source, target: Path) -> Path:
    """Package the chart, whose images come from the registry that they are pushed to."""
    say("chart")
    folder = target / "chart" / NAME
    # Links become files.
    shutil.copytree(source.folder / "charts" / NAME, folder)
    if wish.registry:
        for name, before, after in (
            ("values.yaml", '  imageRegistry: ""\n', f"  imageRegistry: {json.dumps(wish.registry)}\n"),
            (
                "README.md",
                '| `global.imageRegistry` | `""` |',
                f"| `global.imageRegistry` | `{wish.registry}` |",
            ),
        ):
            text = (folder / name).read_text()
            if text.count(before) != 1:
                raise Refused(f"the chart's {name} has no line {before.strip()}")
            (folder / name).write_text(text.replace(before, after))
    if wish.source_url:
        manifest = folder / "Chart.yaml"
        manifest.write_text(f"{manifest.read_text()}home: {wish.source_url}\nsources: [{wish.source_url}]\n")
        readme = folder / "README.md"
        readme.write_text(absolute_links(readme.read_text(), _files(wish), f"charts/{NAME}"))
    run(tool("helm"), "package", folder, "--destination", target)
    shutil.rmtree(folder.parent)
    package = target / f"{NAME}-{wish.version}.tgz"
    if not package.exists():
        raise Refused(f"charts/{NAME}/Chart.yaml has another version than {wish.version}")
    repack(package, source.epoch)
    return package


def manifests(wish: Wish, source: Source, package: Path, images: list[Image], target: Path) -> None:
    """Write the file for ``kubectl apply``, with this version's images by digest."""
    say("file for kubectl apply")
    values = []
    for key, image in zip(("image", "workerImage"), images, strict=True):
        values += [f"--set={key}.tag={wish.version}", f"--set={key}.digest={image.digest}"]
    script = source.folder / "install" / "generate.py"
    path = f"{Path(tool('helm')).parent}{os.pathsep}{os.environ['PATH']}"
    options = [f"--chart={package}", f"--output={target / f'{NAME}.yaml'}", *values]
    run(sys.executable, script, *options, env={**os.environ, "PATH": path})


def python_packages(wish: Wish, source: Source, target: Path) -> None:
    """Build wheels and source packages of the operator and of the worker."""
    for path in ("", "worker-image"):
        folder = source.folder / path
        say(f"Python packages of {path or 'the operator'}")
        if wish.source_url:
            project = folder / "pyproject.toml"
            project.write_text(project.read_text() + _urls(wish))
            page = folder / "README.md"
            page.write_text(absolute_links(page.read_text(), _files(wish), path))
        run(
            *(sys.executable, "-m", "build", "--no-isolation", "--outdir", target, folder),
            env={**os.environ, "SOURCE_DATE_EPOCH": str(source.epoch)},
        )
    for package in target.glob("*.tar.gz"):
        repack(package, source.epoch)


def _files(wish: Wish) -> str:
    return f"{wish.source_url}/blob/v{wish.version}"


def _urls(wish: Wish) -> str:
    lines = [f'Source = "{wish.source_url}"', f'Changelog = "{_files(wish)}/CHANGELOG.md"']
    return "\n".join(["\n[project.urls]", *lines, ""])


def repack(package: Path, epoch: int) -> None:
    """Write a package anew, in an order and with times that do not depend on who makes it, and when."""

    def as_released(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.mtime = epoch
        return entry

    plain = io.BytesIO()
    with (
        tarfile.open(package) as old,
        tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as new,
    ):
        for entry in sorted(old.getmembers(), key=lambda member: member.name):
            new.addfile(as_released(_of_nobody(entry)), old.extractfile(entry) if entry.isfile() else None)
    with package.open("wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as compressed:
        compressed.write(plain.getvalue())


def _of_nobody(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
    entry.mtime = 0
    entry.pax_headers = {}
    return entry
