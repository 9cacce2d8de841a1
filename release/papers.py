"""What comes with the release so that others can check it: bills of materials, provenance, checksums."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from release.tools import run, say, tool

if TYPE_CHECKING:
    from collections.abc import Sequence

    from release.images import Image
    from release.sources import Source
    from release.wish import Wish

# Of each image: the folder of its pyproject.toml, and what its Python packages are locked by.
LOCKS = {
    "django-task-operator": (".", "requirements/operator.txt"),
    "django-task-worker": ("worker-image", "worker-image/requirements.txt"),
}
SUMS = "SHA256SUMS"
# An identifier of these build steps, by which a verifier knows what the parameters mean: docs/releasing.md.
BUILD_TYPE = "https://djangotasks.dev/release/v1"
# As https://slsa.dev/spec/v1.0/provenance#builder.id asks for: who is trusted to have built it.
LOCAL_BUILDER = "https://djangotasks.dev/release/local"


def bills_of_materials(wish: Wish, source: Source, images: Sequence[Image], target: Path) -> None:
    """Write what is in each image: its Python packages (CycloneDX), and Debian's (CycloneDX and SPDX)."""
    say("bills of materials")
    for image in images:
        folder, lock = LOCKS[image.name]
        run(
            *(sys.executable, "-m", "cyclonedx_py", "requirements", "--output-reproducible", "--no-validate"),
            *("--pyproject", source.folder / folder / "pyproject.toml", "--mc-type=application", "--of=JSON"),
            *("-o", target / f"{image.name}-{wish.version}-python.cdx.json", source.folder / lock),
        )
        for platform in image.ids:
            _of_debian(wish, source, image, platform, target)


def _of_debian(wish: Wish, source: Source, image: Image, platform: str, target: Path) -> None:
    stem = f"{image.name}-{wish.version}-{platform.replace('/', '-')}-debian"
    # Made of what they describe, so that they are the same whenever they are made.
    identifier = uuid.uuid5(uuid.NAMESPACE_URL, f"{BUILD_TYPE}/{source.commit}/{stem}")
    docker = tool("docker")
    container = run(docker, "create", image.ids[platform]).strip()
    try:
        with tempfile.TemporaryDirectory(dir=target.parent) as root:
            for path in ("var/lib/dpkg/", "usr/lib/"):
                Path(root, path).mkdir(parents=True)
            for path in ("var/lib/dpkg/status", "usr/lib/os-release"):
                run(docker, "cp", f"{container}:/{path}", Path(root, path))
            run(
                *(Path(sys.executable).with_name("debsbom"), "generate", "--root", root),
                *(f"--distro-name={image.name}", f"--distro-version={wish.version}"),
                *(f"--distro-arch={platform.removeprefix('linux/')}", f"--cdx-serialnumber={identifier}"),
                f"--spdx-namespace={BUILD_TYPE}/{identifier}",
                f"--timestamp={datetime.fromtimestamp(source.epoch, UTC).isoformat()}",
                *("--out", target / stem),
                # It goes through sets: in the same order each time.
                env={**os.environ, "PYTHONHASHSEED": "0"},
            )
    finally:
        run(docker, "rm", container)


def provenance(
    wish: Wish, source: Source, images: Sequence[Image], digests: dict[str, str], variables: dict[str, str]
) -> dict[str, Any]:
    """Return an in-toto statement of what was built from which commit, as SLSA's provenance 1.0.

    ``digests`` has the SHA-256 of each file of the release; ``variables`` are those of the environment, where
    GitHub says which workflow runs.
    """
    repository = f"git+{wish.source_url or 'file://unpublished'}@{source.commit}"
    server, workflow = variables.get("GITHUB_SERVER_URL"), variables.get("GITHUB_WORKFLOW_REF")
    files = [{"name": name, "digest": {"sha256": digest}} for name, digest in sorted(digests.items())]
    pushed = [
        {
            "name": f"{wish.registry or 'docker.io/library'}/{image.name}",
            "digest": {"sha256": image.digest[7:]},
        }
        for image in images
    ]
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": files + pushed,
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "version": wish.version,
                    "registry": wish.registry,
                    "platforms": sorted({platform for image in images for platform in image.ids}),
                    "draft": wish.draft,
                },
                "internalParameters": {"uncommitted": list(source.changed)},
                "resolvedDependencies": [{"uri": repository, "digest": {"gitCommit": source.commit}}],
            },
            "runDetails": {
                "builder": {"id": f"{server}/{workflow}" if server and workflow else LOCAL_BUILDER},
                "metadata": {"invocationId": variables.get("GITHUB_RUN_ID", "")},
            },
        },
    }


def digests_of(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of a folder by its name."""
    digests = {}
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            digests[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def sums(digests: dict[str, str]) -> str:
    """Return checksums as ``sha256sum --check`` reads them."""
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items()))
