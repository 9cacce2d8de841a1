"""Half an hour of injected failures under a steady load of 2,000 tasks: ``make bench-chaos``.

It runs the test in tests/e2e/test_chaos.py for longer, and stores its report in benchmarks/results.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

from benchmarks import cluster


def main() -> None:
    """Run the test and print its report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--tasks", type=int, default=2000)
    given = parser.parse_args()
    report = cluster.RESULTS / "chaos.md"
    environment = {
        **os.environ,
        "CHAOS_SECONDS": str(given.minutes * 60),
        "CHAOS_TASKS": str(given.tasks),
        "CHAOS_REPORT": str(report),
    }
    # The first run counts.
    command = [sys.executable, "-m", "pytest", "tests/e2e/test_chaos.py", "--quiet", "--force-reruns=0"]
    done = subprocess.run(command, cwd=cluster.ROOT, env=environment, check=False)
    print(report.read_text() if report.exists() else "no report: the run did not come to its end")
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
