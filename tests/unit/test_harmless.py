"""Text of tenants is shown as it is, unless it could harm who reads it."""

from __future__ import annotations

import json
import logging
import unicodedata
from dataclasses import replace
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.report.test_events import event_object
from tests.unit.report.test_status import GOOD, status_of

from django_task_operator.errors import ObjectRejected
from django_task_operator.harmless import LONGEST_TEXT, harmless, harmless_name, harmless_names
from django_task_operator.logs import configure
from django_task_operator.redaction import Redactor

if TYPE_CHECKING:
    from django_task_operator.observed.objects import Deployment
    from django_task_operator.turn import Turn

CLEAR = "\x1b[2J\x1b]0;owned\x07"
REVERSED = "shop.\u202egnp.tasks"
HOSTILE = f'{CLEAR}{REVERSED}\u200b<script>alert(1)</script>\n{{"level": "ERROR"}}\x00\x9b31m'


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("\x9b31m", r"\x9b31m"),
        ("a\x00b\x07c\x08d\x7f", r"a\x00b\x07c\x08d\x7f"),
        (REVERSED, r"shop.\u202egnp.tasks"),
        ("\u2066isolated\u2069", r"\u2066isolated\u2069"),
        ("em\u200bails", r"em\u200bails"),
        ("\ufeffemails", r"\ufeffemails"),
        ("em\u3164ails", r"em\u3164ails"),
        ("\U000e0041\U000e0042", r"\U000e0041\U000e0042"),
        ("lone \ud800", r"lone \ud800"),
        ("one\ntwo\r\n\tthree\u2028four\x85five", "one two three four five"),
        ("<script>alert(1)</script>", r"\x3cscript>alert(1)\x3c/script>"),
        ("<img src=x onerror=alert(1)>", r"\x3cimg src=x onerror=alert(1)>"),
        ("<!-- <?php", r"\x3c!-- \x3c?php"),
        ("<module onclick=alert(1)>", r"\x3cmodule onclick=alert(1)>"),
        ("<" * 3 + "b>", r"<<\x3cb>"),
    ],
)
def test_what_could_harm_is_escaped(text: str, shown: str) -> None:
    assert harmless(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "42 tasks wait, 10 a pod: 2 -> 5",
        "1 < 2 && 3 > 2, x <= y << 4; <3",
        'File "/srv/shop/tasks.py", line 3, in <module>',
        "shop.tasks.<lambda>, <string>:1",
        "failed at path /spec/template/metadata/labels/cost-center/: 'validation error'",
        "réessayer l\u2019envoi \u00ab\u00a0demain\u00a0\u00bb",
        "メール\u3000送信",
        "письма, 邮件, रसीदें, أوامر",
        "\U0001f40d \u2764\ufe0f \U0001f1e9\U0001f1ea",
        r"C:\new\x1b and %s {braces} $(command) `x`",
        "",
    ],
)
def test_ordinary_text_is_not_altered(text: str) -> None:
    assert harmless(text) == text


@pytest.mark.parametrize("letter", ["x", "ü", "\x1b", "\U000e0041", "<b", "\n"])
def test_megabytes_are_cut(letter: str) -> None:
    assert len(harmless(letter * 5_000_000)) <= LONGEST_TEXT
    assert harmless(letter * 5_000_000).endswith("…")
    assert len(harmless_name(letter * 5_000_000)) <= 200


def test_a_text_of_the_longest_length_is_whole() -> None:
    assert harmless("x" * LONGEST_TEXT) == "x" * LONGEST_TEXT
    assert harmless("x" * (LONGEST_TEXT + 1)) == "x" * (LONGEST_TEXT - 1) + "…"


def test_a_list_of_names_is_short() -> None:
    assert harmless_names(["a", "b"]) == "a, b"
    assert harmless_names([f"q{number}" for number in range(1000)]) == "q0, q1, q2, q3, q4 and 995 more"


ANY_TEXT = st.text(st.characters() | st.sampled_from("\x00\x1b\n\r\u2028\u202e\u200b\ud800<>/!&\"'"))


@given(ANY_TEXT, st.integers(1, 60))
def test_nothing_that_could_harm_is_left(text: str, longest: int) -> None:
    shown = harmless(text, longest)

    assert len(shown) <= longest
    assert not {unicodedata.category(char) for char in shown} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert tags(shown) == []
    assert harmless(shown, longest) == shown


