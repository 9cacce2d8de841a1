"""Run by `helm test`, in a pod with the operator's image: wait until the leader of the release answers.

The arguments are the URL of its metrics, by the Service that selects only the leader, and how many seconds to
wait.
"""

import http.client
import re
import sys
import time
import urllib.request


def trouble(url: str) -> str | None:
    """Say what is missing there; None if a leader answers."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            text = answer.read().decode()
    except (OSError, http.client.HTTPException) as error:
        return f"nothing answers ({error})"
    if not re.search(r"^django_task_operator_leader 1(\.0)?$", text, re.MULTILINE):
        return "what answers does not lead"
    return None


def main(url: str, limit_s: float) -> None:
    """Return when a leader answers.

    Raises:
        SystemExit: none has, for that many seconds; standard error says what was missing.
    """
    end = time.monotonic() + limit_s
    while (missing := trouble(url)) is not None:
        if time.monotonic() > end:
            sys.exit(
                f"{url}: {missing}: see whether the operator's pod is Ready, its log, and `kubectl get lease`"
            )
        time.sleep(1)
    print(f"{url}: the operator leads and answers")


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
