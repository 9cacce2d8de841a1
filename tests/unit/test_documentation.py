"""The pages name what the code says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from django_task_operator import errors, scaling, status, tasktable
from django_task_operator.observed import PodTrouble

ROOT = Path(__file__).parent.parent.parent
PACKAGE = ROOT / "operator" / "django_task_operator"


def leaves(kind: type) -> list[type]:
    below = [leaf for child in kind.__subclasses__() for leaf in leaves(child)]
    return below or [kind]


def reasons() -> set[str]:
    found = {kind.__name__ for base in (errors.WorkerError, tasktable.DatabaseError) for kind in leaves(base)}
    found |= {str(reason) for reason in (*scaling.Reason, *PodTrouble)}
    found |= {reason for reason, _ in status.NO_METRICS.values()}
    for module in ("status.py", "events.py", "reconcile.py", "orphans.py"):
        text = (PACKAGE / module).read_text()
        found |= set(re.findall(r'Verdict\(\s*[\w.]+,\s*"(\w+)"', text))
        found |= set(re.findall(r'Event\(\s*"\w+",\s*"(\w+)"', text))
    return found


@pytest.mark.parametrize("reason", sorted(reasons()))
def test_every_reason_is_explained(reason: str) -> None:
    assert f"`{reason}`" in (ROOT / "docs" / "troubleshooting.md").read_text()


@pytest.mark.parametrize(
    "page", [*ROOT.glob("*.md"), *ROOT.glob("[!b]*/**/*.md")], ids=lambda path: str(path.relative_to(ROOT))
)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target