@given(
    st.text(
        st.characters(
            categories=("L", "M", "N", "P", "S"),
            exclude_characters="<\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0",
        )
    )
)
def test_letters_of_any_language_stay_as_they_are(text: str) -> None:
    assert harmless(text) == text


def tags(text: str) -> list[str]:
    """What HTML sees in a text besides characters."""
    seen: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, _: list[tuple[str, str | None]]) -> None:
            seen.append(tag)

        def handle_endtag(self, tag: str) -> None:
            seen.append(tag)

        def handle_comment(self, data: str) -> None:
            seen.append(data)

        def handle_decl(self, decl: str) -> None:
            seen.append(decl)

        def handle_pi(self, data: str) -> None:
            seen.append(data)

    reader = Reader()
    reader.feed(text)
    reader.close()
    return [
        tag
        for tag in seen
        if tag not in {"module", "lambda", "locals", "listcomp", "genexpr", "string", "stdin"}
    ]


def is_harmless(text: str) -> bool:
    return len(text) <= LONGEST_TEXT and text.isprintable() and not tags(text)


LONG = HOSTILE * 100_000


def deployment(failure: str) -> Deployment:
    assert GOOD.deployment
    return replace(GOOD.deployment, failure=failure)


@pytest.mark.parametrize(
    "turn",
    [
        replace(GOOD, unserved_queues=tuple(f"{number}{HOSTILE * 100}" for number in range(100))),
        replace(GOOD, shared_queue=(LONG, GOOD.key)),
        replace(GOOD, apply_error=ObjectRejected(kind="Deployment", problem=LONG)),
        replace(GOOD, deployment=deployment(LONG)),
    ],
    ids=["unserved queues", "shared queue", "refused Deployment", "refused pods"],
)
def test_conditions_are_harmless_and_still_say_what_to_do(turn: Turn) -> None:
    messages = [condition["message"] for condition in status_of(turn)["conditions"]]

    assert all(map(is_harmless, messages)), messages
    (said,) = {message for message in messages if "owned" in message and "replicas are ready" not in message}
    if turn.apply_error is None:
        assert "spec." in said[-200:]


def test_an_event_is_harmless() -> None:
    note = event_object(LONG)["note"]

    assert is_harmless(note)
    assert len(note.encode()) <= 1024


@pytest.mark.usefixtures("unchanged_logging")
@pytest.mark.parametrize("form", ["json", "text"])
def test_a_log_line_is_harmless(form: Any, capfd: pytest.CaptureFixture[str]) -> None:
    configure("info", form)
    log = logging.getLogger("tenants")
    log.info(LONG, extra={"worker": HOSTILE, "number": 3})
    written = capfd.readouterr().err

    (line,) = written.splitlines()
    assert len(line) < 2 * LONGEST_TEXT
    assert line.isprintable()
    assert not tags(line)
    if form == "json":
        record = json.loads(line)
        assert is_harmless(record["msg"])
        assert is_harmless(record["worker"])
        assert record["number"] == 3
    else:
        assert line.endswith("number=3")


@pytest.mark.usefixtures("unchanged_logging")
@pytest.mark.parametrize("form", ["json", "text"])
def test_the_text_of_an_exception_cannot_pass_for_a_log_line(
    form: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    configure("info", form)
    forged = "12:00:00 INFO    all tasks done"
    try:
        raise ValueError(f"{HOSTILE}\n{forged}")  # noqa: TRY301  the traceback is what is looked at
    except ValueError:
        logging.getLogger("tenants").exception("turn failed")
    lines = capfd.readouterr().err.splitlines()

    assert all(line.isprintable() for line in lines)
    assert forged not in lines
    if form == "json":
        (line,) = lines
        assert all(is_harmless(each) for each in json.loads(line)["exc_info"].split("\n"))


def test_what_refuses_pods_is_redacted() -> None:
    redactor = Redactor()
    redactor.learn("postgres://shop:correct-horse-battery@db/shop")
    turn = replace(
        GOOD, deployment=deployment("env DATABASE_URL=postgres://shop:correct-horse-battery@db/shop")
    )

    assert "correct-horse" not in str(status_of(turn.redacted(redactor)))
