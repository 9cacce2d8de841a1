"""The unit tests' property of redaction, for so many URLs that it takes a minute."""

from __future__ import annotations

from hypothesis import settings
from tests.unit.test_redaction import WHATEVER_IS_SAID, no_form_is_told

test_no_form_of_a_credential_is_told = settings(max_examples=10_000, deadline=None)(
    WHATEVER_IS_SAID(no_form_is_told)
)
