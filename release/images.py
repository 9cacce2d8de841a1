"""Builds the images. All platforms of one are an OCI layout, whose digest is the same in every registry."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from release.tools import BUILD, ROOT, run, say, tool
from release.wish import Refused

if TYPE_CHECKING:
    from collections.abc import Iterator

    from release.sources import Source
    from release.wish import Wish

# The folder of each image's Dockerfile.
CONTEXTS = {"django-task-operator": ".", "django-task-worker": "worker-image"}

# What release/build-image ends with if this machine cannot build for a platform.
CANNOT = 3


@dataclass(frozen=True, slots=True)
class Image:
    """An image of the release: an OCI layout with one index of all its platforms, which has the digest."""

    name: str
    layout: Path
    digest: str
    # Docker's id here of each platform's image.
    ids: dict[str, str]


def built(wish: Wish, source: Source) -> list[Image]:
    """Build all images, for all platforms that there are to be.

    Raises:
        Refused: a build failed, or cannot be done here for a platform that was asked for.
    """
    platforms = [platform for platform in wish.platforms if _can_build(wish, source, platform)]
    if not platforms:
        raise Refused("this machine can build for none of the platforms")
    images = []
    for name in CONTEXTS:
        ids = {}
        for platform in platforms:
            say(f"image {name} for {platform}")
            ids[platform] = _build(wish, source, name, platform)
        images.append(_layout(name, wish.version, ids))
    return images


def _can_build(wish: Wish, source: Source, platform: str) -> bool:
    """Build the smaller image; only another platform than this machine's can be one that it cannot build for.

    What this builds is found in Docker's cache later.
    """
    name = "django-task-worker"
    try:
        _build(wish, source, name, platform)
    except CannotBuildError as error:
        if not wish.any_platforms:
            raise Refused(
                f"PLATFORMS names {platform}, but this machine cannot build for it: {error}"
            ) from None
        say(f"LEFT OUT: {platform}, because this machine cannot build for it: {error}")
        return False
    return True


class CannotBuildError(Exception):
    """Why this machine cannot build for a platform."""


def _build(wish: Wish, source: Source, name: str, platform: str) -> str:
    """Build an image, and return its id."""
    tag = f"{name}:{wish.version}-{platform.removeprefix('linux/')}"
    # A draft may have what is in no commit.
    commit = "" if wish.draft else source.commit
    labels = {"version": wish.version, "revision": commit, "source": wish.source_url}
    options = [f"--label=org.opencontainers.image.{key}={value}" for key, value in labels.items() if value]
    script = ROOT / "release" / "build-image"
    command = [str(script), str(source.folder / CONTEXTS[name]), platform, tag, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == CANNOT:
        raise CannotBuildError(done.stdout.strip())
    if done.returncode:
        raise Refused(f"the image {name} could not be built for {platform}\n{done.stderr.strip()}")
    return run(tool("docker"), "image", "inspect", "-f{{.Id}}", tag).strip()


def _layout(name: str, version: str, ids: dict[str, str]) -> Image:
    """Return the image's layout, from the last time if the same images are in it."""
    layout = BUILD / "release-images" / name
    made_of = layout.with_suffix(".json")
    key = json.dumps({"version": version, "ids": ids}, sort_keys=True)
    if not (made_of.exists() and made_of.read_text() == key):
        say(f"archive of {name}")
        layout.parent.mkdir(parents=True, exist_ok=True)
        made_of.unlink(missing_ok=True)
        shutil.rmtree(layout, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=layout.parent) as work, _scratch(Path(work)) as scratch:
            parts = []
            for number, image in enumerate(ids.values()):
                saved = Path(work) / "saved.tar"
                run(tool("docker"), "save", "-o", saved, image)
                pushed = run(tool("crane"), "push", saved, f"{scratch}/{name}:{number}")
                parts += ["-m", pushed.split()[-1]]
            whole = f"{scratch}/{name}:{version}"
            run(tool("crane"), "index", "append", *parts, "-t", whole)
            run(tool("crane"), "pull", "--format=oci", whole, layout)
        index = json.loads((layout / "index.json").read_text())
        # What containerd and Docker call it after they have loaded the archive.
        index["manifests"][0]["annotations"] = {
            "io.containerd.image.name": f"docker.io/library/{name}:{version}",
            "org.opencontainers.image.ref.name": version,
        }
        (layout / "index.json").write_text(json.dumps(index))
        made_of.write_text(key)
    (entry,) = json.loads((layout / "index.json").read_text())["manifests"]
    return Image(name, layout, entry["digest"], ids)


@contextmanager
def _scratch(work: Path) -> Iterator[str]:
    """A registry of our own, which makes an index of what it is given."""
    blobs = work / "blobs"
    blobs.mkdir()
    command = [tool("crane"), "registry", "serve", "--address=127.0.0.1:0", f"--disk={blobs}"]
    environment = {key: value for key, value in os.environ.items() if key != "PORT"}
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        said = ""
        for line in server.stderr or ():
            said += line
            if port := re.search(r"serving on port (\d+)", line):
                yield f"127.0.0.1:{port[1]}"
                return
        raise Refused(f"crane serves no registry\n{said.strip()}")
    finally:
        server.terminate()
        server.communicate()
