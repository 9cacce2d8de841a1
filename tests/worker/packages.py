"""Files of packages from the index, pinned by hash and kept in the user's cache, not in the repository."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "django-task-operator"

PSYCOPG_POOL = (
    "psycopg-pool",
    "3.3.3",
    "psycopg_pool-3.3.3-py3-none-any.whl",
    "9b9cd6a4fcec47a410f7e82d408540e7f77b478509e91b44c1a5457a13e5ff37",
)


def fetch(package: str, version: str, file: str, sha256: str, *, source: bool = False) -> Path:
    """The file of a package's version, without its dependencies."""
    path = CACHE / file
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        # Other tests may fetch the same at the same time.
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            requirement = Path(folder) / "requirements.txt"
            requirement.write_text(f"{package}=={version} --hash=sha256:{sha256}\n")
            done = subprocess.run(
                [
                    *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"),
                    f"--no-binary={package}" if source else "--only-binary=:all:",
                    *(f"--requirement={requirement}", f"--dest={folder}"),
                ],
                capture_output=True,
                text=True,
                check=False,
            )
            fetched = Path(folder) / file
            assert fetched.exists(), f"could not fetch {file}:\n{done.stderr}"
            fetched.replace(path)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == sha256, f"{path} is another file"
    return path


def unpacked(package: str, version: str, wheel: str, sha256: str) -> Path:
    """A folder with what a wheel has in it.

    Python imports from the wheel itself, too, but forked processes then share the position in the open file.
    """
    folder = CACHE / wheel.removesuffix(".whl")
    if not folder.exists():
        path = fetch(package, version, wheel, sha256)
        with tempfile.TemporaryDirectory(dir=CACHE) as temporary:
            new = Path(temporary) / folder.name
            zipfile.ZipFile(path).extractall(new)
            # Other tests may unpack the same at the same time: the first one wins.
            with contextlib.suppress(OSError):
                new.rename(folder)
    return folder
