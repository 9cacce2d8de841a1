"""No form of a credential is shown, and our own words are never altered."""

from __future__ import annotations

import base64
import json
import re
import traceback
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

import psycopg
import pymysql
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from django_task_operator.errors import MigrationFailed, ObjectRejected, UserError, WorkerError
from django_task_operator.observed.pods import Pod
from django_task_operator.redaction import HIDDEN, WITHHELD, Foreign, OfSpec, Redactor
from django_task_operator.spec import Key
from django_task_operator.tasktable import DatabaseURL
from django_task_operator.tasktable.engines import ENGINES, Limits
from django_task_operator.tasktable.errors import AuthenticationFailed
from django_task_operator.tasktable.failures import classified
from django_task_operator.turn import Turn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STRONG = "s3cr/t p@ss:w%rd"


def redactor(*urls: str) -> Redactor:
    made = Redactor()
    for url in urls:
        made.learn(url)
    return made


FORMS: dict[str, Callable[[str], str]] = {
    "decoded": lambda secret: secret,
    "in a URL": lambda secret: quote(secret, safe=""),
    "in a path": quote,
    "in a form": quote_plus,
    "in a URL, in lower case": lambda secret: re.sub(
        "%..", lambda code: code[0].lower(), quote(secret, safe="")
    ),
    "in JSON": lambda secret: json.dumps(secret)[1:-1],
    "in JSON, not in ASCII": lambda secret: json.dumps(secret, ensure_ascii=False)[1:-1],
    "in JSON in JSON": lambda secret: json.dumps(json.dumps({"a": secret})),
    "repr": repr,
    "repr of bytes": lambda secret: repr(secret.encode()),
    "in base64": lambda secret: base64.b64encode(secret.encode()).decode(),
    "in base64 for URLs": lambda secret: base64.urlsafe_b64encode(secret.encode()).decode().rstrip("="),
    "in SQL": lambda secret: "'" + secret.replace("'", "''") + "'",
}
URLS: dict[str, Callable[[str], str]] = {
    "postgres": lambda secret: f"postgres://shop_user:{quote(secret, safe='')}@db.shop.svc:5432/orders",
    "mysql": lambda secret: f"mysql://shop_user:{quote(secret, safe='')}@db.shop.svc/orders",
    "in the query": lambda secret: (
        f"postgresql://db.shop.svc/orders?user=shop_user&password={quote(secret, safe='')}&port=6432"
    ),
    "without a host": lambda secret: (
        f"postgresql:///orders?host=db.shop.svc&user=shop_user&password={quote_plus(secret)}"
    ),
    "IPv6": lambda secret: f"postgres://shop_user:{quote(secret, safe='')}@[fd00::7]:5432/orders",
    "several hosts": lambda secret: f"postgres://shop_user:{quote(secret, safe='')}@db1:1,db2:2/orders",
    "not encoded": lambda secret: f"postgres://shop_user:{secret}@db.shop.svc:5432/orders",
    "unknown scheme": lambda secret: f"gopher://shop_user:{quote(secret, safe='')}@db.shop.svc/orders",
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("url", URLS)
def test_every_form_of_a_password_is_replaced(url: str, form: str) -> None:
    written = FORMS[form](STRONG)
    text = redactor(URLS[url](STRONG))(f"cannot connect: {written}, not at all")
    assert written not in text
    assert STRONG not in text
    assert text.startswith("cannot connect: ")
    assert text.endswith(", not at all")
    assert HIDDEN in text


@pytest.mark.parametrize("before", ["", "a", "ab", "abc", "DATABASE_URL="])
def test_a_password_within_something_that_is_encoded(before: str) -> None:
    secret = "correct-horse-battery-staple"
    encoded = base64.b64encode((before + secret + " and more").encode()).decode()
    shown = redactor(URLS["postgres"](secret))(encoded)
    # Except for the characters that it shares with the text beside it.
    assert HIDDEN in shown
    assert len(encoded) - len(shown.replace(HIDDEN, "")) >= len(secret) * 8 // 6 - 2


def test_the_parts_of_a_url_that_is_not_encoded() -> None:
    redact = redactor("postgres://shop_user:first/seco#nd@db.shop.svc/orders")
    assert redact("Port could not be cast to integer value as 'first'") == WITHHELD
    assert redact("no host seco") == WITHHELD
    assert redact("a firstborn") == "a firstborn"


@pytest.mark.parametrize(
    ("password", "text", "shown"),
    [
        ("p", "the operator's pod", "the operator's pod"),
        ("p", "user: p", WITHHELD),
        ("p", "it said :p@\nand then nothing", f"{WITHHELD}\nand then nothing"),
        ("pass", "password authentication failed", "password authentication failed"),
        ("pass", "u:pass@h", WITHHELD),
        ("password", "password authentication failed", WITHHELD),
        ("postgres", "postgresql refuses\npostgres: no", f"postgresql refuses\n{WITHHELD}"),
        ("hunter2", "hunter2", WITHHELD),
        ("hunter22", "xhunter22x", "x***x"),
        ("a", "", ""),
        ("%200%20%200", "said: 0  0", WITHHELD),
        ("%200%20%200", "said: 0 0", WITHHELD),
    ],
)
def test_a_short_or_plain_password_leaves_no_gap_that_would_tell_it(
    password: str, text: str, shown: str
) -> None:
    assert redactor(f"postgres://shop_user:{password}@db.shop.svc/orders")(text) == shown


def test_hosts_and_users_are_replaced_as_words() -> None:
    redact = redactor("mysql://joe%40x:s3cr3t-value@db-1.prod,[fd00::7]:1/orders?host=db-2.prod")
    assert redact("Access denied for joe@x at db-1.prod, db-2.prod, fd00::7") == (
        "Access denied for *** at ***, ***, ***"
    )
    assert redact("joe@xyz at mydb-1.prod") == "joe@xyz at mydb-1.prod"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("to postgres://u:p@h/n, no", "to postgres://*** no"),
        ("conninfo password=x'y host=h", "conninfo password=*** host=h"),
        ("password='a b' PGPASSWORD=hush", "password=*** PGPASSWORD=***"),
        ("https://example.org/a?b=c", "https://example.org/a?b=c"),
        ("password authentication failed", "password authentication failed"),
    ],
)
def test_what_looks_like_a_credential_is_replaced_whosever_it_is(text: str, shown: str) -> None:
    assert Redactor()(text) == shown


