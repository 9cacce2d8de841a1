"""The operator where it finds no cluster says so in one sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from django_task_operator import __main__, logs

if TYPE_CHECKING:
    from pathlib import Path

BAD_CERTIFICATE = """\
current-context: a
contexts: [{name: a, context: {cluster: a, user: a}}]
clusters: [{name: a, cluster: {server: "https://127.0.0.1:1", certificate-authority-data: hunter2}}]
users: [{name: a, user: {}}]
"""


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a pod nor a change of this process's logs or environment."""
    monkeypatch.setattr(logs, "configure", lambda *_: None)
    # setenv first: what is deleted but not set before would not be restored after main() has set it.
    for name in ("KUBERNETES_SERVICE_HOST", "KUBECONFIG"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def test_outside_of_a_cluster(capsys: pytest.CaptureFixture[str]) -> None:
    assert __main__.main([]) == 1
    assert "outside of a cluster name a kubeconfig with --kubeconfig" in capsys.readouterr().err


@pytest.mark.parametrize(
    "content",
    [
        None,
        "",
        "current-context: hunter2\n",
        "hunter2: [",
        "- hunter2",
        BAD_CERTIFICATE,
    ],
    ids=["no file", "empty", "no such context", "no YAML", "a list", "no base64"],
)
def test_a_kubeconfig_that_cannot_be_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None
) -> None:
    path = tmp_path / "kubeconfig"
    if content is not None:
        path.write_text(content)

    assert __main__.main([f"--kubeconfig={path}"]) == 1

    said = capsys.readouterr().err
    assert f"--kubeconfig={path} has no current context that can be used" in said
    assert "hunter2" not in said
