"""Commands run within limits, leave nothing behind, and tell nothing secret."""

from __future__ import annotations

import os
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.waiting import PATIENCE_S, eventually

from django_task_operator.tasktable.commands import LAST_BYTES, MOST_BYTES, CommandFailed, last_words, run

if TYPE_CHECKING:
    from collections.abc import Iterable

JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJzaG9wIn0.c2lnbmF0dXJl"
SIGNED = "db.internal:5432/?Action=connect&DBUser=app&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20270115%2Feu"


def shell(
    script: str, *, seconds: float = PATIENCE_S, secrets: Iterable[str] = (), **environment: str
) -> bytes:
    environment = {"PATH": os.environ["PATH"], **environment}
    return run(["/bin/sh", "-c", script], environment, seconds, secrets)


def problem(script: str, *, seconds: float = PATIENCE_S, secrets: Iterable[str] = ()) -> str:
    with pytest.raises(CommandFailed) as failed:
        shell(script, seconds=seconds, secrets=secrets)
    assert failed.value.__context__ is None
    return str(failed.value)


def test_what_it_prints_is_returned() -> None:
    assert shell("printf a; echo complaint >&2; printf b") == b"ab"
    assert shell("exec 1>&- 2>&-") == b""
    assert len(shell(f"head -c {MOST_BYTES} /dev/zero")) == MOST_BYTES


def test_it_gets_this_environment_and_no_other_and_no_input() -> None:
    seen = shell("env -u PWD -u SHLVL -u _ -u OLDPWD; cat", A="1").decode().splitlines()
    assert sorted(seen) == ["A=1", f"PATH={os.environ['PATH']}"]


def test_how_it_fails_is_said_with_its_last_words() -> None:
    assert problem("exit 3") == "failed with exit code 3"
    assert problem("echo first >&2; echo 'no role for shop' >&2; echo >&2; exit 4") == (
        "failed with exit code 4: no role for shop"
    )
    assert problem("echo ended >&2; kill -9 $$") == "was killed by signal 9: ended"
    # What it printed may be a token.
    assert "secret" not in problem("echo secret; exit 1")


def test_it_cannot_be_started(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.touch()
    for command, why in ((tmp_path / "missing", "No such file or directory"), (script, "Permission denied")):
        with pytest.raises(CommandFailed, match=f"^could not be started: {why}$"):
            run([str(command)], {}, PATIENCE_S, ())
    with pytest.raises(CommandFailed, match="null character"):
        run(["/bin/true"], {"A": "\0"}, PATIENCE_S, ())


def test_what_takes_too_long_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    started = tmp_path / "started"
    # Ignoring SIGTERM helps neither.
    script = f"trap '' TERM; sleep 1000 & echo waiting >&2; echo $! > {started}; wait"
    seconds = 1
    while (said := problem(script, seconds=seconds)) and not started.exists():
        # A busy machine may need longer than that for it to begin.
        seconds *= 4
    assert said == f"took longer than {seconds} s: waiting"
    child = int(started.read_text())
    eventually(lambda: _is_over(child), "the child is gone")


def test_what_it_leaves_running_is_killed_and_not_waited_for(tmp_path: Path) -> None:
    started = tmp_path / "started"
    began = time.monotonic()
    assert shell(f"sleep 1000 & echo $! > {started}; printf done", seconds=2 * PATIENCE_S) == b"done"
    assert time.monotonic() - began < PATIENCE_S
    eventually(lambda: _is_over(int(started.read_text())), "the child is gone")


def _is_over(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8")
    except FileNotFoundError:
        return True
    # Where nobody reaps orphans, a killed one stays as a zombie.
    return stat.rpartition(")")[2].split()[0] == "Z"


def test_what_prints_without_end_is_killed() -> None:
    assert problem("yes") == f"printed more than {MOST_BYTES} bytes"
    assert problem("yes >&2", seconds=1).startswith("took longer than 1 s")
    assert problem(f"head -c {50 * LAST_BYTES} /dev/zero | tr '\\0' a >&2; exit 1").startswith(
        "failed with exit"
    )


def test_no_descriptors_are_left() -> None:
    shell("true")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for script in ("true", "exit 1", "yes"):
        try:
            shell(script)
        except CommandFailed:
            continue
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize(
    "token", [JWT, SIGNED, "aB3" * 10, "0123456789abcdef01234567", f"password={'x' * 9}"]
)
def test_what_looks_like_a_token_is_hidden(token: str) -> None:
    for said in (f"got {token}", f'{{"token":"{token}"}}', f"token={token}; refused", f"'{token}'"):
        assert not any(token[at : at + 10] in last_words(said) for at in range(len(token) - 9)), said


def test_a_known_token_and_the_url_are_hidden() -> None:
    secrets = ["postgres://app-user@db.internal/shop", "x://x:plainwordsbythemselves@x/"]
    said = last_words("app-user@db.internal may not use plainwordsbythemselves", secrets)
    assert said == "***@*** may not use ***"


@pytest.mark.parametrize(
    "text",
    [
        "Unable to locate credentials. You can configure credentials by running aws configure.",
        "open /var/run/secrets/eks.amazonaws.com/serviceaccount/token: permission denied",
        "An error occurred (AccessDenied) when calling the AssumeRoleWithWebIdentity operation",
        "AADSTS70021: No matching federated identity record found for presented assertion",
        "ModuleNotFoundError: No module named 'botocore'",
    ],
)
def test_ordinary_words_are_shown(text: str) -> None:
    assert last_words(f"Traceback\n  File\n{text}\n\n") == text


def test_harmful_words_are_not() -> None:
    assert last_words("\x1b[2Jred <script>") == r"\x1b[2Jred \x3cscript>"
    assert len(last_words("word " * 1000)) <= 300


def test_nothing_secret_is_in_the_traceback() -> None:
    with pytest.raises(CommandFailed) as failed:
        shell("cat /proc/self/status; exit 1")
    assert "VmSize" not in "".join(traceback.format_exception(failed.value))
