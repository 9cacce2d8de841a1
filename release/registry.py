"""Pushes a release. What a registry has already is left as it is, and never replaced by something else."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from release.tools import run, say, tool
from release.wish import Refused

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from release.images import Image
    from release.wish import Wish


def push(wish: Wish, images: Sequence[Image], package: Path) -> None:
    """Push the images by their version, then the chart, which needs them.

    Raises:
        Refused: the registry does not take them, or has this version with other content.
    """
    for image in images:
        name = f"{wish.registry}/{image.name}:{wish.version}"
        if _is_there(wish, name, image.digest):
            continue
        say(f"pushing {name}")
        run(tool("crane"), "push", image.layout, name)
    name = f"{wish.chart_registry}/django-task-operator:{wish.version}"
    layer = f"sha256:{hashlib.sha256(package.read_bytes()).hexdigest()}"
    if not _is_there(wish, name, layer):
        say(f"pushing oci://{name}")
        run(tool("helm"), "push", package, f"oci://{wish.chart_registry}")


def _is_there(wish: Wish, name: str, digest: str) -> bool:
    """Whether the registry has a version with this digest, of the image itself or of the chart's archive."""
    try:
        manifest = run(tool("crane"), "manifest", name)
    except Refused as error:
        if any(sign in str(error) for sign in ("MANIFEST_UNKNOWN", "NAME_UNKNOWN", "404 Not Found")):
            return False
        raise
    layers = [layer["digest"] for layer in json.loads(manifest).get("layers", [])]
    if digest in {f"sha256:{hashlib.sha256(manifest.encode()).hexdigest()}", *layers[:1]}:
        say(f"{name} is there already")
        return True
    if wish.draft:
        return False
    raise Refused(
        f"{name} is published already, with other content, and what is published never changes: "
        "release another version"
    )