def test_the_spec_beside_a_text_shows_its_names_anyway() -> None:
    redact = redactor("postgres://shop:shop-at-noon@shop-db.prod/orders")
    redact.learn_spec('{"image": "registry.example/shop:2"}')

    assert redact(OfSpec('image "registry.example/shop:2" of shop-db.prod')) == (
        'image "registry.example/shop:2" of ***'
    ), "only names that the spec has"
    assert redact(OfSpec("shop says shop-at-noon")) == "shop says ***"
    assert redact(OfSpec("to postgres://shop@x/n")) == "to postgres://***"
    assert redact('no role "shop"') == 'no role "***"', "a text that may be about the database"


def test_urls_before_are_remembered_for_pods_that_still_have_them() -> None:
    redact = redactor(*(URLS["postgres"](f"rotated-{number}-away") for number in range(7)))
    assert redact("rotated-6-away rotated-1-away") == "*** ***"
    assert redact("rotated-0-away") == "rotated-0-away"


def test_only_what_others_wrote_is_redacted_in_an_error() -> None:
    redact = redactor("postgres://u:p@h/n")
    error = ObjectRejected(kind="Deployment", problem=Foreign("u p"))
    assert error.redacted(redact).message == f"The API server refuses the Deployment: {WITHHELD}"
    own = MigrationFailed(job="p", how="exit code 1", kept="", problem="")
    assert own.redacted(redact) is own


URL_TEXTS = st.builds(
    lambda scheme, password, form: (f"{scheme}://{URLS[form](password).partition('://')[2]}", password),
    st.sampled_from(["postgres", "psql", "mysql", "mariadb", "mysql+pymysql"]),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=24).filter(str.strip)
    | st.text("abcXYZ019/#@:%[]?&='\"\\ +", min_size=1, max_size=12).filter(str.strip)
    | st.sampled_from(["p", "pod", "operator", "the", "postgres", "password", "exit code 1"]),
    st.sampled_from(sorted(URLS)),
)


