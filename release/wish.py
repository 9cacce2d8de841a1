"""What was asked for, and whether it may be released."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PLATFORMS = ("linux/amd64", "linux/arm64")

HEADING = re.compile(r"^## (.+)$", re.MULTILINE)


class Refused(Exception):
    """Why there is no release, in the words of the person who makes it."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a release is to be.

    ``registry`` is where it is pushed to, such as ``registry.example/team``; empty is nowhere. With
    ``draft``, neither the changelog nor the working tree has to be ready. ``platforms`` are Docker's names;
    if they were not asked for (``any_platforms``), those that this machine cannot build for are left out.
    ``source_url`` is where the source is published; empty if that is not known.
    """

    version: str
    registry: str = ""
    draft: bool = False
    platforms: tuple[str, ...] = PLATFORMS
    any_platforms: bool = True
    source_url: str = ""

    @classmethod
    def of(cls, variables: Mapping[str, str]) -> Wish:
        """Return what the variables of ``make release`` say.

        Raises:
            Refused: one of them cannot be.
        """
        version = variables.get("VERSION", "")
        if not version:
            raise Refused("which version? `make release VERSION=0.1.0`")
        if not re.fullmatch(r"\d+\.\d+\.\d+", version):
            raise Refused(f"VERSION={version}: write three numbers with dots, such as VERSION=0.1.0")
        registry = variables.get("REGISTRY", "").rstrip("/")
        if "://" in registry:
            raise Refused(f"REGISTRY={registry}: leave out {registry.split('://')[0]}://")
        platforms = tuple(re.split(r"[\s,]+", variables.get("PLATFORMS", "").strip()))
        for platform in filter(None, platforms):
            if not re.fullmatch(r"linux/\w+", platform):
                raise Refused(f"PLATFORMS: {platform} is none: write them as {','.join(PLATFORMS)}")
        asked = any(platforms)
        return cls(
            version=version,
            registry=registry,
            draft=variables.get("DRAFT", "") not in {"", "0"},
            platforms=platforms if asked else PLATFORMS,
            any_platforms=not asked,
            source_url=variables.get("SOURCE_URL", "").rstrip("/"),
        )

    @property
    def chart_registry(self) -> str:
        """Where the chart is pushed to: not beside the images, of which one has the chart's name."""
        return f"{self.registry}/charts"


def refuse_unready(wish: Wish, pyproject: str, changelog: str, changed: Sequence[str]) -> None:
    """Refuse a version that the sources do not describe.

    ``pyproject`` and ``changelog`` are the files' texts, ``changed`` the paths that differ from the commit.

    Raises:
        Refused: says what to change.
    """
    has = tomllib.loads(pyproject)["project"]["version"]
    if wish.version != has:
        raise Refused(
            f"VERSION={wish.version}, but project.version in pyproject.toml is {has}: release {has}, or "
            "change the version there; tests/unit/test_version.py names what else has one"
        )
    if wish.draft:
        return
    headings = [heading for heading in HEADING.findall(changelog) if heading != "[Unreleased]"]
    if not headings or not headings[0].startswith(f"[{wish.version}] - "):
        first = (
            f"its newest version is {headings[0].split(']')[0][1:]}" if headings else "it has no version yet"
        )
        raise Refused(
            f"CHANGELOG.md does not say what is new in {wish.version} ({first}): put the heading "
            f"`## [{wish.version}] - YYYY-MM-DD` below `## [Unreleased]`, or try the release with DRAFT=1"
        )
    if not notes(wish, changelog):
        raise Refused(f"CHANGELOG.md says nothing below `## {headings[0]}`: write what is new for users")
    if changed:
        shown = ", ".join(changed[:5]) + (" and others" if len(changed) > 5 else "")  # noqa: PLR2004
        raise Refused(f"not committed: {shown}. Commit or remove them, or try the release with DRAFT=1")


def notes(wish: Wish, changelog: str) -> str:
    """Return what the changelog says of the version; for a draft, what it says of the next one."""
    _before, *sections = HEADING.split(changelog)
    titles, texts = sections[::2], sections[1::2]
    for title, text in zip(titles, texts, strict=True):
        if title.startswith(f"[{wish.version}]") or (wish.draft and title == "[Unreleased]" and text.strip()):
            return text.strip()
    return ""
