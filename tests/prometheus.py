"""A real Prometheus, as a process of this machine."""

from __future__ import annotations

import contextlib
import json
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml
from tests.conftest import tool
from tests.databases import free_port
from tests.waiting import PATIENCE_S, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass(frozen=True)
class Prometheus:
    """Its HTTP API."""

    port: int

    def api(self, path: str, **parameters: str) -> Any:
        """What an endpoint answers; an error of Prometheus is the test's."""
        query = urllib.parse.urlencode(parameters)
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{query}"
        try:
            with urllib.request.urlopen(url, timeout=PATIENCE_S) as response:
                return json.load(response)["data"]
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(f"{path} {parameters}: {error.read().decode()}") from None

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series of an instant vector that have a number now."""
        data = self.api("query", query=expression)
        assert data["resultType"] == "vector", expression
        return [series for series in data["result"] if series["value"][1] != "NaN"]

    @property
    def is_ready(self) -> bool:
        url = f"http://127.0.0.1:{self.port}/-/ready"
        try:
            with urllib.request.urlopen(url, timeout=PATIENCE_S) as response:
                return bool(response.status == 200)
        except OSError:
            return False


@contextlib.contextmanager
def running(folder: Path, configuration: dict[str, Any]) -> Iterator[Prometheus]:
    """A Prometheus that keeps its data in a folder."""
    given = folder / "prometheus.yml"
    given.write_text(yaml.safe_dump(configuration))
    found = Prometheus(free_port())
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(
            [
                tool("prometheus"),
                f"--config.file={given}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{found.port}",
            ],
            stdout=log,
            stderr=log,
        ) as process,
    ):
        try:
            eventually(
                lambda: process.poll() is not None or found.is_ready, "Prometheus is ready", every_s=0.2
            )
            assert process.poll() is None, (folder / "log").read_text()
            yield found
        finally:
            process.terminate()