def is_told(secret: str, text: str) -> bool:
    """Whether ``text`` reveals the secret; a short or plain one counts only as a separate word."""
    if len(secret) >= 8 and not secret.isalpha():
        return secret in text
    left = r"(?<![^\W_])" if secret[0].isalnum() else ""
    right = r"(?![^\W_])" if secret[-1].isalnum() else ""
    return re.search(left + re.escape(secret) + right, text) is not None


def crashing(words: str) -> Pod:
    terminated = {"exitCode": 1, "message": words}
    status = {"name": "worker", "image": "i", "restartCount": 1}
    waiting = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}
    container = {**status, "state": waiting, "lastState": {"terminated": terminated}}
    return Pod.of({"metadata": {"name": "emails-1"}, "status": {"containerStatuses": [container]}})


def kinds(of: type[Exception]) -> Iterator[type[Exception]]:
    yield of
    for kind in of.__subclasses__():
        yield from kinds(kind)


# Everything that our own errors may say.
OURS = " ".join(
    [
        *(f"{kind.__module__} {getattr(kind, 'template', '')}" for kind in kinds(WorkerError)),
        "OperationalError OSError SQLSTATE 28P01 error 1045 2003",
        "it names no host, it names no database, it is empty, it does not start with, a well-formed URL",
        " ".join(f"a {character} in the user, the password" for character in "/?#[]@:% "),
    ]
)


def parts(text: str) -> list[str]:
    """The parts of a text between the marks for redacted parts."""
    return [part for line in text.split(WITHHELD) for part in line.split(HIDDEN)]


WHATEVER_IS_SAID = given(URL_TEXTS, st.sampled_from(sorted(FORMS)), st.text(max_size=10))


def no_form_is_told(drawn: tuple[str, str], form: str, noise: str) -> None:
    url, password = drawn
    written = FORMS[form](password)
    foreign = f"{noise} {written} {url} {noise}"
    seen = Turn(
        Key(namespace="shop", name="emails"),
        1,
        pods=(crashing(foreign),),
        apply_error=ObjectRejected(kind="Deployment", problem=Foreign(foreign)),
        database_error=AuthenticationFailed(),
    )

    told = seen.redacted(redactor(url))

    own = f"{noise} The API server refuses the Deployment: exit code 1, last log line: "
    assert told.database_error == seen.database_error
    assert told.apply_error
    assert told.apply_error.message.startswith("The API server refuses the Deployment: ")
    assert told.pods[0].told.startswith("exit code 1")
    for text in (told.apply_error.message, told.pods[0].told):
        for secret in {written, password, url}:
            if secret.strip() and not is_told(secret, own):
                assert not any(is_told(secret, part) for part in parts(text)), (secret, text)


test_no_form_of_a_credential_is_told = settings(max_examples=300, deadline=None)(
    WHATEVER_IS_SAID(no_form_is_told)
)


@settings(max_examples=200, deadline=None)
@given(URL_TEXTS, st.sampled_from(sorted(FORMS)))
def test_no_error_of_ours_quotes_a_driver_or_a_url(drawn: tuple[str, str], form: str) -> None:
    url, password = drawn
    quoted = f"{url} {FORMS[form](password)}"
    errors: list[Exception] = []
    try:
        DatabaseURL.parse(url)
    except UserError as error:
        errors.append(error)
    for raised in (
        psycopg.OperationalError(quoted),
        psycopg.errors.InvalidPassword(quoted),
        pymysql.OperationalError(1045, quoted),
        pymysql.OperationalError(2003, quoted),
        OSError(quoted),
    ):
        errors += [classified(raised, engine, Limits(5, 10), connected=False) for engine in ENGINES]
    for each in errors:
        assert each.__context__ is None
        # A traceback quotes lines of our code, in which one character stands for itself.
        shown = "".join(traceback.format_exception(each)) if len(password) > 3 else str(each)
        for secret in {password, url} - {""}:
            if secret.strip() and not is_told(secret, OURS):
                assert not is_told(secret, shown), (secret, shown)
