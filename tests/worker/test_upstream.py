"""The tests of django-tasks-db itself, run against our command.

They are in its source distribution, which is fetched here and kept in a cache; the tasks and settings that
they need are not, and are under upstream/.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.databases import Server, docker
from tests.waiting import PATIENCE_S
from tests.worker.harness import RUNTIME
from tests.worker.packages import fetch

if TYPE_CHECKING:
    from collections.abc import Callable

VERSION = "0.13.0"
SHA256 = "09630d417cf722b07e1439b837403e18e86455908ba532fa6795b0d23dc3ff23"
SUPPORT = Path(__file__).parent / "upstream"

# The others try enqueueing, the admin's pages and the pruning: upstream's own, here as everywhere.
OF_THE_WORKER = ("DatabaseBackendWorkerTestCase", "DatabaseWorkerProcessTestCase")
REPLACES_A_CLASS = (
    "replaces upstream's own Worker class by a mock; that ours takes the value is in test_bad_input.py and "
    "test_semantics.py"
)
DESELECTED = {
    "DatabaseBackendWorkerTestCase.test_fractional_interval": REPLACES_A_CLASS,
    "DatabaseBackendWorkerTestCase.test_zero_interval": REPLACES_A_CLASS,
}


@pytest.fixture(scope="session")
def upstream_tests() -> bytes:
    """Upstream's tests/tests.py, of the locked version."""
    name = f"django_tasks_db-{VERSION}"
    archive = fetch("django-tasks-db", VERSION, f"{name}.tar.gz", SHA256, source=True)
    with tarfile.open(archive) as tar:
        source = tar.extractfile(f"{name}/tests/tests.py")
        assert source is not None
        return source.read()


def sqlite(directory: Path) -> dict[str, Any]:
    """SQLite in a file, because upstream skips tests of worker processes for one in memory."""
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(directory / "db.sqlite3"),
        "OPTIONS": {"timeout": 20},
        "TEST": {"NAME": str(directory / "test.sqlite3")},
    }


def served(server: Server) -> dict[str, Any]:
    engine = {"postgresql": "postgresql", "mysql": "mysql"}[server.scheme]
    return {
        "ENGINE": f"django.db.backends.{engine}",
        "HOST": "127.0.0.1",
        "PORT": server.port,
        "USER": "django",
        "PASSWORD": server.password,
        "NAME": "tasks",
        "TEST": {"NAME": "test_upstream"},
    }


@pytest.fixture(params=["sqlite", "postgres", "mariadb"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    if request.param == "sqlite":
        return sqlite(tmp_path)
    server: Server = request.getfixturevalue(f"{request.param}_server")
    if request.param == "mariadb":
        docker(
            "exec", server.container, "mariadb", "-uroot", "-e", "GRANT ALL ON test_upstream.* TO django@'%'"
        )
    return served(server)


@pytest.fixture
def run(upstream_tests: bytes, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run upstream's tests in a project that contains them."""
    project = tmp_path / "project"
    shutil.copytree(SUPPORT, project, ignore=shutil.ignore_patterns("__pycache__"))
    (project / "tests" / "tests.py").write_bytes(upstream_tests)

    def run(database: dict[str, Any]) -> subprocess.CompletedProcess[str]:
        labels = [f"tests.tests.{name}" for name in OF_THE_WORKER]
        return subprocess.run(
            [sys.executable, "manage.py", "test", "--noinput", "--verbosity=2", *labels],
            cwd=project,
            env={
                **{name: os.environ[name] for name in ("PATH", "HOME", "STOCK") if name in os.environ},
                "PYTHONPATH": str(RUNTIME),
                "DATABASE": json.dumps(database),
                "DESELECTED": json.dumps(sorted(DESELECTED)),
            },
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    return run


@pytest.mark.alone
def test_upstreams_tests_pass(
    run: Callable[..., subprocess.CompletedProcess[str]], database: dict[str, Any]
) -> None:
    done = run(database)
    print(done.stderr)  # noqa: T201
    found = re.search(r"Ran (\d+) tests", done.stderr)
    assert found, done.stdout + done.stderr
    assert done.returncode == 0, done.stderr
    assert int(found[1]) >= 38
