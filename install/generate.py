#!/usr/bin/env python3
"""Writes install/django-task-operator.yaml from the chart; with --check, fails if the file is not current."""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
MANIFESTS = ROOT / "install" / "django-task-operator.yaml"
NAME = "django-task-operator"

HEAD = f"""\
# Generated from the chart, with its defaults, by `make manifests`: change the chart. How to use this file,
# also with Kustomize: docs/installing-without-helm.md
apiVersion: v1
kind: Namespace
metadata:
  name: {NAME}
  labels:
    app.kubernetes.io/name: {NAME}
    app.kubernetes.io/instance: {NAME}
    app.kubernetes.io/component: operator
    app.kubernetes.io/part-of: {NAME}
"""

# What is about Helm: whose object it is, what an uninstall keeps, and from which template it comes.
HELMS = re.compile(
    r"^ +annotations:\n +helm\.sh/resource-policy: keep\n"
    r"|^ +helm\.sh/chart: .*\n"
    r"|^ +app\.kubernetes\.io/managed-by: Helm\n"
    r"|^# Source: .*\n",
    re.MULTILINE,
)


def main() -> None:
    """Write the file, or check it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the file is not current")
    parser.add_argument(
        "--chart", type=Path, default=ROOT / "charts" / NAME, help="another chart: a release's"
    )
    parser.add_argument("--set", action="append", default=[], help="a value of the chart, as helm's --set")
    parser.add_argument("--output", type=Path, default=MANIFESTS, help="another file")
    options = parser.parse_args()
    text = manifests(rendered(options.chart, options.set))
    if not options.check:
        options.output.write_text(text)
    elif not MANIFESTS.exists() or MANIFESTS.read_text() != text:
        sys.exit(f"{MANIFESTS.relative_to(ROOT)} is not current: run `make manifests`")


def rendered(chart: Path, values: list[str]) -> str:
    """Return the chart as Helm would install it; Helm's own message if it cannot.

    Raises:
        SystemExit: there is no helm, or it refuses the chart.
    """
    helm = shutil.which("helm")
    if helm is None:
        sys.exit("there is no helm on PATH: `make manifests` gets one")
    command = [helm, "template", NAME, str(chart), f"--namespace={NAME}", "--skip-tests"]
    command += [f"--set={value}" for value in values]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout


def manifests(chart: str) -> str:
    """Return the chart's objects as they are without Helm, after the namespace that they need."""
    objects = [text for text in re.split(r"^---\n", HELMS.sub("", chart), flags=re.MULTILINE) if text.strip()]
    return "---\n".join([HEAD, *(separable(text).strip("\n") + "\n" for text in objects)])


def separable(manifest: str) -> str:
    """Return the definition with a label of its own, so that it can be kept, and with it all workers."""
    if "\nkind: CustomResourceDefinition\n" not in manifest:
        return manifest
    # The comments at its top are for those who change it.
    bare = re.sub(r"\A\n*(#.*\n)+", "", manifest)
    return bare.replace("app.kubernetes.io/component: operator\n", "app.kubernetes.io/component: crd\n")


if __name__ == "__main__":
    main()
